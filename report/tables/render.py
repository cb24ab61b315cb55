"""Tables as text, markdown, latex, csv or json: best bold, second underlined, and notes on all that does not count."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tabulate import tabulate

from tlla.files import to_csv
from tlla.paper import H_AVERAGE
from tlla.records.origins import UNKNOWN, Origin
from tlla.records.record import ECE_BINS, WITH_BINS, Defect

from .cells import UNITS, Cell, Row, Table, direction
from .paired import Pair

FORMATS = ("text", "markdown", "latex", "csv", "json")
MARKS = {  # best, second
    "text": ("*{}*", "_{}_"),
    "markdown": ("**{}**", "<u>{}</u>"),
    "latex": (r"\textbf{{{}}}", r"\underline{{{}}}"),
}
TABLE_FORMATS = {"text": "simple", "markdown": "github", "latex": "latex_raw"}
LATEX = str.maketrans(
    {c: f"\\{c}" for c in "_%&#${}"}
    | {"±": r"$\pm$", "−": "$-$", "<": "$<$", ">": "$>$"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)
FLAG = "!"  # after the number of a cell that does not compare with its column
H_NOTE = "H: the harmonic mean of base and new, each the mean over seeds; of the averages: not the average of H"


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
            notes += [H_NOTE] if H_AVERAGE in table.headings or any(h.endswith("(H)") for h in table.headings) else []
            for row in table.rows:
                for column, cell in row.cells.items():
                    if cell.missing:
                        notes.append(f"MISSING: {row.name} on {column}: seed {', '.join(map(str, cell.missing))}")
                    notes += [f"NOT COMPARABLE ({FLAG}): {row.name} on {column}: {flag}" for flag in cell.flags]
                origins = (run.origin for run in row.runs if run.origin)
                if row.used_labels:
                    notes.append(
                        f"USED LABELS: {row.name}: the true classes chose the views, which no prediction knows"
                    )
                streams = dict.fromkeys(run.stream for run in row.runs if run.stream)
                notes += [f"COMPOSED BY LABELS: {row.name}: the true classes ordered the images, {s}" for s in streams]
                if any(run.read_first for run in row.runs):
                    notes.append(f"READ FIRST: {row.name}: the whole test set was read before the first prediction")
                notes += [_origin_note(row.name, origin) for origin in origins if origin.record is None]
                notes += _protocol_notes(row)
        return list(dict.fromkeys(notes))


def _origin_note(name: str, origin: Origin) -> str:
    if UNKNOWN in (origin.name, origin.data):
        return f"UNKNOWN PROMPT: {name}: nothing in {origin.folder} says who has trained it, or on what"
    return f"PROMPT WITHOUT ITS RECORD, {origin.name}'s on {origin.data} by {origin.said_by}: {name}: {origin.folder}"


def _protocol_notes(row: Row) -> Iterator[str]:
    """What the authors' protocol has set on each dataset; those on which it is the same together."""
    columns: dict[tuple[str, str, str], list[str]] = {}
    for run in row.runs:
        if run.protocol:
            what = ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in run.protocol["set"].items())
            columns.setdefault((run.protocol["source"], run.protocol["lacks"], what), []).append(run.dataset)
    for (source, lacks, what), datasets in columns.items():
        names = ", ".join(dict.fromkeys(datasets))
        yield f"AUTHORS' PROTOCOL ({source}): {row.name} on {names}: {what}" + f"; without {lacks}" * bool(lacks)


def render(report: Report, form: str) -> str:
    """The report in one of FORMATS. In csv, notes have no place: print them elsewhere."""
    if form == "json":
        return json.dumps(_plain(report), indent=2, ensure_ascii=False)
    if form == "csv":
        return _csv(report)
    spread = "95 % interval of the mean (Student's t)" if report.ci95 else "standard deviation"
    blocks = []
    for table in report.tables:
        unit = f" in {UNITS[table.metric]}" if table.metric in UNITS else ""
        unit += f" ({ECE_BINS} bins)" if table.metric in WITH_BINS else ""
        title = f"{table.title}: {table.metric}{unit}, mean ± {spread} over seeds"
        blocks.append(_block(title, _wide(table, report.ci95, form), form))
        if paper := _beside_paper(table, form):
            title = f"{table.title}: ours, from these runs / the paper's, copied / difference"
            blocks.append(_block(title, paper, form))
    if report.pairs:
        title = f"McNemar's exact two-sided test of {' against '.join(report.names)}, p for each pair of runs by itself"
        blocks.append(_block(title, _paired_rows(report, form), form))
    if notes := report.notes():
        start = {"text": "", "markdown": "- ", "latex": "% "}[form]
        blocks.append("\n".join(start + " ".join(note.split()) for note in notes))
    return "\n\n".join(blocks)


