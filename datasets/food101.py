"""Food-101 (Bossard et al., ECCV 2014)."""

from .base import SplitDataset, registered


@registered
class Food101(SplitDataset):
    """101 dishes. CoOp splits all images anew and does not use the official test list."""

    dataset_dir = "food-101"
    image_folder = "images"
    template = "a photo of {}, a type of food."
