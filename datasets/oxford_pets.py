"""Oxford-IIIT Pet: 37 breeds of cats and dogs (Parkhi et al., CVPR 2012)."""

import random

from .base import SplitDataset, registered
from .items import Item
from .listing import read_lines
from .splits import Parts, split_trainval


@registered
class OxfordPets(SplitDataset):
    """Breeds from the file names, in lower case; the official test set; 20 % of trainval for validation."""

    dataset_dir = "oxford_pets"
    image_folder = "images"
    template = "a photo of a {}, a type of pet."

    def make_split(self, rng: random.Random) -> Parts:
        """Splits the authors' trainval list into train and val; their test list is the test set."""
        return split_trainval(self._read_list("trainval.txt"), self._read_list("test.txt"), rng)

    def _read_list(self, name: str) -> list[Item]:
        items = []
        for line in read_lines(f"{self.dataset_dir}/annotations/{name}", self.advice()):
            image, label, *_ = line.split(" ")
            items.append(Item(f"{image}.jpg", int(label) - 1, image.rpartition("_")[0].lower()))
        return items
