"""A finished run, opened again: its record, and its trainer with the prompt that it tested."""

import contextlib
import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dassl.config import get_cfg_default
from dassl.engine import TRAINER_REGISTRY, build_trainer
from dassl.utils import set_random_seed
from torch import Tensor
from yacs.config import CfgNode

import datasets
import trainers
from tlla.command_line import take_pairs, take_texts
from tlla.errors import InputError
from tlla.fingerprint import flat_config, tensor_sha256
from tlla.precision import keep_bits
from tlla.records.record import Record
from trainers.base import ClipTrainer
from trainers.harness.entries import Entry


def quietly() -> contextlib.AbstractContextManager[io.StringIO]:
    """Without what the toolkit and the trainers print of the data, the model and the prompts."""
    return contextlib.redirect_stdout(io.StringIO())


def open_run(record: Record, *opts: str) -> ClipTrainer:
    """The trainer of a finished run, with the prompt that was tested. Nothing is written to the run's folder.

    Args:
        record: The run's.
        opts: KEY VALUE pairs on top of the run's config, such as "DATASET.ROOT", "/data".
    """
    cfg = _config(record, opts)
    with quietly():
        if cfg.SEED >= 0:
            set_random_seed(cfg.SEED)
        keep_bits()
        trainer = build_trainer(cfg)
        trainer.set_model_mode("eval")
        if loaded := record.content.get("loaded_from"):
            trainer.load_model(str(Path(loaded["path"]).parents[1]), loaded["epoch"])
        elif getattr(trainer, "learned", True):
            trainer.load_model(str(record.folder))
    return trainer


def tested_entries(record: Record, trainer: ClipTrainer) -> list[Entry]:
    """What a run has tested: one method, all entries of a Compare, or the one entry whose folder was opened.

    Raises:
        InputError: The folder does not have the name of its entry.
    """
    tester = trainer.tester
    with quietly():
        if "prompt" not in record.content:
            return list(tester.entries())
        prompts = tester.classifiers()
    places = {
        f"{prompt}/{method.title}": (prompt, classifier, method)
        for prompt, classifier in prompts.items()
        for method in tester.methods.values()
    }
    own = f"{record.content['prompt']}/{record.folder.resolve().name}" if len(places) > 1 else next(iter(places))
    if own not in places:
        raise InputError(
            f"{record.folder} is none of the entries of its Compare ({', '.join(places)}): give the folder its name "
            "again"
        )
    return [tester.entry(*places[own])]


def class_of_run(record: Record) -> type[ClipTrainer]:
    """The class of a run's trainer; InputError if none of that name is registered here."""
    if record.trainer not in TRAINER_REGISTRY.registered_names():
        raise InputError(f"{record.folder} is a run of {record.trainer}, which is no trainer here: name another run")
    return TRAINER_REGISTRY.get(record.trainer)


def check_all_views(record: Record) -> None:
    """Raises InputError if a run has not seen all views of each image."""
    if margin := (record.method["views"] or {}).get("MARGIN"):
        raise InputError(
            f"{record.folder} was tested with MARGIN {margin}, so not on all views: test it without a margin"
        )


def check_tested_prompt(record: Record, prompt: Tensor) -> None:
    """Raises InputError if a run's newest prompt is not the one that its results are of."""
    tested = {test.get("prompt_sha256") for test in record.content["splits"].values()}
    if tested and tensor_sha256(prompt) not in tested:
        raise InputError(
            f"the newest prompt of {record.folder} is not the one that it has tested: test the epoch that you mean "
            "with --trainer TLLA --eval-only --model-dir --load-epoch, and name that run"
        )


def _known(content: Mapping[str, Any], cfg: Mapping[str, Any]) -> dict[str, Any]:
    """A record's config without the keys that only another version has."""
    return {
        key: _known(value, cfg[key]) if isinstance(value, dict) and isinstance(cfg[key], dict) else value
        for key, value in content.items()
        if key in cfg
    }


def _config(record: Record, opts: tuple[str, ...]) -> CfgNode:
    cfg = get_cfg_default()
    trainers.add_configs(cfg)
    datasets.add_configs(cfg)
    here = flat_config(cfg)
    if unknown := [key for key, value in flat_config(record.config).items() if value and key not in here]:
        print(f"Note: {record.folder} is of a version that had {', '.join(unknown)}, which is ignored", file=sys.stderr)
    try:
        cfg.merge_from_other_cfg(CfgNode(take_texts(cfg, _known(record.config, cfg))))
        if cfg.SEED < 0:  # an older record: what was drawn is not in its config, and the views had the seed 0
            cfg.SEED = record.content["seed"]
            for node in (cfg.TRAINER.TLLA, cfg.TRAINER.VIEWS):
                node.SEED = max(node.SEED, 0)
        cfg.merge_from_list(take_pairs(cfg, [*opts, "OUTPUT_DIR", str(record.folder)]))
    except (KeyError, ValueError, AssertionError) as error:
        raise InputError(f"the config of {record.folder} cannot be used: {error.args[0]}") from error
    cfg.freeze()
    return cfg
