"""One's own images: train/, val/ and test/ folders of classes, or any tree with a split file."""

import csv
import hashlib
import os
from pathlib import Path

from yacs.config import CfgNode

from tlla.errors import InputError

from .base import ZooDataset, registered
from .files import image_suffixes, list_files, list_folders, read_lines, sha256
from .items import Item, class_names, duplicates, some
from .splits import PARTS, Parts, read_split

COLUMNS = ("path", "class", "split")


def read_csv(path: Path) -> Parts:
    """Reads a table with the columns path, class and split; sorted class names give the labels."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path} is not a CSV file ({error})") from error
    parts: Parts = {part: [] for part in PARTS}
    for line, row in enumerate(rows, start=2):
        if not all(row.get(column) for column in COLUMNS) or row["split"] not in PARTS or None in row:
            raise InputError(
                f"{path}, line {line}: a path, a class and a split of {PARTS} were expected, in columns "
                f"named {','.join(COLUMNS)}"
            )
        parts[row["split"]].append(Item(row["path"], -1, row["class"]))
    number = {name: label for label, name in enumerate(sorted({row["class"] for row in rows}))}
    return {part: [i._replace(label=number[i.classname]) for i in items] for part, items in parts.items()}


def read_own_names(path: str, folders: list[str]) -> dict[str, str]:
    """Folder -> class name from lines of "folder class name"; a folder name with spaces is followed by a tab."""
    names = {}
    for line in read_lines(path, "it must be text in UTF-8"):
        fits = [f for f in folders if line.startswith((f + "\t", f + " "))]
        if not fits:
            raise InputError(
                f"{path} says {line!r}, but each line must be a class folder, a space or tab, and its class name; "
                f"folders: {some(folders)}"
            )
        folder = max(fits, key=len)
        if folder in names:
            raise InputError(f"{path} names the class folder {folder!r} twice: keep one line of it")
        names[folder] = line[len(folder) :].strip()
    return names


@registered
class ImageFolder(ZooDataset):
    """DATASET.ROOT is the folder itself. There may be no val, and classes may be of any size.

    Attributes:
        title: What the data is called in records: the folder's name, and that of a split file.
    """

    takes_split_file = True
    own_names = True

    def prepare(self, options: CfgNode) -> None:
        """Lists the images, or reads DATASET.SPLIT_FILE, and names the classes."""
        self.title = Path(self.root).resolve().name or type(self).__name__
        if file := options.get("SPLIT_FILE", ""):
            self.title += f"/{Path(file).stem}"
            self._parts = self._read_split(file)
        else:
            self._parts = self._list_parts()
        self._rename()
        self._names = class_names((i for items in self._parts.values() for i in items), self.root)
        if twice := duplicates(self._names.values()):
            raise InputError(
                f"{self.root} has more than one class named {some(twice)}: no prompt can tell them apart; "
                "rename one, in classnames.txt or in the split file"
            )
        self._check_parts()
        lines = "".join(f"{part}\t{i.path}\t{i.label}\n" for part in PARTS for i in self._parts[part])
        self.fingerprint = hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()

    def _read_split(self, file: str) -> Parts:
        path = next((p for p in (Path(self.root, file), Path(file).expanduser()) if p.is_file()), None)
        if path is None or path.suffix.lower() not in (".json", ".csv"):
            raise InputError(
                f"DATASET.SPLIT_FILE {file!r} must be a JSON or CSV file, in {self.root} or by its whole path"
            )
        self.split_file_sha256 = sha256(path)
        return read_csv(path) if path.suffix.lower() == ".csv" else read_split(path)

    def _list_parts(self) -> Parts:
        present = [part for part in PARTS if os.path.isdir(f"{self.root}/{part}")]
        if "train" not in present and "test" not in present:
            raise InputError(
                f"{self.root} must hold train/ and test/ (and may hold val/), each with a folder a class, "
                f"or DATASET.SPLIT_FILE must name a split; found: {some(sorted(os.listdir(self.root)), 5)}"
            )
        classes = list_folders(f"{self.root}/{'train' if 'train' in present else 'test'}", self.advice())
        return {part: self._list_part(part, classes) if part in present else [] for part in PARTS}

    def _list_part(self, part: str, classes: list[str]) -> list[Item]:
        folder = f"{self.root}/{part}"
        found = list_folders(folder, self.advice())
        if strange := sorted(set(found) - set(classes)):
            raise InputError(
                f"{folder} has classes that train/ lacks: {some(strange)}; train on them or take them away"
            )
        items, suffixes = [], image_suffixes()
        for name in found:
            files = [f for f in list_files(f"{folder}/{name}", self.advice()) if Path(f).suffix.lower() in suffixes]
            if not files:
                raise InputError(f"{folder}/{name} holds no image; put some in it, or take the folder away")
            items += [Item(f"{part}/{name}/{file}", classes.index(name), name) for file in files]
        return items

    def _rename(self) -> None:
        path = f"{self.root}/classnames.txt"
        if os.path.isfile(path):
            folders = sorted({i.classname for items in self._parts.values() for i in items})
            names = {folder: folder for folder in folders} | read_own_names(path, folders)
            self._parts = {
                part: [i._replace(classname=names[i.classname]) for i in items] for part, items in self._parts.items()
            }

    def _check_parts(self) -> None:
        counts = {part: len(items) for part, items in self._parts.items()}
        if not counts["test"]:
            raise InputError(f"{self.root} has no test images (train, val, test: {list(counts.values())})")
        if not counts["train"]:
            # Enough for --eval-only and for zero-shot CLIP; DatasetBase takes the classes from train_x.
            print(f"{self.root} has no train images: the test images give the classes, nothing should be trained on it")
            self._parts["train"] = self._parts["test"]
        print(
            f"ImageFolder {self.root}: {len(self._names)} classes, {counts['train']} train, {counts['val']} val and "
            f"{counts['test']} test images"
        )

    def names(self) -> dict[int, str]:
        """Label -> class name."""
        return self._names

    def read(self, part: str) -> list[Item]:
        """Images of a part, sorted by class and file."""
        return self._parts[part]

    def advice(self) -> str:
        """What to do if something is missing."""
        return "correct the folder or the split file"
