"""TRAINER.VIEWS.PROTOCOL: "authors" sets the views, the template and the settings that a method's authors had."""

import functools
from collections.abc import Collection
from operator import getitem
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from tlla.arguments import one_of
from tlla.errors import InputError
from tlla.methods import METHODS, settings
from tlla.protocols import AUTHORS, COMMON, CONFIGS, PROTOCOLS, Setup

from .yaml_files import load_yaml

KEY = "TRAINER.VIEWS.PROTOCOL"
CROP_SCALE = (0.08, 1.0)  # of all authors


def apply_protocol(cfg: CfgNode, given: Collection[str], folder: Path) -> None:
    """Sets what TRAINER.VIEWS.PROTOCOL authors means for the trainer and the dataset of a config.

    Args:
        cfg: The config, merged and not frozen yet.
        given: Keys that files, flags or pairs have set.
        folder: Of the checkout, with configs/trainers.

    Raises:
        InputError: The authors did not test on the dataset, or a key was set to another value.
    """
    one_of(KEY, cfg.TRAINER.VIEWS.PROTOCOL, (COMMON, AUTHORS))
    if cfg.TRAINER.VIEWS.PROTOCOL == COMMON:
        return
    method, dataset = cfg.TRAINER.NAME, cfg.DATASET.NAME
    if method not in PROTOCOLS:
        raise InputError(
            f"{KEY} authors: {method} has no authors' protocol, but {', '.join(PROTOCOLS)} have, each as a trainer of "
            "its own, and python -m sweeps table1 --protocol authors tests them all"
        )
    protocol = PROTOCOLS[method]
    if dataset not in protocol.setups:
        raise InputError(
            f"{KEY} authors: there is no protocol of {method}'s authors ({protocol.source}) for {dataset}, only for "
            f"{', '.join(protocol.setups)}: set it to common"
        )
    for key, value in _values(method, dataset, folder).items():
        node, name = _place(cfg, key)
        if key in given and node[name] != value:
            raise InputError(
                f"{key} is {node[name]!r}, but {KEY} authors has {value!r} for {method} on {dataset} "
                f"({protocol.source}): leave it out, or set {KEY} to common"
            )
        node[name] = value


def describe_protocol(cfg: CfgNode) -> dict[str, Any]:
    """For the record: name; of authors also source, lacks, and set, the keys that were set with their values."""
    if cfg.TRAINER.VIEWS.PROTOCOL == COMMON:
        return {"name": COMMON}
    method, dataset = cfg.TRAINER.NAME, cfg.DATASET.NAME
    protocol = PROTOCOLS[method]
    own = (*protocol.setups[dataset].settings, *protocol.tuned)
    keys = (*_views(protocol.setups[dataset]), *(f"TRAINER.{method.upper()}.{key}" for key in own))
    places = {key: _place(cfg, key) for key in keys}
    values = {key: node[name] for key, (node, name) in places.items()}
    return {"name": AUTHORS, "source": protocol.source, "lacks": protocol.lacks, "set": values}


def _values(method: str, dataset: str, folder: Path) -> dict[str, Any]:
    """What the authors' protocol sets, by key."""
    protocol = PROTOCOLS[method]
    setup, values = protocol.setups[dataset], {}
    if protocol.tuned:
        file = folder / f"configs/trainers/{method}/{CONFIGS[dataset]}.yaml"
        tuned = load_yaml(file)["TRAINER"][method.upper()]
        values = {key: tuned.get(key, settings(METHODS[method])[key][1]) for key in protocol.tuned}
    return _views(setup) | {f"TRAINER.{method.upper()}.{key}": v for key, v in (values | dict(setup.settings)).items()}


def _views(setup: Setup) -> dict[str, Any]:
    """The views and the template, which for the dataset's own must not be replaced."""
    found = {
        "TRAINER.VIEWS.N_VIEWS": setup.n_views,
        "TRAINER.VIEWS.AUGMIX": setup.augmix,
        "TRAINER.VIEWS.CROP_SCALE": CROP_SCALE,
        "TRAINER.PROMPT.TEMPLATE": setup.template,
    }
    return found if setup.template else {**found, "DATASET.TEMPLATE": ""}


def _place(cfg: CfgNode, key: str) -> tuple[CfgNode, str]:
    """The node of a key, and its name there."""
    *nodes, name = key.split(".")
    return functools.reduce(getitem, nodes, cfg), name
