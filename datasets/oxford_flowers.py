"""Oxford Flowers 102 (Nilsback and Zisserman, 2008)."""

import random

from tlla.errors import InputError

from .base import SplitDataset, registered
from .items import Item
from .listing import read_json, read_mat
from .splits import Parts, split_items


@registered
class OxfordFlowers(SplitDataset):
    """102 flowers; names from cat_to_name.json. CoOp splits all images anew."""

    dataset_dir = "oxford_flowers"
    image_folder = "jpg"
    template = "a photo of a {}, a type of flower."

    def make_split(self, rng: random.Random) -> Parts:
        """Splits all images anew; labels are those of imagelabels.mat."""
        labels = read_mat(f"{self.dataset_dir}/imagelabels.mat", self.advice())["labels"][0]
        names = read_json(f"{self.dataset_dir}/cat_to_name.json", self.advice())
        if lost := {str(label) for label in labels} - set(names):
            raise InputError(f"{self.dataset_dir}/cat_to_name.json lacks the classes {sorted(lost)}; {self.advice()}")
        items = [
            Item(f"image_{i:05d}.jpg", int(label) - 1, names[str(label)]) for i, label in enumerate(labels, start=1)
        ]
        return split_items(items, rng)
