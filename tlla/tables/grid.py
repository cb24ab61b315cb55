"""Puts runs into tables: a row is a method with one set of settings, a column a dataset, a cell the mean over seeds."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tlla.paper import BACKBONE, BENCHMARKS, OOD_AVERAGE, Benchmark

from .numbers import Summary, summarize
from .records import Defect
from .runs import Run

ORDER = tuple(column for benchmark in BENCHMARKS for column in benchmark.columns)
SAME_DATASET = "Trained and tested on the same dataset"
LOWER_IS_BETTER = ("nll", "ece", "brier", "error_rate")
COSTS = ("seconds", "memory_mb")  # lower is better, too: in the name of the metric
OF_A_DATASET = ("number of images", "split hash")  # facts that the settings of a row do not hold


@dataclass
class Cell:
    """What is known of a method on a dataset, or on the mean of several."""

    summary: Summary
    seeds: dict[int, float]
    missing: list[int] = field(default_factory=list)  # seeds
    flags: list[str] = field(default_factory=list)  # why it does not compare with the column
    paper: float | None = None


@dataclass
class Row:
    """A method. `cells` is by column: datasets, then averages."""

    name: str
    method: str
    runs: list[Run]
    cells: dict[str, Cell] = field(default_factory=dict)


@dataclass
class Table:
    """Rows, the best first."""

    title: str
    metric: str
    columns: list[str]
    averages: list[str]
    rows: list[Row]


def lower_is_better(metric: str) -> bool:
    """Whether a small number is a good one."""
    return metric in LOWER_IS_BETTER or any(cost in metric for cost in COSTS)


def build(runs: Sequence[Run], metric: str, seeds: Sequence[int] = ()) -> tuple[list[Table], list[Defect]]:
    """Tables of a metric, and the runs that had to be left out.

    Args:
        runs: Complete runs.
        metric: A name in their metrics.
        seeds: Those that every cell should have; (): all that occur.
    """
    kept, defects = _reject(runs, metric)
    expected = sorted(seeds or {run.seed for run in kept if run.seeded})
    return [_table(home, members, metric, expected) for home, members in _tables(kept)], defects


def _reject(runs: Sequence[Run], metric: str) -> tuple[list[Run], list[Defect]]:
    """Leaves out runs without the metric, several runs of one seed, and seeds on other images than the rest."""
    defects = {id(run): Defect(run.folder, f"it has no {metric}") for run in runs if metric not in run.metrics}
    cells: dict[tuple[Any, ...], list[Run]] = defaultdict(list)
    for run in runs:
        if id(run) not in defects:
            cells[run.method, _frozen(run.settings), run.source, run.dataset].append(run)
    for members in cells.values():
        count = Counter(run.seed for run in members)
        usual = _usual(members)
        for run in members:
            others = [str(other.folder) for other in members if other.seed == run.seed and other is not run]
            odd = [
                f"{name} {run.facts[name]}, not {value}" for name, value in usual.items() if run.facts[name] != value
            ]
            if count[run.seed] > 1:
                defects[id(run)] = Defect(
                    run.folder, f"a second run of seed {run.seed} with the same settings as {others[0]}"
                )
            elif odd:
                defects[id(run)] = Defect(run.folder, f"not comparable with the other seeds: {'; '.join(odd)}")
    return [run for run in runs if id(run) not in defects], list(defects.values())


def _usual(runs: Sequence[Run]) -> dict[str, str]:
    """The most frequent value of what must agree among seeds."""
    names = [name for name in OF_A_DATASET if all(name in run.facts for run in runs)]
    return {name: Counter(run.facts[name] for run in runs).most_common(1)[0][0] for name in names}


def _frozen(settings: Mapping[str, str]) -> str:
    return json.dumps(settings, sort_keys=True)


def _position(dataset: str) -> tuple[int, str]:
    return (ORDER.index(dataset) if dataset in ORDER else len(ORDER), dataset)


def _tables(runs: Sequence[Run]) -> Iterator[tuple[Benchmark, list[Run]]]:
    """The benchmarks of the runs, with their runs; methods without training are in every one that has their dataset."""
    elsewhere = {run.source for run in runs if run.source != run.dataset}
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in filter(lambda run: run.source, runs):
        groups[_home(run, elsewhere)].append(run)
    if SAME_DATASET in groups:
        present = {id(run) for run in groups[SAME_DATASET]}
        groups[SAME_DATASET] += [run for run in runs if run.source == run.dataset and id(run) not in present]
    for run in filter(lambda run: not run.source, runs):
        homes = [title for title, group in groups.items() if _has_column(title, group, run.dataset)]
        for title in homes or [_home(run, elsewhere)]:
            groups[title].append(run)
    known = {benchmark.title: benchmark for benchmark in BENCHMARKS}
    for title in sorted(groups, key=lambda title: ([*known].index(title) if title in known else len(known), title)):
        yield known.get(title) or _found(title, groups[title]), groups[title]


def _home(run: Run, elsewhere: set[str]) -> str:
    for benchmark in BENCHMARKS:
        if run.dataset in benchmark.columns and run.source in ("", "?", benchmark.source):
            return benchmark.title
    if not run.source:
        return "Without training"
    return SAME_DATASET if run.source == run.dataset and run.source not in elsewhere else f"Trained on {run.source}"


def _has_column(title: str, group: Sequence[Run], dataset: str) -> bool:
    known = next((benchmark.columns for benchmark in BENCHMARKS if benchmark.title == title), ())
    return dataset in known or any(run.dataset == dataset for run in group)


def _found(title: str, runs: Sequence[Run]) -> Benchmark:
    """A benchmark that the paper does not have, of the datasets that were found."""
    datasets = sorted({run.dataset for run in runs}, key=_position)
    source = title.removeprefix("Trained on ") if title.startswith("Trained on ") else ""
    targets = tuple(name for name in datasets if name != source)
    return Benchmark(title, source, targets, with_source=source in datasets and bool(targets))


def _table(benchmark: Benchmark, runs: list[Run], metric: str, expected: list[int]) -> Table:
    present = {run.dataset for run in runs}
    columns = [name for name in benchmark.columns if name in present]
    rows = [_row(row, benchmark, metric, expected) for row in _rows(runs)]
    for column in columns:
        _flag([row for row in rows if column in row.cells], column)
    for row in rows:
        _add_averages(row, benchmark)
    if metric == "accuracy":
        for row in rows:
            if {run.facts.get("backbone") for run in row.runs} == {BACKBONE}:
                for column, value in benchmark.published(row.method).items():
                    if column in row.cells:
                        row.cells[column].paper = value
    averages = [name for name in benchmark.averages if any(name in row.cells for row in rows)]
    return Table(benchmark.title, metric, columns, averages, _sorted(rows, averages, lower_is_better(metric)))


def _rows(runs: Sequence[Run]) -> Iterator[Row]:
    """One for each method and set of settings; where a method has several, the name says what differs."""
    methods: dict[str, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        methods[run.method][_frozen(run.settings)].append(run)
    for method, variants in methods.items():
        settings = [group[0].settings for group in variants.values()]
        keys = sorted({key for s in settings for key in s})
        differing = [key for key in keys if len({s.get(key, "-") for s in settings}) > 1]
        for group in variants.values():
            what = ", ".join(f"{key} {group[0].settings.get(key, '-')}" for key in differing)
            yield Row(f"{method} [{what}]" if what else method, method, group)


def _row(row: Row, benchmark: Benchmark, metric: str, expected: list[int]) -> Row:
    for column in benchmark.columns:
        seeds = {run.seed: run.metrics[metric] for run in row.runs if run.dataset == column}
        if seeds:
            wanted = expected if any(run.seeded for run in row.runs) else []
            missing = [seed for seed in wanted if seed not in seeds]
            row.cells[column] = Cell(summarize([*seeds.values()]), dict(sorted(seeds.items())), missing)
    return row


def _flag(rows: Sequence[Row], column: str) -> None:
    """Says of each cell in which facts it differs from most of its column."""
    facts = [(row, next(run for run in row.runs if run.dataset == column).facts) for row in rows]
    for name in dict.fromkeys(name for _, found in facts for name in found):
        usual = Counter(found[name] for _, found in facts if name in found).most_common(1)[0][0]
        for row, found in facts:
            if found.get(name, usual) != usual:
                row.cells[column].flags.append(f"{name} {found[name]}, not {usual}")


def _add_averages(row: Row, benchmark: Benchmark) -> None:
    """Means over datasets, if all cells are there, of the same seeds, and comparable."""
    for name, datasets in benchmark.averages.items():
        cells = [row.cells[dataset] for dataset in datasets if dataset in row.cells]
        if len(cells) < len(datasets) or len(cells) < 2:
            continue
        if any(cell.seeds.keys() != cells[0].seeds.keys() or cell.flags for cell in cells):
            continue
        seeds = {seed: summarize([cell.seeds[seed] for cell in cells]).mean for seed in cells[0].seeds}
        row.cells[name] = Cell(summarize([*seeds.values()]), seeds)


def _sorted(rows: list[Row], averages: Sequence[str], ascending: bool) -> list[Row]:
    """Best first, by the average over the targets, else over all; rows without it come last, the fullest first."""
    heading = OOD_AVERAGE if OOD_AVERAGE in averages else next(iter(averages), "")

    def rank(row: Row) -> tuple[int, float, str]:
        has = heading in row.cells
        mean = row.cells[heading].summary.mean if has else summarize([c.summary.mean for c in row.cells.values()]).mean
        return (0 if has else 1000 - len(row.cells), mean if ascending else -mean, row.name)

    return sorted(rows, key=rank)
