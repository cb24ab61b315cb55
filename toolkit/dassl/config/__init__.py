"""The configuration tree: default values under the names that YAML files and command lines use."""

from yacs.config import CfgNode

from .defaults import DEFAULTS, TRAINER_DEFAULTS

__all__ = ["clean_cfg", "get_cfg_default"]


def get_cfg_default() -> CfgNode:
    """Returns a new configuration tree with the default values; changing it changes no other tree."""
    return CfgNode({**DEFAULTS, "TRAINER": {"NAME": "", **TRAINER_DEFAULTS}})


def clean_cfg(cfg: CfgNode, trainer: str) -> None:
    """Removes from ``cfg`` the settings of all trainers but ``trainer``, so that a printed tree stays short.

    Args:
        cfg: The tree, changed in place.
        trainer: A trainer's registered name; its node is the name in upper case.
    """
    for key in list(cfg.TRAINER):
        if key not in ("NAME", trainer.upper()):
            cfg.TRAINER.pop(key)
