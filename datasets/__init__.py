"""Registered Dassl datasets. Importing this package registers them all."""

from yacs.config import CfgNode

from . import emoji


def add_configs(cfg: CfgNode) -> None:
    """Adds the keys that CoOp-style datasets read."""
    cfg.DATASET.SUBSAMPLE_CLASSES = "all"  # all, base or new


__all__ = ["add_configs", "emoji"]
