"""What a record says of a run: its config, data, versions, and where what is tested comes from."""

import functools
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from tlla.fingerprint import names_sha256, split_sha256, versions
from tlla.records.origins import trained_by
from tlla.records.writer import RunRecord

from .corrupted import describe_corruption


def start_record(cfg: CfgNode, dataset: Any) -> RunRecord:
    """The record of a run in OUTPUT_DIR, before anything is tested."""
    content = {
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
        "versions": versions(use_cuda=cfg.USE_CUDA),
        "config": plain(cfg),
    }
    test = cfg.TEST
    return RunRecord(Path(cfg.OUTPUT_DIR), content, dataset.classnames, test.PER_CLASS_RESULT, test.COMPUTE_CMAT)


def describe_data(cfg: CfgNode, dataset: Any) -> dict[str, Any]:
    """What the tables call the data, whether one dataset class stands for many of them, and the sha256 of its classes.

    Of corrupted test images also the corruption.

    The name is DATASET.TITLE, else the dataset's own `title` (of a folder of images, the folder's name), else
    DATASET.NAME.
    """
    title = cfg.DATASET.get("TITLE", "") or getattr(dataset, "title", "")
    corruption = describe_corruption(cfg, dataset)
    return {
        "name": title or cfg.DATASET.NAME,
        "own": bool(title),
        "classes_sha256": names_sha256(dataset.classnames),
        **({"corruption": corruption} if corruption else {}),
    }


def describe_source(path: Path, epoch: int | None, said: Mapping[str, str]) -> dict[str, Any]:
    """What the record says of a checkpoint that was loaded: the file, its epoch, and who has trained it on what.

    The checkpoint itself says so in `said`; of older ones and of CoOp's own the folder does.
    """
    by = {**said, "said_by": "the checkpoint"} if said else trained_by(path.parents[1])
    return {"path": str(path), "epoch": epoch, "trained_by": by}


@functools.cache
def git_commit() -> str | None:
    """Commit of the checkout that holds this file, with "+changes" if it was edited; None for an installed copy.

    As of the first call.
    """
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
