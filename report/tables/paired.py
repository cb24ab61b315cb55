"""McNemar's test between two methods on the same images: the same dataset, seed and test split."""

from collections.abc import Sequence
from dataclasses import dataclass

from tlla.errors import InputError, nearest
from tlla.records.store import predictions_file, read_rows

from .cells import Table
from .numbers import mcnemar
from .runs import Run


@dataclass(frozen=True)
class Pair:
    """Two methods on the images of one dataset under one seed. The counts are of images."""

    dataset: str
    seed: int
    images: int
    only_first: int
    only_second: int

    @property
    def difference(self) -> float:
        """First less second, in points of accuracy."""
        return 100 * (self.only_first - self.only_second) / self.images

    @property
    def p(self) -> float:
        """Exact two-sided p-value."""
        return mcnemar(self.only_first, self.only_second)


def compare(tables: Sequence[Table], first: str, second: str) -> list[Pair]:
    """All datasets and seeds that both rows have; a run without randomness meets every seed of the other.

    Raises:
        InputError: A name is not one row's, nothing is in common, or the test splits differ.
    """
    names = list(dict.fromkeys(row.name for table in tables for row in table.rows))
    for name in (first, second):
        if name not in names:
            raise InputError(f"--mcnemar: there is no row {name!r}: {nearest(name, names)}")
    pairs = {}
    for table in tables:  # not across tables, where rows of one name were trained on other datasets
        runs = {row.name: row.runs for row in table.rows}
        for a in runs.get(first, ()):
            for b in runs.get(second, ()):
                if a.dataset == b.dataset and (a.seed == b.seed or not a.seeded or not b.seeded):
                    pairs[a.folder, b.folder] = (a, b)
    if not pairs:
        raise InputError(f"--mcnemar: {first} and {second} have no dataset with a seed in common, in one table")
    return [_pair(a, b, a.seed if a.seeded else b.seed) for a, b in pairs.values()]


def _pair(a: Run, b: Run, seed: int) -> Pair:
    if a.facts.get("split hash") != b.facts.get("split hash"):
        raise InputError(
            f"--mcnemar: {a.folder} and {b.folder} were tested on different images: their split hashes differ"
        )
    hits = [_hits(run) for run in (a, b)]
    if hits[0].keys() != hits[1].keys():
        raise InputError(f"--mcnemar: predictions_test.csv of {a.folder} and {b.folder} list different images")
    both = [(hits[0][image], hits[1][image]) for image in hits[0]]
    return Pair(a.dataset, seed, len(both), both.count((True, False)), both.count((False, True)))


def _hits(run: Run) -> dict[tuple[str, str], bool]:
    """(index, label) of each image -> whether it was classified correctly."""
    path, rows = predictions_file(run.folder, "test"), read_rows(run.folder, "test")
    hits = {(row["index"], row["label"]): row["label"] == row["prediction"] for row in rows}
    if len(hits) != int(run.facts["number of images"]):
        raise InputError(
            f"--mcnemar: {path} has {len(hits)} images, but results.json {run.facts['number of images']}: it was cut"
        )
    return hits
