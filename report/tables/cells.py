"""Puts runs into tables: a row is a method with one set of settings, a column a dataset, a cell the mean over seeds."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tlla.paper import (
    BACKBONE,
    BENCHMARKS,
    H_AVERAGE,
    HALVES,
    OOD_AVERAGE,
    BaseToNew,
    Benchmark,
    SomeClasses,
)
from tlla.records.origins import UNKNOWN, with_classes
from tlla.records.record import WITH_BINS, Defect

from .numbers import Summary, averaged, harmonic_mean
from .runs import Run

ORDER = tuple(column for benchmark in BENCHMARKS for column in benchmark.columns)
SAME_DATASET = "Trained and tested on the same dataset"
BASE_TO_NEW = "Base-to-new generalization"
UNITS = {  # of the metrics that every record has; a method's own details have no better and worse
    **dict.fromkeys(("accuracy", "error_rate", "macro_f1", "perclass_accuracy", "top5", "aurc", *WITH_BINS), "%"),
    **dict.fromkeys(("seconds", "seconds_per_image", "method_seconds_per_image"), "s"),
    "nll": "nats",
    "peak_memory_mb": "MB",
}
SCORES = ("accuracy", "macro_f1", "perclass_accuracy", "top5")  # in %, high is good: those that have an H
HIGHER_IS_BETTER = (*SCORES, "correct", "images_per_second")
LOWER_IS_BETTER = (*(name for name in UNITS if name not in SCORES), "brier")
OF_A_DATASET = ("number of images", "split hash", "hash of the class names")  # not in the settings of a row


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

    @property
    def used_labels(self) -> bool:
        """Whether the true classes chose its views."""
        return any(run.used_labels for run in self.runs)


@dataclass
class Table:
    """Rows, the best first."""

    title: str
    metric: str
    columns: list[str]  # datasets that were tested
    headings: list[str]  # all that has a cell in some row, in order: datasets, averages, harmonic means
    rows: list[Row]


def direction(metric: str) -> int:
    """1 if a high number is a good one, -1 if a low one is, 0 if neither is known."""
    return (metric in HIGHER_IS_BETTER) - (metric in LOWER_IS_BETTER)


def build(runs: Sequence[Run], metric: str, seeds: Sequence[int] = ()) -> tuple[list[Table], list[Defect]]:
    """Tables of a metric, and the runs that had to be left out.

    Args:
        runs: Complete runs.
        metric: A name in their metrics.
        seeds: Those that every cell should have; (): all that occur.
    """
    kept, defects = _reject(runs, metric)
    expected = sorted(seeds or {run.seed for run in kept if run.seeded})
    tables = []
    for corrupted, suffix in ((False, ""), (True, ", with corrupted test images")):  # which no average mixes
        for home, members in _tables([run for run in kept if bool(run.corruption) == corrupted]):
            tables.append(_table(replace(home, title=home.title + suffix), members, metric, expected))
    return tables, defects


def _reject(runs: Sequence[Run], metric: str) -> tuple[list[Run], list[Defect]]:
    """Leaves out runs without the metric, several runs of one seed, and seeds on other images than the rest."""
    defects = {id(run): Defect(run.folder, f"it has no {metric}") for run in runs if metric not in run.metrics}
    cells: dict[tuple[Any, ...], list[Run]] = defaultdict(list)
    for run in runs:
        if id(run) not in defects:
            cells[run.title, _frozen(run.settings), run.source, run.dataset].append(run)
    for members in cells.values():
        count = Counter(run.seed for run in members)
        usual = _usual(members)
        for run in members:
            others = [str(other.folder) for other in members if other.seed == run.seed and other is not run]
            odd = [
                f"{name} {run.facts[name]}, not {value}" for name, value in usual.items() if run.facts[name] != value
            ]
            if count[run.seed] > 1:
                reason = f"a second run of seed {run.seed} with the same settings as {others[0]}"
                defects[id(run)] = Defect(run.folder, reason + _elsewhere(run, members))
            elif odd:
                defects[id(run)] = Defect(run.folder, f"not comparable with the other seeds: {'; '.join(odd)}")
    return [run for run in runs if id(run) not in defects], list(defects.values())


def _elsewhere(run: Run, others: Sequence[Run]) -> str:
    """What to do if the images of equal names may be others."""
    roots = sorted({other.root for other in others if other.seed == run.seed})
    if len(roots) < 2:
        return ""
    return f", on {' and '.join(roots)}: if those hold different images, give each a name by DATASET.TITLE"


def _usual(runs: Sequence[Run]) -> dict[str, str]:
    """The most frequent value of what must agree among seeds."""
    names = [name for name in OF_A_DATASET if all(name in run.facts for run in runs)]
    return {name: Counter(run.facts[name] for run in runs).most_common(1)[0][0] for name in names}


def _frozen(settings: Mapping[str, str]) -> str:
    return json.dumps(settings, sort_keys=True)


def _position(dataset: str) -> tuple[int, str]:
    name = dataset.partition(" (")[0]
    return (ORDER.index(name) if name in ORDER else len(ORDER), dataset)


def _tables(runs: Sequence[Run]) -> Iterator[tuple[Benchmark, list[Run]]]:
    """The benchmarks of the runs, with their runs; methods without training are in every one that has their dataset."""
    elsewhere = {run.source for run in runs if run.source != run.dataset}
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in filter(lambda run: run.source, runs):
        groups[_home(run, elsewhere)].append(run)
    if SAME_DATASET in groups:
        present = {id(run) for run in groups[SAME_DATASET]}
        own = (run for run in runs if run.source == run.dataset and run.classes not in HALVES)
        groups[SAME_DATASET] += [run for run in own if id(run) not in present]
    for run in filter(lambda run: not run.source, runs):
        homes = [title for title, group in groups.items() if _has_column(title, group, run.dataset)]
        for title in homes or [_home(run, elsewhere)]:
            groups[title].append(run)
    known = {benchmark.title: benchmark for benchmark in BENCHMARKS}
    for title in sorted(groups, key=lambda title: ([*known].index(title) if title in known else len(known), title)):
        benchmark = known.get(title) or _found(title, groups[title])
        if title.startswith("Trained") and not all(run.source for run in groups[title]):
            benchmark = replace(benchmark, title=f"{title}, or not trained")  # the heading is of all rows
        yield benchmark, groups[title]


def _home(run: Run, elsewhere: set[str]) -> str:
    if run.classes in HALVES and run.source in ("", UNKNOWN, with_classes(run.data, HALVES[0])):
        return BASE_TO_NEW
    for benchmark in BENCHMARKS:
        if run.dataset in benchmark.columns and run.source in ("", UNKNOWN, benchmark.source):
            return benchmark.title
    if not run.source:
        return "Without training"
    same = run.source == run.dataset and run.source not in elsewhere and run.classes not in HALVES
    return SAME_DATASET if same else f"Trained on {run.source}"


def _has_column(title: str, group: Sequence[Run], dataset: str) -> bool:
    known = next((benchmark.columns for benchmark in BENCHMARKS if benchmark.title == title), ())
    return dataset in known or any(run.dataset == dataset for run in group)


def _found(title: str, runs: Sequence[Run]) -> Benchmark:
    """A benchmark that the paper does not have, of the datasets that were found."""
    if title == BASE_TO_NEW:
        return BaseToNew(title, "", tuple(sorted({run.data for run in runs}, key=_position)))
    datasets = sorted({run.dataset for run in runs}, key=_position)
    source = title.removeprefix("Trained on ") if title.startswith("Trained on ") else ""
    targets = tuple(name for name in datasets if name != source) or tuple(datasets)
    kind = SomeClasses if any(run.classes in HALVES for run in runs) else Benchmark
    return kind(title, source, targets, with_source=source in datasets and source not in targets)


def _table(benchmark: Benchmark, runs: list[Run], metric: str, expected: list[int]) -> Table:
    present = {run.dataset for run in runs}
    columns = [name for name in benchmark.columns if name in present]
    rows = [_row(row, benchmark, metric, expected) for row in _rows(runs)]
    for column in columns:
        _flag([row for row in rows if column in row.cells], column)
    for row in rows:
        _add_averages(row, benchmark)
        if metric in SCORES:
            _add_harmonic_means(row, benchmark)
    if metric == "accuracy":
        for row in rows:
            if {run.facts.get("backbone") for run in row.runs} == {BACKBONE}:
                for column, value in benchmark.published(row.method).items():
                    if column in row.cells:
                        row.cells[column].paper = value
    headings = [name for name in benchmark.headings if any(name in row.cells for row in rows)]
    return Table(benchmark.title, metric, columns, headings, _sorted(rows, headings, benchmark, direction(metric)))


def _rows(runs: Sequence[Run]) -> Iterator[Row]:
    """One for each method, protocol and set of settings; where a method has several, the name says what differs."""
    methods: dict[str, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        methods[run.title][_frozen(run.settings)].append(run)
    for title, variants in methods.items():
        settings = [group[0].settings for group in variants.values()]
        keys = sorted({key for s in settings for key in s})
        differing = [key for key in keys if len({s.get(key, _absent(key, s)) for s in settings} - {None}) > 1]
        for group in variants.values():
            found = {key: group[0].settings.get(key, _absent(key, group[0].settings)) for key in differing}
            what = ", ".join(f"{key} {value}" for key, value in found.items() if value is not None)
            yield Row(f"{title} [{what}]" if what else title, group[0].method, group)


def _absent(key: str, settings: Mapping[str, str]) -> str | None:
    """What a row's name says of a setting that the row has not; None of the training's if nothing is known of that."""
    of_training = key == "epoch" or key.startswith("training ")
    return None if of_training and "epoch" not in settings else "-"


def _row(row: Row, benchmark: Benchmark, metric: str, expected: list[int]) -> Row:
    for column in benchmark.columns:
        seeds = {run.seed: run.metrics[metric] for run in row.runs if run.dataset == column}
        if seeds:
            wanted = expected if any(run.seeded for run in row.runs) else []
            missing = [seed for seed in wanted if seed not in seeds]
            row.cells[column] = Cell(averaged([*seeds.values()]), dict(sorted(seeds.items())), missing)
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
        seeds = {seed: averaged([cell.seeds[seed] for cell in cells]).mean for seed in cells[0].seeds}
        row.cells[name] = Cell(averaged([*seeds.values()]), seeds)


def _add_harmonic_means(row: Row, benchmark: Benchmark) -> None:
    """H of the means over seeds; its spread is that of the seeds' own H. For the same seeds, if both are comparable."""
    for name, pair in benchmark.harmonic.items():
        cells = [row.cells[column] for column in pair if column in row.cells]
        if len(cells) < 2 or cells[0].seeds.keys() != cells[1].seeds.keys() or any(cell.flags for cell in cells):
            continue
        seeds = {seed: harmonic_mean(*(cell.seeds[seed] for cell in cells)) for seed in cells[0].seeds}
        mean = harmonic_mean(*(cell.summary.mean for cell in cells))
        row.cells[name] = Cell(replace(averaged([*seeds.values()]), mean=mean), seeds)


def _sorted(rows: list[Row], headings: Sequence[str], benchmark: Benchmark, sign: int) -> list[Row]:
    """Best first, by the average over the targets, else over all, else by H; rows without it come last, fullest first.

    By name if no number is better than another.
    """
    known = (OOD_AVERAGE, H_AVERAGE, *benchmark.averages, *benchmark.harmonic)
    heading = next((name for name in known if name in headings), "")

    def rank(row: Row) -> tuple[int, float, str]:
        has = heading in row.cells
        mean = row.cells[heading].summary.mean if has else averaged([c.summary.mean for c in row.cells.values()]).mean
        return (0 if has else 1000 - len(row.cells), -sign * mean, row.name)

    return sorted(rows, key=rank)
