"""Tables as text, markdown, latex, csv or json: best bold, second underlined, and notes on all that does not count."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tabulate import tabulate

from .grid import Cell, Row, Table, lower_is_better
from .paired import Pair
from .records import Defect

FORMATS = ("text", "markdown", "latex", "csv", "json")
MARKS = {  # best, second
    "text": ("*{}*", "_{}_"),
    "markdown": ("**{}**", "<u>{}</u>"),
    "latex": (r"\textbf{{{}}}", r"\underline{{{}}}"),
}
TABLE_FORMATS = {"text": "simple", "markdown": "github", "latex": "latex_raw"}
LATEX = str.maketrans({c: f"\\{c}" for c in "_%&#$"} | {"±": r"$\pm$", "−": "$-$", "<": "$<$"})
FLAG = "!"  # after the number of a cell that does not compare with its column
SMALL = ("nll", "brier", "seconds")  # metrics that are not in %, with more decimals


@dataclass(frozen=True)
class Report:
    """All that there is to print."""

    tables: list[Table]
    defects: list[Defect]
    pairs: list[Pair]
    names: tuple[str, str] = ("", "")  # of the pairs' methods
    ci95: bool = False

    def notes(self) -> list[str]:
        """What a reader must know: left out, missing, not comparable."""
        notes = [f"LEFT OUT: {defect}" for defect in self.defects]
        for table in self.tables:
            for row in table.rows:
                for column, cell in row.cells.items():
                    if cell.missing:
                        notes.append(f"MISSING: {row.name} on {column}: seed {', '.join(map(str, cell.missing))}")
                    notes += [f"NOT COMPARABLE ({FLAG}): {row.name} on {column}: {flag}" for flag in cell.flags]
                if any(run.source == "?" for run in row.runs):
                    notes.append(f"UNKNOWN PROMPT: {row.name}: the run that trained its prompt is not found")
        return list(dict.fromkeys(notes))


def render(report: Report, form: str) -> str:
    """The report in one of FORMATS. In csv, notes have no place: print them elsewhere."""
    if form == "json":
        return json.dumps(_plain(report), indent=2, ensure_ascii=False)
    if form == "csv":
        return _csv(report)
    spread = "95 % interval of the mean (Student's t)" if report.ci95 else "standard deviation"
    blocks = []
    for table in report.tables:
        title = f"{table.title}: {table.metric}, mean ± {spread} over seeds"
        blocks.append(_block(title, _wide(table, report.ci95, form), form))
        if paper := _beside_paper(table, form):
            blocks.append(_block(f"{table.title}: ours / the paper's / difference", paper, form))
    if report.pairs:
        title = f"McNemar's exact two-sided test of {' against '.join(report.names)}, p for each pair of runs by itself"
        blocks.append(_block(title, _paired_rows(report), form))
    if notes := report.notes():
        start = {"text": "", "markdown": "- ", "latex": "% "}[form]
        blocks.append("\n".join(start + note for note in notes))
    return "\n\n".join(blocks)


def _block(title: str, rows: list[list[str]], form: str) -> str:
    if form == "latex":
        rows = [[cell if "\\" in cell else cell.translate(LATEX) for cell in row] for row in rows]
        title = f"% {title}"
    align = ("left", *["right"] * (len(rows[0]) - 1))
    table = tabulate(rows[1:], rows[0], tablefmt=TABLE_FORMATS[form], disable_numparse=True, colalign=align)
    return f"{title}\n\n{table}"


def _wide(table: Table, ci95: bool, form: str) -> list[list[str]]:
    columns = [*table.columns, *table.averages]
    decimals = decimals_of(table.metric)
    marks = {column: _marks(table, column, form, decimals) for column in columns}
    rows = [["method", *columns, "seeds"]]
    for row in table.rows:
        cells = [_shown(row.cells.get(c), ci95, decimals, marks[c], form) for c in columns]
        counts = sorted({row.cells[c].summary.n for c in table.columns if c in row.cells})
        rows.append([row.name, *cells, "-".join(map(str, dict.fromkeys((counts[0], counts[-1]))))])
    return rows


def decimals_of(metric: str) -> int:
    """After the point: two for percents, four else."""
    return 4 if any(name in metric for name in SMALL) else 2


def _marks(table: Table, column: str, form: str, decimals: int) -> dict[float, str]:
    """Rounded value -> its mark. Cells that do not compare take no part; with one row there is nothing to mark."""
    cells = [row.cells[column] for row in table.rows if column in row.cells]
    values = {round(cell.summary.mean, decimals) for cell in cells if not cell.flags}
    best = sorted(values, reverse=not lower_is_better(table.metric))
    return dict(zip(best, MARKS[form], strict=False)) if len(cells) > 1 else {}


def _shown(cell: Cell | None, ci95: bool, decimals: int, marks: dict[float, str], form: str) -> str:
    if cell is None:
        return "-"
    escape: Callable[[str], str] = (lambda text: text.translate(LATEX)) if form == "latex" else str
    mean = f"{cell.summary.mean:.{decimals}f}"
    if not cell.flags:
        mean = marks.get(round(cell.summary.mean, decimals), "{}").format(mean)
    spread = cell.summary.ci95 if ci95 else cell.summary.std
    return mean + escape("" if spread is None else f" ± {spread:.{decimals}f}") + (FLAG if cell.flags else "")


def _beside_paper(table: Table, form: str) -> list[list[str]]:
    columns = [c for c in (*table.columns, *table.averages) if any(_paper(row, c) is not None for row in table.rows)]
    rows = [["method", *columns]]
    for row in table.rows:
        cells = []
        for paper, column in [(_paper(row, c), c) for c in columns]:
            ours = row.cells[column].summary.mean if paper is not None else 0.0
            cells.append("-" if paper is None else f"{ours:.2f} / {paper:.2f} / {ours - paper:+.2f}")
        if set(cells) != {"-"}:
            rows.append([row.name, *cells])
    return rows if columns else []


def _paper(row: Row, column: str) -> float | None:
    return row.cells[column].paper if column in row.cells else None


def _paired_rows(report: Report) -> list[list[str]]:
    rows = [["dataset", "seed", "images", "only the first right", "only the second right", "difference", "p"]]
    for pair in report.pairs:
        counts = map(str, (pair.seed, pair.images, pair.only_first, pair.only_second))
        rows.append([pair.dataset, *counts, f"{pair.difference:+.2f}", f"{pair.p:.3g}"])
    return rows


def _cells(table: Table) -> list[dict[str, Any]]:
    """One dict for each cell."""
    found = []
    for row in table.rows:
        for column in (*table.columns, *table.averages):
            if cell := row.cells.get(column):
                found.append(
                    {
                        "table": table.title,
                        "method": row.name,
                        "dataset": column,
                        "metric": table.metric,
                        "mean": cell.summary.mean,
                        "std": cell.summary.std,
                        "ci95": cell.summary.ci95,
                        "n": cell.summary.n,
                        "seeds": list(cell.seeds),
                        "missing": cell.missing,
                        "paper": cell.paper,
                        "difference": None if cell.paper is None else cell.summary.mean - cell.paper,
                        "not_comparable": cell.flags,
                    }
                )
    return found


def _plain(report: Report) -> dict[str, Any]:
    return {
        "cells": [cell for table in report.tables for cell in _cells(table)],
        "runs": [
            {"table": table.title, "method": row.name, "dataset": c, "seed": seed, table.metric: value}
            for table in report.tables
            for row in table.rows
            for c in table.columns
            if c in row.cells
            for seed, value in row.cells[c].seeds.items()
        ],
        "mcnemar": [_paired(pair, report.names) for pair in report.pairs],
        "notes": report.notes(),
    }


def _paired(pair: Pair, names: Sequence[str]) -> dict[str, Any]:
    return {"first": names[0], "second": names[1], **vars(pair), "difference": pair.difference, "p": pair.p}


def _csv(report: Report) -> str:
    """The cells, one a line; with McNemar's test the pairs instead."""
    rows = [_paired(pair, report.names) for pair in report.pairs] or _plain(report)["cells"]
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: "; ".join(map(str, v)) if isinstance(v, list) else v for k, v in row.items()})
    return text.getvalue().rstrip("\n")
