"""What a dataset is: lists of Datum for training, validation and test."""

import os
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dassl.utils import ImageError


@dataclass(eq=False)  # by identity, so that items can be in sets
class Datum:
    """An image and its labels.

    Raises:
        ValueError: The path is not a string, or (ImageError) there is no such file.
    """

    impath: str = ""
    label: int = 0  # from 0
    domain: int = 0
    classname: str = ""

    def __post_init__(self):
        if not isinstance(self.impath, str):
            raise ValueError(f"Datum's impath must be a string, but got {self.impath!r}")
        if not os.path.isfile(self.impath):
            raise ImageError(
                f'No image file at "{self.impath}" (class "{self.classname}"); check DATASET.ROOT and its folders'
            )


class DatasetBase:
    """A dataset; a subclass reads its files in ``__init__(self, cfg)`` and hands the lists to this one.

    Classes are those of ``train_x``, or of ``test`` where there is nothing to train on.

    Attributes:
        train_x, train_u, val, test: Labelled and unlabelled training data, validation and test data.
        num_classes: The highest label plus 1.
        lab2cname: Label -> class name.
        classnames: Class names in order of their labels.
    """

    dataset_dir = ""

    def __init__(
        self,
        train_x: list[Datum] | None = None,
        train_u: list[Datum] | None = None,
        val: list[Datum] | None = None,
        test: list[Datum] | None = None,
    ):
        self.train_x = train_x or []
        self.train_u = train_u or []
        self.val = val or []
        self.test = test or []
        labelled = self.train_x or self.test
        self.num_classes = self.get_num_classes(labelled)
        self.lab2cname, self.classnames = self.get_lab2cname(labelled)

    @staticmethod
    def get_num_classes(data_source: Iterable[Datum]) -> int:
        """The highest label plus 1; 0 without data."""
        return max((item.label for item in data_source), default=-1) + 1

    @staticmethod
    def get_lab2cname(data_source: Iterable[Datum]) -> tuple[dict[int, str], list[str]]:
        """Label -> class name in ascending order, and the names alone. ValueError if a label has two names."""
        names: dict[int, str] = {}
        for item in data_source:
            if names.setdefault(item.label, item.classname) != item.classname:
                both = f'"{names[item.label]}" and "{item.classname}"'
                raise ValueError(f"Label {item.label} has two class names, {both}; each label needs exactly one")
        names = dict(sorted(names.items()))
        return names, list(names.values())

    def generate_fewshot_dataset(
        self, *data_sources: list[Datum], num_shots: int = -1, repeat: bool = False
    ) -> list[Datum] | Sequence[list[Datum]]:
        """Draws ``num_shots`` items of each class, without replacement.

        Draws come from Python's global generator, class by class in order of first appearance: the published splits
        depend on it. Seed it before (``set_random_seed``), and give the items in a fixed order.

        Args:
            data_sources: Lists of items.
            num_shots: Items a class; less than 1 returns the lists as they are.
            repeat: Draw with replacement for a class with fewer items, instead of taking what there is.

        Returns:
            One list, or as many as were given.
        """
        if num_shots >= 1:
            print(f"Creating a {num_shots}-shot dataset")
            data_sources = [self._draw(source, num_shots, repeat) for source in data_sources]
        return data_sources[0] if len(data_sources) == 1 else data_sources

    def _draw(self, data_source: list[Datum], num_shots: int, repeat: bool) -> list[Datum]:
        drawn: list[Datum] = []
        for items in self.split_dataset_by_label(data_source).values():
            if len(items) >= num_shots:
                drawn += random.sample(items, num_shots)
            else:
                drawn += random.choices(items, k=num_shots) if repeat else items
        return drawn

    def split_dataset_by_label(self, data_source: Iterable[Datum]) -> dict[int, list[Datum]]:
        """Groups items by label, in order of first appearance."""
        groups = defaultdict(list)
        for item in data_source:
            groups[item.label].append(item)
        return groups
