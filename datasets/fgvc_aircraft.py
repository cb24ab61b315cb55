"""FGVC-Aircraft: 100 variants of aircraft (Maji et al., 2013)."""

from yacs.config import CfgNode

from tlla.errors import InputError

from .base import ZooDataset, registered
from .items import Item
from .listing import read_lines, sha256


@registered
class FGVCAircraft(ZooDataset):
    """The official split by variant; variants.txt gives the order of the classes."""

    dataset_dir = "fgvc_aircraft"
    image_folder = "images"
    template = "a photo of a {}, a type of aircraft."

    def prepare(self, options: CfgNode) -> None:
        """Reads the variants; the split is the three official lists."""
        variants = read_lines(f"{self.dataset_dir}/variants.txt", self.advice())
        self._names = dict(enumerate(variants))
        self._labels = {name: label for label, name in enumerate(variants)}
        self._parts = {part: self._read_list(f"images_variant_{part}.txt") for part in ("train", "val", "test")}
        files = ("variants.txt", *(f"images_variant_{part}.txt" for part in self._parts))
        self.split_file_sha256 = self.fingerprint = sha256(*(f"{self.dataset_dir}/{file}" for file in files))

    def _read_list(self, file: str) -> list[Item]:
        items = []
        for line in read_lines(f"{self.dataset_dir}/{file}", self.advice()):
            image, _, variant = line.partition(" ")
            if variant not in self._labels:
                raise InputError(f"{self.dataset_dir}/{file} names {variant!r}, which variants.txt lacks")
            items.append(Item(f"{image}.jpg", self._labels[variant], variant))
        return items
