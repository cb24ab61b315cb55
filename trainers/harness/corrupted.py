"""Test images that are corrupted when they are read: DATASET.CORRUPTION and DATASET.SEVERITY."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image
from yacs.config import CfgNode

import tlla.corruptions
from tlla.corruptions import Corruption
from tlla.corruptions.fifteen import OURS
from tlla.errors import InputError
from tlla.fingerprint import source_sha256

KEYS = ("DATASET.CORRUPTION", "DATASET.SEVERITY")
SOURCE = Path(tlla.corruptions.__file__).parent


class CorruptedItems(list):
    """The test split, as the dataset lists it; `read_item` corrupts what it reads of it.

    Args:
        items: The split.
        corruption: Of every image.
        seed: Of the run.
    """

    def __init__(self, items: Iterable[Any], corruption: Corruption, seed: int):
        super().__init__(items)
        self.corruption, self.seed = corruption, seed

    def corrupt(self, image: Image.Image, index: int) -> Image.Image:
        """What becomes of the image at a place of the split."""
        return self.corruption.draw(image, self.seed, index)

    def key(self) -> list[Any]:
        """All that the corruption of an image depends on, beside the image and its place."""
        return [self.corruption.name, self.corruption.severity, self.seed, source_sha256(SOURCE)]


def configured_corruption(cfg: CfgNode) -> Corruption | None:
    """The corruption that a config asks for, if any; InputError if there is no such one."""
    name, severity = cfg.DATASET.get("CORRUPTION", ""), cfg.DATASET.get("SEVERITY", 0)
    if severity and not name:
        raise InputError(f"DATASET.SEVERITY is {severity}, but there is no DATASET.CORRUPTION: set both, or none")
    if name and cfg.TEST.SPLIT == "val":
        raise InputError(f"DATASET.CORRUPTION {name} is of test images, but TEST.SPLIT is val: leave one of them out")
    return Corruption(name, severity) if name else None


def describe_corruption(cfg: CfgNode, dataset: Any) -> dict[str, Any]:
    """For the record: name, severity, and the source of the pictures: files, the definition, ours; {} without one."""
    corruption = configured_corruption(cfg)
    if corruption is None:
        return {}
    drawn = "ours" if corruption.name in OURS else "definition"
    return dataclasses.asdict(corruption) | {"source": "files" if _in_files(dataset) else drawn}


def _in_files(dataset: Any) -> bool:
    return getattr(dataset, "corrupted_files", False)


def corrupt_test_images(dm: Any, cfg: CfgNode) -> None:
    """Replaces a DataManager's test split, unless the dataset's files are corrupted already; says so."""
    corruption, dataset = configured_corruption(cfg), dm.dataset
    if corruption is None or _in_files(dataset):
        return
    own = "_test" if hasattr(dataset, "_test") else "test"  # upstream Dassl's is a property
    setattr(dataset, own, CorruptedItems(dataset.test, corruption, max(cfg.SEED, 0)))
    if dm.test_loader is not None:
        dm.test_loader.dataset.data_source = dataset.test
    print(f"Test images are corrupted when they are read: {corruption.name}, severity {corruption.severity}")
