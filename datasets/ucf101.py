"""UCF101: human actions, the middle frame of each video (Soomro et al., 2012)."""

import random
import re

from .base import SplitDataset, registered
from .items import Item
from .listing import read_lines
from .splits import Parts, split_trainval


@registered
class UCF101(SplitDataset):
    """101 actions, the first official split. "ApplyEyeMakeup" is named "Apply_Eye_Makeup"."""

    dataset_dir = "ucf101"
    image_folder = "UCF-101-midframes"
    template = "a photo of a person doing {}."

    def make_split(self, rng: random.Random) -> Parts:
        """Splits the authors' first training list into train and val; their first test list is the test set."""
        classes = self._lines("classInd.txt")
        labels = {name: int(number) - 1 for number, name in map(str.split, classes)}
        train, test = (self._read_list(f"{name}list01.txt", labels) for name in ("train", "test"))
        return split_trainval(train, test, rng)

    def _lines(self, name: str) -> list[str]:
        return read_lines(f"{self.dataset_dir}/ucfTrainTestlist/{name}", self.advice())

    def _read_list(self, name: str, labels: dict[str, int]) -> list[Item]:
        items = []
        for line in self._lines(name):
            action, video = line.split(" ")[0].split("/")
            words = "_".join(re.findall("[A-Z][^A-Z]*", action))
            items.append(Item(f"{words}/{video.replace('.avi', '.jpg')}", labels[action], words))
        return items
