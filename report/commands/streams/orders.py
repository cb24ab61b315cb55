"""An online method under many orders of the same images: what an image gives in any order is computed once.

Letters in shapes: N images, V views, K classes, E joint space.
"""

import json
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from tlla.errors import InputError
from tlla.files import read_dict, write_text
from tlla.fingerprint import key_of
from tlla.methods.base import Method
from tlla.precision import float32_products
from tlla.records.record import Record
from tlla.streams import Stream, expected_tail_accuracy
from trainers.base import ClipTrainer
from trainers.harness.entries import Entry
from trainers.harness.evaluation import name_of_test

from ...reopen import open_run, tested_entries
from ..settings.bank import ViewBank, view_bank

SAVE_EVERY = 5.0  # seconds


@dataclass(frozen=True)
class Orders:
    """A method's correct images in each order of a stream."""

    method: str  # as in the tables
    dataset: str
    seed: int  # of the run: its views and prompt
    stream: Stream
    total: int  # images
    correct: list[int]  # in the order of the seed 0, 1, ...

    @property
    def accuracies(self) -> list[float]:
        """In %."""
        return [100 * correct / self.total for correct in self.correct]

    @property
    def n_orders(self) -> int:
        """How many orders there are."""
        return len(self.correct)

    @property
    def stream_name(self) -> str:
        """The stream's text."""
        return str(self.stream)

    def summary(self) -> dict[str, Any]:
        """The stream in words, and the numbers of the table in %; the standard deviation of one order is 0."""
        values = self.accuracies
        return {
            "stream": self.stream_name,
            "composed_by_labels": self.stream.composed_by_labels,
            "mean": statistics.fmean(values),
            "std": statistics.stdev(values) if len(values) > 1 else 0.0,
            "worst": min(values),
            "tail": expected_tail_accuracy(values),
            "best": max(values),
        }


class OnlineRun:
    """A finished run of an online method, opened to be tested in other orders.

    Args:
        record: Of the run.
        trainer: Of the run.
        entry: Its method with its prompt, started.
        views: Of a split's images.
        split: "val" or "test".
        folder: Where the counts of orders are kept.
    """

    def __init__(self, record: Record, trainer: ClipTrainer, entry: Entry, views: ViewBank, split: str, folder: Path):
        self.record, self.trainer, self.entry, self.views = record, trainer, entry, views
        self.split, self.folder = split, folder
        self.total = len(views.labels)
        self._labels = [item.label for item in trainer.tester.items(split)]
        self.method.n_images = len(self._labels)
        self._row = torch.full((len(self._labels),), -1)  # of each image among those that can be read
        self._row[views.index] = torch.arange(self.total)
        self._seen: list[Any] | None = None

    @property
    def method(self) -> Method:
        """The method."""
        return self.entry.method  # type: ignore[return-value]  # of a run of views

    def correct(self, stream: Stream, seeds: Iterable[int]) -> list[int]:
        """Correct images in each order; those that were counted before are read. Says if the run recorded others."""
        everything = name_of_test(self.trainer, self.split, [self.entry], code=self.trainer.tester.code_key)
        path = self.folder / f"{key_of([everything, str(stream)])}.json"
        counts = {int(seed): n for seed, n in ((read_dict(path) or {}).get("correct") or {}).items()}
        what = {"run": str(self.record.folder), "split": self.split, "stream": str(stream)}
        missing, saved = [seed for seed in seeds if seed not in counts], time.monotonic()
        try:
            for seed in tqdm(missing, desc=f"{self.entry.title or type(self.method).__name__} {stream}", unit="order"):
                counts[seed] = self._count(stream.order(self._labels, seed))
                if time.monotonic() - saved > SAVE_EVERY:
                    write_text(path, json.dumps(what | {"correct": counts}))
                    saved = time.monotonic()
        finally:
            if missing:
                write_text(path, json.dumps(what | {"correct": counts}))
        self._compare_with_record(stream, counts)
        return [counts[seed] for seed in seeds]

    def _compare_with_record(self, stream: Stream, counts: dict[int, int]) -> None:
        tester, test = self.trainer.tester, self.record.content["splits"].get(self.split, {})
        found, recorded = counts.get(tester.config.seed), test.get("correct")
        if stream == tester.stream and found is not None and found != recorded:
            print(
                f"{self.record.folder}: {found} of {self.total} images are correct in the run's own order, but its "
                f"results.json says {recorded}: it ran with other settings or versions, or on another device",
                file=sys.stderr,
            )

    @torch.no_grad()
    def _count(self, order: Sequence[int]) -> int:
        self.method.reset()
        rows = self._row[list(order)]
        rows = rows[rows >= 0]
        shares = type(self.method).see is not Method.see
        with float32_products(self.trainer.device):
            found = torch.cat(list(self._of_shared(rows) if shares else self._of_batches(rows)))
        return int((found == self.views.labels[rows]).sum())

    def _of_shared(self, rows: Tensor) -> Iterator[Tensor]:
        if self._seen is None:
            self._seen = [seen for batch in torch.arange(self.total).split(1) for seen in [self._see(batch)]]
        yield torch.stack([self.method.step(self._seen[row]).argmax() for row in rows.tolist()]).cpu()

    def _see(self, rows: Tensor) -> Any:
        features = self._prepare(rows)
        return self.method.see(features[0], self.method.classifier.text(features)[0])

    def _of_batches(self, rows: Tensor) -> Iterator[Tensor]:
        method, at_once = self.method, self.views.at_once
        for batch in rows.split(method.batch if method.in_batches else at_once):
            features = self._prepare(batch)
            yield method.predict(features if method.uses_views else features[:, :1]).argmax(dim=-1).cpu()

    def _prepare(self, rows: Tensor) -> Tensor:
        """Features of some images, (B, V, E); tells the method what is known of them."""
        batch = {"index": self.views.index[rows], "label": self.views.labels[rows]}
        self.method.known = self.trainer.tester.known(batch)
        return self.views.features[rows].to(self.trainer.device)


def open_online(record: Record, split: str, out: Path, opts: Sequence[str]) -> OnlineRun:
    """Opens a run of an online method, with the features of its views.

    Args:
        record: Of the run.
        split: "val" or "test".
        out: Folder of the command: features that the run has not kept go to <out>/features, counts to <out>/orders.
        opts: KEY VALUE pairs on top of the run's config.

    Raises:
        InputError: The run cannot be opened, or has no images in the split.
    """
    trainer = open_run(record, *opts)
    (entry,) = tested_entries(record, trainer)
    if entry.method is None:
        raise InputError(f"{record.folder} is a run of {record.trainer}, which sees no views: name another run")
    return OnlineRun(record, trainer, entry, view_bank(trainer, split, out / "features"), split, out / "orders")