def _block(title: str, rows: list[list[str]], form: str) -> str:
    if form == "latex":
        title = f"% {title}"
    align = ("left", *["right"] * (len(rows[0]) - 1))
    table = tabulate(rows[1:], rows[0], tablefmt=TABLE_FORMATS[form], disable_numparse=True, colalign=align)
    return f"{title}\n\n{table}"


def escaped(text: str, form: str) -> str:
    """A text as a cell of a table in one of FORMATS, or of a list of notes: what it says, on one line."""
    text = " ".join(text.split())
    if form == "latex":
        return text.translate(LATEX)
    return text.replace("|", "\\|") if form == "markdown" else text


def _wide(table: Table, ci95: bool, form: str) -> list[list[str]]:
    columns = table.headings
    decimals = decimals_of(table.metric)
    marks = {column: _marks(table, column, form, decimals) for column in columns}
    rows = [["method", *(escaped(column, form) for column in columns), "seeds"]]
    for row in table.rows:
        own = {} if row.used_labels else marks
        cells = [_shown(row.cells.get(c), ci95, decimals, own.get(c, {}), form) for c in columns]
        counts = sorted({row.cells[c].summary.n for c in table.columns if c in row.cells})
        rows.append([escaped(row.name, form), *cells, "-".join(map(str, dict.fromkeys((counts[0], counts[-1]))))])
    return rows


def decimals_of(metric: str) -> int:
    """After the point: two for percents, one for counts and MB, four else."""
    if metric in ("total", "correct") or UNITS.get(metric) == "MB":
        return 1
    return 2 if UNITS.get(metric) == "%" else 4


def _marks(table: Table, column: str, form: str, decimals: int) -> dict[float, str]:
    """Rounded value -> its mark. Cells that do not compare or used labels take no part; nor is a single row marked."""
    rows = [row for row in table.rows if not row.used_labels]
    cells = [row.cells[column] for row in rows if column in row.cells]
    values = {round(cell.summary.mean, decimals) for cell in cells if not cell.flags}
    best = sorted(values, reverse=direction(table.metric) > 0)
    return dict(zip(best, MARKS[form], strict=False)) if len(cells) > 1 and direction(table.metric) else {}


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
    columns = [c for c in table.headings if any(_paper(row, c) is not None for row in table.rows)]
    rows = [["method", *(escaped(column, form) for column in columns)]]
    for row in table.rows:
        cells = []
        for paper, column in [(_paper(row, c), c) for c in columns]:
            ours = row.cells[column].summary.mean if paper is not None else 0.0
            cells.append("-" if paper is None else f"{ours:.2f} / {paper:.2f} / {ours - paper:+.2f}")
        if set(cells) != {"-"}:
            rows.append([escaped(row.name, form), *cells])
    return rows if columns else []


def _paper(row: Row, column: str) -> float | None:
    return row.cells[column].paper if column in row.cells else None


def _paired_rows(report: Report, form: str) -> list[list[str]]:
    rows = [["dataset", "seed", "images", "only the first right", "only the second right", "difference", "p"]]
    for pair in report.pairs:
        counts = map(str, (pair.seed, pair.images, pair.only_first, pair.only_second))
        rows.append([escaped(pair.dataset, form), *counts, f"{pair.difference:+.2f}", f"{pair.p:.3g}"])
    return rows


def _cells(table: Table) -> list[dict[str, Any]]:
    """One dict for each cell."""
    found = []
    for row in table.rows:
        for column in table.headings:
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
    cells = [["; ".join(map(str, v)) if isinstance(v, list) else v for v in row.values()] for row in rows]
    return to_csv([rows[0], *cells]).rstrip("\n")
