"""What CoOp's datasets share: split file -> few-shot draw -> base or new classes -> Datums."""

import hashlib
import os
import random
from collections.abc import Mapping
from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase
from yacs.config import CfgNode

from tlla.errors import InputError
from tlla.prompts.templates import is_template
from tlla.registry import register

from .catalog import CATALOG, drive_url
from .fewshot import DrawFile
from .items import Item, check_labels, class_names, subsample, to_datums
from .listing import data_root, sha256, store_text
from .splits import Parts, format_split, list_classes, read_split, split_items

registered = register(DATASET_REGISTRY)

NEW_SPLIT_SEED = 1  # of the splits that DATASET.ALLOW_NEW_SPLIT makes


def choose_template(option: str, default: str) -> str:
    """DATASET.TEMPLATE if given, else the dataset's own."""
    if option and not is_template(option):
        raise InputError(f"DATASET.TEMPLATE must hold {{}} for the class name, and no other braces, but got {option!r}")
    return option or default


class ZooDataset(DatasetBase):
    """The common way from files to Datums. A subclass says where things are and gives `prepare`."""

    dataset_dir = ""  # the dataset's folder, below DATASET.ROOT; absolute once it is built
    image_folder = ""  # below it; the items' paths begin there
    template = "a photo of a {}."  # prompt of zero-shot CLIP
    drawn: tuple[str, ...] = ("train", "val")  # parts that few-shot draws are made of
    takes_split_file = False  # whether DATASET.SPLIT_FILE can name another split
    split_file_sha256: str | None = None  # of the split file(s) in use; None for a dataset that has none
    fingerprint = ""  # what a few-shot draw depends on; `prepare` sets it
    class_ids: tuple[str, ...] = ()  # of a dataset whose names repeat: what tells its classes apart, by label
    own_names = False  # whether the class names are the user's, who can rename classes that share one prompt
    corrupted_files = False  # whether DATASET.CORRUPTION and SEVERITY name a folder of corrupted images
    val_is_test = False  # whether no val images lie apart from the test images, so that nothing can be chosen on val

    def __init__(self, cfg: CfgNode) -> None:
        self.open(cfg.DATASET)
        choice = cfg.DATASET.get("SUBSAMPLE_CLASSES", "all")
        parts = subsample(self.parts(cfg.DATASET.NUM_SHOTS, cfg.SEED), choice)
        check_labels(parts, self.dataset_dir)
        lists = {part: to_datums(items, self.image_dir, self.advice()) for part, items in parts.items()}
        if choice != "all":
            self.class_ids = ()  # they are of all classes
        super().__init__(**self.arrange(lists))

    def open(self, options: CfgNode) -> None:
        """Finds the folders and reads what describes the split, without looking for the images."""
        self.root = data_root(options.ROOT, f"{self.dataset_dir}/" if self.dataset_dir else "the class folders")
        self.dataset_dir = os.path.join(self.root, self.dataset_dir) if self.dataset_dir else self.root
        folder = self.folder_of_images(options)
        self.image_dir = os.path.join(self.dataset_dir, folder) if folder else self.dataset_dir
        self.template = choose_template(options.get("TEMPLATE", ""), self.template)
        if not os.path.isdir(self.dataset_dir):
            raise InputError(f"there is no folder {self.dataset_dir}; {self.advice()}")
        if options.get("SPLIT_FILE", "") and not self.takes_split_file:
            raise InputError(f"{type(self).__name__} has no split file: leave DATASET.SPLIT_FILE empty")
        self.prepare(options)

    @classmethod
    def folder_of_images(cls, options: CfgNode) -> str:
        """`image_folder`, unless a setting chooses it."""
        return cls.image_folder

    def prepare(self, options: CfgNode) -> None:
        """Finds the split: sets `fingerprint`, `_parts` and `_names`, or replaces `read` and `names`."""
        raise NotImplementedError

    def names(self) -> dict[int, str]:
        """Label -> class name."""
        return self._names

    def read(self, part: str) -> list[Item]:
        """All items of a part, in the published order."""
        return self._parts[part]

    def parts(self, shots: int, seed: int) -> Parts:
        """Train and val, whole or drawn, and test."""
        if shots >= 1:
            key = {"dataset": type(self).__name__, "shots": shots, "seed": seed, "source_sha256": self.fingerprint}
            file = DrawFile(self.dataset_dir, os.path.relpath(self.image_dir, self.root), key)
            parts = file.load_or_draw(self.names, self._read_drawn)
        else:
            parts = self._read_drawn()
        return parts | {"test": self.read("test")}

    def _read_drawn(self) -> Parts:
        return {part: self.read(part) for part in self.drawn}

    def arrange(self, lists: dict[str, list]) -> dict[str, list]:
        """The lists as DatasetBase takes them."""
        return {"train_x": lists["train"], "val": lists["val"], "test": lists["test"]}

    def advice(self) -> str:
        """What to do if something is missing."""
        name = type(self).__name__
        return (
            f"python -m {__package__} explain {name} shows the expected tree and "
            f"python -m {__package__} check {name} --root {self.root} what is missing"
        )


