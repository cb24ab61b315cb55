"""Stanford Cars (Krause et al., 2013)."""

import random

from .base import SplitDataset, registered
from .items import Item
from .listing import read_mat
from .splits import Parts, split_trainval


@registered
class StanfordCars(SplitDataset):
    """196 makes and models, the year first: "2012 Audi TTS Coupe". The official test set."""

    dataset_dir = "stanford_cars"

    def make_split(self, rng: random.Random) -> Parts:
        """Splits the authors' training images into train and val; their test images are the test set."""
        test = self._read("cars_test", "cars_test_annos_withlabels.mat")
        return split_trainval(self._read("cars_train", "devkit/cars_train_annos.mat"), test, rng)

    def _read(self, folder: str, annotations: str) -> list[Item]:
        names = read_mat(f"{self.dataset_dir}/devkit/cars_meta.mat", self.advice())["class_names"][0]
        items = []
        for row in read_mat(f"{self.dataset_dir}/{annotations}", self.advice())["annotations"][0]:
            label = int(row["class"][0, 0]) - 1
            model, _, year = str(names[label][0]).rpartition(" ")
            items.append(Item(f"{folder}/{row['fname'][0]}", label, f"{year} {model}"))
        return items
