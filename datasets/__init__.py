"""Registered Dassl datasets. Importing this package registers them all.

A file in this folder is found by itself: nothing else lists it.
"""

import importlib
import pkgutil
import sys

from tlla.command_line import check_same_tree, start

from .flags import parse_args

if sys.argv[0] == "-m" and f"-m {__name__} " in f"{' '.join(sys.orig_argv)} ":  # python -m datasets imports this first
    start(__file__)
    parse_args()  # before all else, as --help and a wrong flag need no torch

import dassl  # noqa: E402
from yacs.config import CfgNode  # noqa: E402

check_same_tree(__file__, dassl.__file__)

for module in pkgutil.iter_modules(__path__):
    if module.name != "__main__":
        importlib.import_module(f"{__name__}.{module.name}")


def add_configs(cfg: CfgNode) -> None:
    """Adds the keys that the datasets read."""
    cfg.DATASET.SUBSAMPLE_CLASSES = "all"  # all, base or new
    cfg.DATASET.SPLIT_FILE = ""  # another split file than CoOp's; for ImageFolder: JSON or CSV
    cfg.DATASET.ALLOW_NEW_SPLIT = False  # makes split_new_<dataset>.json where CoOp's split file is missing
    cfg.DATASET.CLASSNAMES = "coop"  # ImageNet and its variants: coop (classnames.txt) or tpt (comes with the project)
    cfg.DATASET.CORRUPTION = ""  # one of ImageNet-C's fifteen, drawn on the test images: see docs/corruptions.md
    cfg.DATASET.SEVERITY = 0  # of the corruption: 1 to 5
    cfg.DATASET.TITLE = ""  # name of the data in records and tables; "": the dataset's, of ImageFolder the folder's
    cfg.DATASET.TEMPLATE = ""  # prompt of zero-shot CLIP, e.g. "a photo of a {}."; "": the dataset's own
