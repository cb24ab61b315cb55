"""Registered Dassl trainers, one method a file. Importing this package registers them all."""

from yacs.config import CfgNode

from . import compare, coop, sapt, testtime, tlla, zsclip

METHODS = (zsclip, testtime, compare, coop, sapt, tlla)


def add_configs(cfg: CfgNode) -> None:
    """Adds every method's own config node, with its defaults, to a Dassl config."""
    for method in METHODS:
        method.add_config(cfg)