class SplitDataset(ZooDataset):
    """A dataset with one of CoOp's split files; `make_split` makes another one where the user allows it."""

    takes_split_file = True
    ignored: tuple[str, ...] = ()  # class folders that are left out of a new split
    renamed: Mapping[str, str] = {}  # class folder -> class name, where they differ, in a new split

    def make_split(self, rng: random.Random) -> Parts:
        """Splits the images of all class folders anew, in the proportions of CoOp's split."""
        return split_items(list_classes(self.image_dir, self.advice(), self.ignored, self.renamed), rng)

    def prepare(self, options: CfgNode) -> None:
        """Reads the split file, or makes a new split if that is allowed and there is none."""
        name = type(self).__name__
        path = self._find(options.get("SPLIT_FILE", ""))
        if path is None:
            if not options.get("ALLOW_NEW_SPLIT", False):
                raise InputError(self._missing_split())
            path = self._new_split(Path(self.dataset_dir, f"split_new_{name}.json"))
        if path is not None:
            print(f"Reading the split {path}")
            self._parts, self.split_file_sha256 = read_split(path), sha256(path)
        self.fingerprint = self.split_file_sha256
        self._names = class_names((i for items in self._parts.values() for i in items), f"the split of {name}")

    def _find(self, given: str) -> Path | None:
        if given:
            places = [Path(self.dataset_dir, given), Path(given).expanduser()]
            found = next((p for p in places if p.is_file()), None)
            if found is None:
                raise InputError(f"DATASET.SPLIT_FILE {given!r} is neither a file in {self.dataset_dir} nor elsewhere")
            return found
        path = Path(self.dataset_dir, f"split_zhou_{type(self).__name__}.json")
        return path if path.is_file() else None

    def _missing_split(self) -> str:
        name = type(self).__name__
        own = "set DATASET.ALLOW_NEW_SPLIT True for a split of your own"
        if not CATALOG[name].split_id:
            return f"split_zhou_{name}.json was expected in {self.dataset_dir}: put it there, or {own}"
        return (
            f"split_zhou_{name}.json was expected in {self.dataset_dir}, it makes numbers comparable; get it by "
            f"python -m {__package__} download {name} --split-only --root {self.root} or from "
            f"{drive_url(CATALOG[name].split_id)}, or {own}"
        )

    def _new_split(self, path: Path) -> Path | None:
        """Makes a split under a name of its own; None if it cannot be stored (it then lives in memory)."""
        if path.is_file():
            return path
        self._parts = self.make_split(random.Random(NEW_SPLIT_SEED))
        text = format_split(self._parts)
        print(f"{path.name} is a new split: its results cannot be compared with those on CoOp's split")
        if store_text(path, text, "the new split"):
            return path
        self.split_file_sha256 = hashlib.sha256(text.encode()).hexdigest()
        return None
