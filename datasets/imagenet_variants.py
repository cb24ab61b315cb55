"""Test sets with ImageNet's classes: nothing to train on, so train_x, which gives the classes, is the test set too."""

import os

from dassl.data.datasets import Datum
from yacs.config import CfgNode

from tlla.corruptions import Corruption
from tlla.errors import InputError

from .base import registered
from .imagenet import ImageNetFamily
from .items import Item, some
from .listing import list_folders
from .splits import Parts, list_images


class ImageNetVariant(ImageNetFamily):
    """Synset folders; the labels count them in sorted order."""

    def prepare(self, options: CfgNode) -> None:
        """Refuses base and new, which are not defined for these test sets."""
        choice = options.get("SUBSAMPLE_CLASSES", "all")
        if choice != "all":
            raise InputError(
                f"{type(self).__name__} has no base and new classes: DATASET.SUBSAMPLE_CLASSES is {choice}"
            )
        super().prepare(options)

    def parts(self, shots: int, seed: int) -> Parts:
        """The test set; shots are ignored, as in CoOp."""
        return {"test": self.read("test")}

    def read(self, part: str) -> list[Item]:
        """Lists the images."""
        folders = self.class_folders(self.image_dir)
        self.class_ids = tuple(folders)
        return self.list_folders(folders)

    def list_folders(self, folders: list[str]) -> list[Item]:
        """All images of the class folders."""
        return list_images(self.image_dir, folders, self.folder_names.__getitem__, self.advice())

    def arrange(self, lists: dict[str, list[Datum]]) -> dict[str, list[Datum]]:
        """DatasetBase takes the classes from train_x."""
        return {"train_x": lists["test"], "test": lists["test"]}


@registered
class ImageNetSketch(ImageNetVariant):
    """Sketches of the 1000 classes (Wang et al., NeurIPS 2019)."""

    dataset_dir = "imagenet-sketch"
    image_folder = "images"


@registered
class ImageNetA(ImageNetVariant):
    """Natural adversarial examples of 200 classes, with labels of their own (Hendrycks et al., CVPR 2021)."""

    dataset_dir = "imagenet-adversarial"
    image_folder = "imagenet-a"
    expected_folders = 200


@registered
class ImageNetR(ImageNetVariant):
    """Renditions of 200 classes, with labels of their own (Hendrycks et al., ICCV 2021)."""

    dataset_dir = "imagenet-rendition"
    image_folder = "imagenet-r"
    expected_folders = 200


@registered
class ImageNetV2(ImageNetVariant):
    """A new test set, matched-frequency (Recht et al., ICML 2019). Folder "17" is the 17th class from 0."""

    dataset_dir = "imagenetv2"
    image_folder = "imagenetv2-matched-frequency-format-val"

    def prepare(self, options: CfgNode) -> None:
        """The synsets are the names' file's, in its order."""
        super().prepare(options)
        self.class_ids = tuple(self.folder_names)

    def read(self, part: str) -> list[Item]:
        """Lists the images by number of class, not in the folders' sorted order (0, 1, 10, 100 ...)."""
        names = list(self.folder_names.values())
        numbers = [str(label) for label in range(len(names))]
        if wrong := sorted(set(numbers) ^ set(list_folders(self.image_dir, self.advice()))):
            raise InputError(
                f"{self.image_dir} must hold the folders 0 to {len(names) - 1}, but differs in {len(wrong)}: "
                f"{some(wrong)}; {self.advice()}"
            )
        self.folder_names = dict(zip(numbers, names, strict=True))
        return self.list_folders(numbers)


@registered
class ImageNetC(ImageNetVariant):
    """The validation set, corrupted (Hendrycks & Dietterich, ICLR 2019): one of 15 corruptions in one of 5 severities.

    The folders are ImageNet-C's: <corruption>/<severity>/<synset>.
    """

    dataset_dir = "imagenet-c"
    corrupted_files = True

    @classmethod
    def folder_of_images(cls, options: CfgNode) -> str:
        """That of DATASET.CORRUPTION and DATASET.SEVERITY; InputError if they name none."""
        chosen = Corruption(options.get("CORRUPTION", ""), options.get("SEVERITY", 0))
        return os.path.join(chosen.name, str(chosen.severity))
