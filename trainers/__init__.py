"""Registered Dassl trainers, one method a file. Importing this package registers them all."""

import dassl
from yacs.config import CfgNode

from tlla.command_line import check_same_tree

check_same_tree(__file__, dassl.__file__)

from . import cocoop, compare, coop, sapt, testtime, tip_adapter, tlla, zsclip  # noqa: E402
from .harness import evaluation  # noqa: E402

METHODS = (evaluation, zsclip, testtime, compare, coop, cocoop, sapt, tlla, tip_adapter)


def add_configs(cfg: CfgNode) -> None:
    """Adds every method's own config node, with its defaults, to a Dassl config."""
    for method in METHODS:
        method.add_config(cfg)
