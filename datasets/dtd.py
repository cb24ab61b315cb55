"""Describable Textures (Cimpoi et al., CVPR 2014)."""

import random

from .base import SplitDataset, registered
from .splits import Parts, list_classes, split_items


@registered
class DescribableTextures(SplitDataset):
    """47 textures. CoOp splits all images anew and does not use the ten official splits."""

    dataset_dir = "dtd"
    image_folder = "images"
    template = "{} texture."

    def make_split(self, rng: random.Random) -> Parts:
        """Splits all images anew."""
        return split_items(list_classes(self.image_dir, self.advice()), rng)
