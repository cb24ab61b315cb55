"""Food-101 (Bossard et al., ECCV 2014)."""

import random

from .base import SplitDataset, registered
from .splits import Parts, list_classes, split_items


@registered
class Food101(SplitDataset):
    """101 dishes. CoOp splits all images anew and does not use the official test list."""

    dataset_dir = "food-101"
    image_folder = "images"
    template = "a photo of {}, a type of food."

    def make_split(self, rng: random.Random) -> Parts:
        """Splits all images anew."""
        return split_items(list_classes(self.image_dir, self.advice()), rng)
