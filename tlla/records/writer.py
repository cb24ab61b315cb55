"""Writes the record of a run: results.json and per-image predictions, beside log.txt."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tlla.files import to_csv, write_text
from tlla.metrics import summarize

from .store import predictions_file, write_results

COLUMNS = ("index", "label", "prediction", "confidence", "rank", "nll", "brier")


class ImageColumns:
    """What is kept of each image: no (N, K) table.

    Args:
        batches: Columns of COLUMNS and of the method's details, each (B,).
        gaps: The sum of `tlla.metrics.classwise_gaps` over all images, (n_bins + 1, K), int64.

    Attributes:
        columns: All images' columns, (N,), sorted by index.
    """

    def __init__(self, batches: Sequence[Mapping[str, Tensor]], gaps: Tensor | None = None):
        joined = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
        order = joined["index"].argsort()
        self.columns = {name: values[order] for name, values in joined.items()}
        self.gaps = gaps

    def per_class(self, classnames: Sequence[str]) -> list[dict[str, Any]]:
        """Name, number of images and accuracy in % of each class; the accuracy of no images is None."""
        rows = []
        for label, name in enumerate(classnames):
            hits = (self.columns["rank"] == 0)[self.columns["label"] == label]
            accuracy = 100 * hits.double().mean().item() if len(hits) else None
            rows.append({"class": name, "total": len(hits), "accuracy": accuracy})
        return rows

    def confusion_csv(self, classnames: Sequence[str]) -> str:
        """Images by class (rows) and predicted class (columns), K of each, under the names of the classes."""
        size = len(classnames)
        cells = self.columns["label"] * size + self.columns["prediction"]
        counts = cells.bincount(minlength=size * size).view(size, size).tolist()
        return to_csv([["class", *classnames], *([name, *row] for name, row in zip(classnames, counts, strict=True))])

    def summary(self) -> dict[str, float]:
        """Correct, total, accuracy in %, the metrics of `tlla.metrics`, and the mean of each detail."""
        columns = self.columns
        correct, total = int((columns["rank"] == 0).sum()), len(columns["index"])
        details = {name: values.double().mean().item() for name, values in columns.items() if name not in COLUMNS}
        metrics = summarize(columns, self.gaps)
        return {"correct": correct, "total": total, "accuracy": 100 * correct / total, **metrics, **details}

    def rows_csv(self) -> str:
        """One row an image, sorted by index, with a header."""
        columns = self.columns
        cells = [[f"{x:.6f}" for x in c.tolist()] if c.is_floating_point() else c.tolist() for c in columns.values()]
        return to_csv([columns, *zip(*cells, strict=True)])


class RunRecord:
    """Collects what a reader needs to trust a number, and writes it after every tested split.

    Args:
        folder: Of the run.
        content: Of results.json, but for "splits".
        classnames: Of the dataset.
        per_class: Whether the accuracy of each class is recorded.
        confusion: Whether cmat_<split>.csv is written, see `ImageColumns.confusion_csv`.
    """

    def __init__(
        self,
        folder: Path,
        content: Mapping[str, Any],
        classnames: Sequence[str],
        per_class: bool = False,
        confusion: bool = False,
    ):
        self.folder = folder
        self.classnames = list(classnames)
        self.per_class, self.confusion = per_class, confusion
        self.content: dict[str, Any] = dict(content)

    def entry(self, folder: Path, **entries: Any) -> "RunRecord":
        """A record of its own for one of several methods or prompts that share a run."""
        record = copy.copy(self)
        record.folder = folder
        record.content = {**self.content, **entries, "splits": {}}
        return record

    def update(self, **entries: Any) -> None:
        """Adds top-level entries, e.g. the checkpoint that was loaded or the training time."""
        self.content.update(entries)

    def add_split(
        self, split: str, predictions: ImageColumns, results: Mapping[str, float], seconds: float, **more: Any
    ) -> None:
        """Adds a tested split and writes ``results.json`` and ``predictions_<split>.csv``.

        Args:
            split: "val" or "test".
            predictions: Of all images.
            results: What the evaluator returned.
            seconds: Time of the test.
            more: Further entries.
        """
        summary = predictions.summary()
        self.content["splits"][split] = {
            **summary,
            **{k: float(v) for k, v in results.items() if k != "accuracy"},
            "seconds": round(seconds, 3),
            "images_per_second": round(summary["total"] / seconds, 2),
            **more,
        }
        if self.per_class:
            self.content["splits"][split]["per_class"] = predictions.per_class(self.classnames)
        if self.confusion:
            write_text(self.folder / f"cmat_{split}.csv", predictions.confusion_csv(self.classnames))
        write_text(predictions_file(self.folder, split), predictions.rows_csv())
        self.write()

    def write(self) -> None:
        """Writes ``results.json``."""
        write_results(self.folder, self.content)
