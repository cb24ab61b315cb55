"""Registered Dassl datasets. Importing this package registers them all."""

from yacs.config import CfgNode

from . import (
    caltech101,
    dtd,
    emoji,
    emoji_scenes,
    eurosat,
    fgvc_aircraft,
    food101,
    image_folder,
    imagenet,
    imagenet_variants,
    oxford_flowers,
    oxford_pets,
    stanford_cars,
    sun397,
    ucf101,
)


def add_configs(cfg: CfgNode) -> None:
    """Adds the keys that the datasets read."""
    cfg.DATASET.SUBSAMPLE_CLASSES = "all"  # all, base or new
    cfg.DATASET.SPLIT_FILE = ""  # another split file than CoOp's; for ImageFolder: JSON or CSV
    cfg.DATASET.ALLOW_NEW_SPLIT = False  # makes split_new_<dataset>.json where CoOp's split file is missing
    cfg.DATASET.CLASSNAMES = "coop"  # ImageNet and its variants: coop (classnames.txt) or tpt (comes with the project)
    cfg.DATASET.TEMPLATE = ""  # prompt of zero-shot CLIP, e.g. "a photo of a {}."; "": the dataset's own


__all__ = [
    "add_configs",
    "caltech101",
    "dtd",
    "emoji",
    "emoji_scenes",
    "eurosat",
    "fgvc_aircraft",
    "food101",
    "image_folder",
    "imagenet",
    "imagenet_variants",
    "oxford_flowers",
    "oxford_pets",
    "stanford_cars",
    "sun397",
    "ucf101",
]
