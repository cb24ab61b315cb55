"""SUN397: scenes (Xiao et al., CVPR 2010)."""

import random

from .base import SplitDataset, registered
from .items import Item
from .listing import read_lines
from .splits import Parts, split_trainval


@registered
class SUN397(SplitDataset):
    """397 scenes, the first of the ten official partitions. "/a/apse/indoor" is named "indoor apse"."""

    dataset_dir = "sun397"
    image_folder = "SUN397"

    def make_split(self, rng: random.Random) -> Parts:
        """Splits the authors' first training list into train and val; their first test list is the test set."""
        classes = read_lines(f"{self.dataset_dir}/ClassName.txt", self.advice())
        labels = {path.lstrip("/"): label for label, path in enumerate(classes)}
        train, test = (self._read_list(f"{name}_01.txt", labels) for name in ("Training", "Testing"))
        return split_trainval(train, test, rng)

    def _read_list(self, name: str, labels: dict[str, int]) -> list[Item]:
        items = []
        for line in read_lines(f"{self.dataset_dir}/{name}", self.advice()):
            path = line.lstrip("/")
            folder = path.rpartition("/")[0]
            words = folder.split("/")[1:]  # without the letter
            items.append(Item(path, labels[folder], " ".join(reversed(words))))
        return items
