"""Caltech-101 without its background class (Fei-Fei et al., 2004)."""

import random

from .base import SplitDataset, registered
from .splits import Parts, list_classes, split_items

IGNORED = ("BACKGROUND_Google", "Faces_easy")
RENAMED = {"airplanes": "airplane", "Faces": "face", "Leopards": "leopard", "Motorbikes": "motorbike"}


@registered
class Caltech101(SplitDataset):
    """100 classes: of the two folders of faces, CoOp keeps the harder one."""

    dataset_dir = "caltech-101"
    image_folder = "101_ObjectCategories"

    def make_split(self, rng: random.Random) -> Parts:
        """Splits all images anew but those of IGNORED, under the names of RENAMED."""
        return split_items(list_classes(self.image_dir, self.advice(), IGNORED, RENAMED), rng)
