"""The record of a run: ``results.json`` and per-image predictions, beside log.txt, written atomically."""

import copy
import csv
import io
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from yacs.config import CfgNode

from tlla.files import write_text
from tlla.fingerprint import names_sha256, split_sha256, versions
from tlla.metrics import summarize
from tlla.prompts.checkpoint import read_checkpoint
from tlla.records.origins import trained_by

COLUMNS = ("index", "label", "prediction", "confidence", "rank", "nll", "brier")


class Predictions:
    """What is kept of each image: no (N, K) table.

    Args:
        batches: Columns of COLUMNS and of the method's details, each (B,).

    Attributes:
        columns: All images' columns, (N,), sorted by index.
    """

    def __init__(self, batches: Sequence[Mapping[str, Tensor]]):
        joined = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
        order = joined["index"].argsort()
        self.columns = {name: values[order] for name, values in joined.items()}

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
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["class", *classnames])
        writer.writerows([name, *row] for name, row in zip(classnames, counts, strict=True))
        return text.getvalue()

    def summary(self) -> dict[str, float]:
        """Correct, total, accuracy in %, the metrics of `tlla.metrics`, and the mean of each detail."""
        columns = self.columns
        correct, total = int((columns["rank"] == 0).sum()), len(columns["index"])
        details = {name: values.double().mean().item() for name, values in columns.items() if name not in COLUMNS}
        return {"correct": correct, "total": total, "accuracy": 100 * correct / total, **summarize(columns), **details}

    def to_csv(self) -> str:
        """One row an image, sorted by index, with a header."""
        columns = self.columns
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        cells = [[f"{x:.6f}" for x in c.tolist()] if c.is_floating_point() else c.tolist() for c in columns.values()]
        writer.writerows(zip(*cells, strict=True))
        return text.getvalue()


class RunRecord:
    """Collects what a reader needs to trust a number, and writes it after every tested split."""

    def __init__(self, cfg: CfgNode, dataset: Any):
        self.folder = Path(cfg.OUTPUT_DIR)
        self.classnames = list(dataset.classnames)
        self.per_class, self.confusion = cfg.TEST.PER_CLASS_RESULT, cfg.TEST.COMPUTE_CMAT
        self.content: dict[str, Any] = {
            "trainer": cfg.TRAINER.NAME,
            "dataset": cfg.DATASET.NAME,
            "data": describe_data(cfg, dataset),
            "backbone": cfg.MODEL.BACKBONE.NAME,
            "seed": cfg.SEED,
            "splits": {},
            "split_sha256": {
                name: split_sha256(items, getattr(dataset, "dataset_dir", ""))
                for name in ("train_x", "val", "test")
                if (items := getattr(dataset, name))
            },
            "split_file_sha256": getattr(dataset, "split_file_sha256", None),
            "classnames_sha256": getattr(dataset, "classnames_sha256", None),
            "git_commit": git_commit(),
            "versions": versions(),
            "config": plain(cfg),
        }

    def part(self, folder: Path, **entries: Any) -> "RunRecord":
        """A record of its own for one of several methods or prompts that share a run."""
        record = copy.copy(self)
        record.folder = folder
        record.content = {**self.content, **entries, "splits": {}}
        return record

    def update(self, **entries: Any) -> None:
        """Adds top-level entries, e.g. the checkpoint that was loaded or the training time."""
        self.content.update(entries)

    def add_split(
        self, split: str, predictions: Predictions, results: Mapping[str, float], seconds: float, **more: Any
    ) -> None:
        """Adds a tested split and writes ``results.json`` and ``predictions_<split>.csv``.

        With TEST.COMPUTE_CMAT also ``cmat_<split>.csv``, see `Predictions.confusion_csv`.

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
        write_text(self.folder / f"predictions_{split}.csv", predictions.to_csv())
        self.write()

    def write(self) -> None:
        """Writes ``results.json``."""
        write_text(self.folder / "results.json", json.dumps(self.content, indent=2) + "\n")


def describe_data(cfg: CfgNode, dataset: Any) -> dict[str, Any]:
    """What the tables call the data, whether one dataset class stands for many of them, and the sha256 of its classes.

    The name is DATASET.TITLE, else the dataset's own `title` (of a folder of images, the folder's name), else
    DATASET.NAME.
    """
    title = cfg.DATASET.get("TITLE", "") or getattr(dataset, "title", "")
    return {
        "name": title or cfg.DATASET.NAME,
        "own": bool(title),
        "classes_sha256": names_sha256(dataset.classnames),
    }


def describe_source(path: Path, epoch: int | None) -> dict[str, Any]:
    """What the record says of a checkpoint that was loaded: the file, its epoch, and who has trained it on what.

    The checkpoint itself says so; of older ones and of CoOp's own the folder does.
    """
    said = (read_checkpoint(path).get("trainer") or {}).get("training")
    known = isinstance(said, dict) and all(isinstance(said.get(key), str) for key in ("name", "dataset"))
    by = {**said, "said_by": "the checkpoint"} if known else trained_by(path.parents[1])
    return {"path": str(path), "epoch": epoch, "trained_by": by}


def git_commit() -> str | None:
    """Commit of the checkout that holds this file, with "+changes" if it was edited; None for an installed copy."""
    here = Path(__file__).resolve()

    def git(*words: str) -> str:
        command = ("git", "-C", str(here.parent), *words)
        return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)  # an environment inside somebody else's checkout does not count
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def plain(node: Any) -> Any:
    """A config tree as dicts, lists and plain values, for JSON."""
    if isinstance(node, dict):
        return {k: plain(v) for k, v in node.items()}
    return [plain(v) for v in node] if isinstance(node, (list, tuple)) else node
