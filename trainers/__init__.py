"""Registered Dassl trainers, one method a file. Importing this package registers them all.

A file in this folder is found by itself: nothing else lists it.
"""

import importlib
import pkgutil

import dassl
from yacs.config import CfgNode

from tlla.command_line import check_same_tree

check_same_tree(__file__, dassl.__file__)

from .harness import evaluation  # noqa: E402

_MODULES = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]


def add_configs(cfg: CfgNode) -> None:
    """Adds every method's own config node, with its defaults, to a Dassl config."""
    for module in (evaluation, *_MODULES):
        if hasattr(module, "add_config"):
            module.add_config(cfg)
