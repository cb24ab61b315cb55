"""ImageNet (Deng et al., 2009): train for training, val for validation and test, as in CoOp and the papers after it."""

import hashlib
import os
from pathlib import Path

from dassl.data.datasets import Datum
from yacs.config import CfgNode

from tlla.errors import InputError

from .base import ZooDataset, registered
from .catalog import CLASSNAMES_ID, drive_url
from .items import Item, some
from .listing import list_folders, read_lines, sha256
from .splits import list_images

TPT_NAMES = Path(__file__).with_name("data") / "imagenet_tpt.txt"


def parse_names(lines: list[str], source: str) -> dict[str, str]:
    """Folder -> class name from lines of "n01440764 tench".

    Raises:
        InputError: a folder has two names, of which one would be used silently.
    """
    names: dict[str, str] = {}
    for folder, _, name in (line.partition(" ") for line in lines):
        if names.setdefault(folder, name) != name:
            raise InputError(f"{source} names {folder!r} twice, {names[folder]!r} and {name!r}: keep one line of it")
    return names


def find_names(dataset_dir: str, root: str, choice: str) -> Path:
    """The file of class names: CoOp's classnames.txt in the dataset's folder or ImageNet's, or TPT's list.

    Raises:
        InputError: it is missing; or DATASET.CLASSNAMES is unknown.
    """
    if choice not in ("coop", "tpt"):
        raise InputError(f"DATASET.CLASSNAMES must be one of ('coop', 'tpt'), but got {choice!r}")
    if choice == "tpt":
        return TPT_NAMES
    places = [Path(dataset_dir, "classnames.txt"), Path(root, "imagenet", "classnames.txt")]
    found = next((p for p in places if p.is_file()), None)
    if found is None:
        raise InputError(
            f"classnames.txt was expected in {dataset_dir}; get CoOp's from {drive_url(CLASSNAMES_ID)}, "
            "or set DATASET.CLASSNAMES tpt for the names that come with this project"
        )
    return found


class ImageNetFamily(ZooDataset):
    """Class folders named by synsets (or numbers), and a file that names them.

    Attributes:
        expected_folders: The number of class folders; another one is said, as it changes the labels.
        classnames_sha256: Of the file of class names.
    """

    expected_folders = 1000
    val_is_test = True

    def prepare(self, options: CfgNode) -> None:
        """Reads the class names, if there is a folder of images."""
        if not os.path.isdir(self.image_dir):
            raise InputError(f"there is no folder {self.image_dir}; {self.advice()}")
        file = find_names(self.dataset_dir, self.root, options.get("CLASSNAMES", "coop"))
        self.folder_names = parse_names(read_lines(str(file), self.advice()), str(file))
        self.classnames_sha256 = sha256(file)
        print(f"Class names: {len(self.folder_names)} of {file} (sha256 {self.classnames_sha256[:12]})")

    def class_folders(self, directory: str) -> list[str]:
        """The class folders in a directory, in the order of their labels.

        Raises:
            InputError: there are none, or one has no name: mostly the wrong level of folders.
        """
        folders = list_folders(directory, self.advice())
        unknown = [folder for folder in folders if folder not in self.folder_names]
        if unknown or not folders:
            found = f"{len(unknown)} that are not in the class names: {some(unknown)}" if unknown else "none"
            raise InputError(
                f"{directory} must hold {self.expected_folders} class folders like n01440764, but there are {found}; "
                "is one folder too many or too few in the path?"
            )
        if len(folders) != self.expected_folders:
            print(f"{directory} has {len(folders)} class folders, not {self.expected_folders}: labels count them alone")
        return folders


@registered
class ImageNet(ImageNetFamily):
    """1.28 million images for training. Listings are sorted; CoOp draws from them in the file system's order."""

    dataset_dir = "imagenet"
    image_folder = "images"
    drawn = ("train",)

    def prepare(self, options: CfgNode) -> None:
        """Reads names and class folders; what they hold is listed when it is needed."""
        super().prepare(options)
        self.folders = self.class_folders(f"{self.image_dir}/train")
        self.class_ids = tuple(self.folders)
        found = self.class_folders(f"{self.image_dir}/val")
        if different := sorted(set(self.folders) ^ set(found)):
            raise InputError(
                f"{self.image_dir}/train and val must hold the same class folders, but differ in {len(different)}: "
                f"{some(different)}; labels would not match"
            )

    @property
    def fingerprint(self) -> str:
        """Names and times of the class folders: a folder's time changes when files come or go."""
        digest = hashlib.sha256()
        for folder in self.folders:
            digest.update(f"{folder} {os.stat(f'{self.image_dir}/train/{folder}').st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def names(self) -> dict[int, str]:
        """Label -> class name."""
        return {label: self.folder_names[folder] for label, folder in enumerate(self.folders)}

    def read(self, part: str) -> list[Item]:
        """Lists train, or val for the test."""
        folder = "train" if part == "train" else "val"
        return list_images(
            f"{self.image_dir}/{folder}", self.folders, self.folder_names.__getitem__, self.advice(), f"{folder}/"
        )

    def arrange(self, lists: dict[str, list[Datum]]) -> dict[str, list[Datum]]:
        """The labelled val set serves for validation and test."""
        return {"train_x": lists["train"], "val": lists["test"], "test": lists["test"]}
