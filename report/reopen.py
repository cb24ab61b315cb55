"""A finished run, opened again: its record, and its trainer with the prompt that it tested."""

import contextlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dassl.config import get_cfg_default
from dassl.engine import build_trainer
from dassl.utils import set_random_seed
from torch import Tensor
from yacs.config import CfgNode

import datasets
import trainers
from tlla.command_line import take_pairs, take_texts
from tlla.errors import InputError
from tlla.fingerprint import tensor_sha256
from tlla.records.record import wrong_entry
from trainers.base import ClipTrainer


def read_record(folder: str | Path) -> dict[str, Any]:
    """The results.json of a run; InputError if there is none or it is not one."""
    path = Path(folder) / "results.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{folder} has no results.json ({error.strerror}): name the folder of a complete run"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}): was it edited?") from error
    if wrong := wrong_entry(record):
        raise InputError(f"{path} is no record of a run: {wrong}")
    return record


def open_run(folder: str | Path, *opts: str) -> ClipTrainer:
    """The trainer of a finished run, with the prompt that was tested. Nothing is written to the run's folder.

    Args:
        folder: The run's output folder.
        opts: KEY VALUE pairs on top of the run's config, such as "DATASET.ROOT", "/data".
    """
    record = read_record(folder)
    cfg = _config(record, folder, opts)
    with contextlib.redirect_stdout(io.StringIO()):  # the toolkit's account of the data and the model
        if cfg.SEED >= 0:
            set_random_seed(cfg.SEED)
        trainer = build_trainer(cfg)
        trainer.set_model_mode("eval")
        loaded = record.get("loaded_from") or {}
        path = Path(loaded["path"]) if "path" in loaded else None
        if path is not None:
            trainer.load_model(str(path.parent.parent), loaded["epoch"])
        elif getattr(trainer, "trains", True):
            trainer.load_model(str(folder))
    return trainer


def check_prompt(folder: Path, record: Mapping[str, Any], prompt: Tensor) -> None:
    """Raises InputError if a run's newest prompt is not the one that its results are of."""
    tested = {test.get("prompt_sha256") for test in record["splits"].values()}
    if tested and tensor_sha256(prompt) not in tested:
        raise InputError(
            f"the newest prompt of {folder} is not the one that it has tested: test the epoch that you mean with "
            "--trainer TLLA --eval-only --model-dir --load-epoch, and name that run"
        )


def _config(record: dict[str, Any], folder: str | Path, opts: tuple[str, ...]) -> CfgNode:
    cfg = get_cfg_default()
    trainers.add_configs(cfg)
    datasets.add_configs(cfg)
    try:
        cfg.merge_from_other_cfg(CfgNode(take_texts(cfg, record["config"])))
        if cfg.SEED < 0:  # an older record: what was drawn is not in its config, and the views had the seed 0
            cfg.SEED = record["seed"]
            for node in (cfg.TRAINER.TLLA, cfg.TRAINER.VIEWS):
                node.SEED = max(node.SEED, 0)
        cfg.merge_from_list(take_pairs(cfg, [*opts, "OUTPUT_DIR", str(folder)]))
    except (KeyError, ValueError, AssertionError) as error:
        raise InputError(f"the config of {folder} cannot be used: {error.args[0]}") from error
    cfg.freeze()
    return cfg
