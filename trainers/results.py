"""The record of a run: ``results.json`` and per-image predictions, beside log.txt, written atomically."""

import csv
import hashlib
import importlib.metadata
import io
import json
import os
import platform
import resource
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from yacs.config import CfgNode

from tlla import __version__
from tlla.checkpoint import tensor_sha256

PACKAGES = ("torch", "torchvision", "dassl", "clip-anytorch", "numpy", "pillow")


class Predictions:
    """Index, label, predicted class and its probability for each image, in the loader's order."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, int, float]] = []

    def add(self, index: Tensor, label: Tensor, probability: Tensor) -> None:
        """Adds a batch; `probability` is (B, K)."""
        confidence, predicted = probability.max(dim=1)
        self.rows += zip(index.tolist(), label.tolist(), predicted.tolist(), confidence.tolist(), strict=True)

    @property
    def correct(self) -> int:
        """Number of images whose predicted class is their label."""
        return sum(label == predicted for _, label, predicted, _ in self.rows)

    def to_csv(self) -> str:
        """``index,label,prediction,confidence``, one row an image, sorted by index."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("index", "label", "prediction", "confidence"))
        writer.writerows((i, label, pred, f"{conf:.6f}") for i, label, pred, conf in sorted(self.rows))
        return text.getvalue()


class RunRecord:
    """Collects what a reader needs to trust a number, and writes it after every tested split."""

    def __init__(self, cfg: CfgNode, dataset: Any):
        self.folder = Path(cfg.OUTPUT_DIR)
        self.content: dict[str, Any] = {
            "trainer": cfg.TRAINER.NAME,
            "dataset": cfg.DATASET.NAME,
            "backbone": cfg.MODEL.BACKBONE.NAME,
            "seed": cfg.SEED,
            "splits": {},
            "split_sha256": {
                name: items_sha256(items, getattr(dataset, "dataset_dir", ""))
                for name in ("train_x", "val", "test")
                if (items := getattr(dataset, name))
            },
            "split_file_sha256": getattr(dataset, "split_file_sha256", None),
            "classnames_sha256": getattr(dataset, "classnames_sha256", None),
            "git_commit": git_commit(),
            "versions": versions(),
            "config": plain(cfg),
        }

    def update(self, **entries: Any) -> None:
        """Adds top-level entries, e.g. the checkpoint that was loaded or the training time."""
        self.content.update(entries)

    def add_split(
        self, split: str, predictions: Predictions, results: Mapping[str, float], seconds: float, prompt: Tensor
    ) -> None:
        """Adds a tested split and writes ``results.json`` and ``predictions_<split>.csv``."""
        total = len(predictions.rows)
        self.content["splits"][split] = {
            "correct": predictions.correct,
            "total": total,
            "accuracy": 100.0 * predictions.correct / max(total, 1),
            **{k: float(v) for k, v in results.items() if k != "accuracy"},
            "seconds": round(seconds, 3),
            "images_per_second": round(total / seconds, 2),
            "peak_memory_mb": peak_memory_mb(),
            "prompt_sha256": tensor_sha256(prompt),
        }
        write_text(self.folder / f"predictions_{split}.csv", predictions.to_csv())
        write_text(self.folder / "results.json", json.dumps(self.content, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(text)
    os.replace(part, path)


def items_sha256(items: Iterable[Any], root: str) -> str:
    """sha256 over ``path<TAB>label`` lines of a list of Datum; paths are relative to the dataset's folder."""
    digest = hashlib.sha256()
    for item in items:
        path = Path(os.path.relpath(item.impath, root or None)).as_posix()
        digest.update(f"{path}\t{item.label}\n".encode("utf-8", "surrogateescape"))  # any file name is possible
    return digest.hexdigest()


def peak_memory_mb() -> float:
    """Peak memory in MB (10^6 bytes): of the GPU's allocator where there is one, else of the process."""
    if torch.cuda.is_available() and (allocated := torch.cuda.max_memory_allocated()):
        return round(allocated / 1e6, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, 1)


def versions() -> dict[str, str]:
    """Versions of Python, this project and the packages that can move a number; the device's name."""
    found = {"tlla": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    found["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return found


def git_commit() -> str | None:
    """Commit of the checkout that holds this file, with "+changes" if it was edited; None for an installed copy."""
    here = Path(__file__).resolve()

    def git(*words: str) -> str:
        command = ("git", "-C", str(here.parent), *words)
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

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
