"""One's own images: train/, val/ and test/ folders of classes, or any tree with a split file."""

import csv
import hashlib
import io
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from tlla.errors import InputError
from tlla.files import read_text
from tlla.image_files import FOLDER, IMAGE, describe_kinds, scan
from tlla.views.read_image import has_decoder

from .base import ZooDataset, registered
from .items import Item, class_names, duplicates, some
from .listing import read_lines, sha256
from .splits import PARTS, Parts, read_split

COLUMNS = ("path", "class", "split")
DELIMITERS = (",", ";", "\t")  # Excel's depends on the language: a semicolon where the comma is in numbers


Kinds = dict[str, list[str]]  # names of entries by what they are


def read_csv(path: Path) -> Parts:
    """Reads a table with the columns path, class and split, as any spreadsheet writes it.

    Commas, semicolons or tabs divide the fields; the text is UTF-8 or UTF-16; sorted class names give the labels.
    """
    try:
        rows = _table(read_text(path), path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f'{path} is not a CSV file in UTF-8 or UTF-16 ({error}); Excel writes one as "CSV UTF-8" or "Unicode text"'
        ) from error
    parts: Parts = {part: [] for part in PARTS}
    for line, row in rows.items():
        if not all(row.get(column) for column in COLUMNS) or row["split"] not in PARTS or None in row:
            raise InputError(
                f"{path}, line {line}: a path, a class and a split of {PARTS} were expected, in columns "
                f"named {','.join(COLUMNS)}, but found {some(f'{key}={value}' for key, value in row.items())}"
            )
        parts[row["split"]].append(Item(row["path"], -1, row["class"]))
    number = {name: label for label, name in enumerate(sorted({row["class"] for row in rows.values()}))}
    return {part: [i._replace(label=number[i.classname]) for i in items] for part, items in parts.items()}


def _table(text: str, path: str) -> dict[int, dict[str | None, Any]]:
    """Rows by the line they end in, without empty ones; fields are divided by what divides the names of the columns."""
    header = text.partition("\n")[0]
    delimiter = max(DELIMITERS, key=header.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
    for name in COLUMNS:
        if reader.fieldnames.count(name) > 1:
            raise InputError(f"{path} has more than one column named {name!r}: keep one")
    numbered = ((reader.line_num, row) for row in reader)
    return {line: row for line, row in numbered if any(row.values())}


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
        around = scan(self.root, self.advice())
        present = [part for part in PARTS if part in around.get(FOLDER, [])]
        if "train" not in present and "test" not in present:
            raise InputError(
                f"{self.root} must hold train/ and test/ (and may hold val/), each with a folder a class, "
                f"or DATASET.SPLIT_FILE must name a split; found: {some(sorted(os.listdir(self.root)), 5)}"
            )
        left: Kinds = defaultdict(list)
        _add(left, around, "", {*PARTS, "classnames.txt", "split_fewshot"})
        within = {part: scan(f"{self.root}/{part}", self.advice()) for part in present}
        classes = within["train" if "train" in present else "test"].get(FOLDER, [])
        parts = {part: self._list_part(part, within[part], classes, left) if part in present else [] for part in PARTS}
        if left := {kind: paths for kind, paths in left.items() if paths}:
            print(f"Left out in {self.root}, as it is no image in a class folder: {describe_kinds(left)}")
        return parts

    def _list_part(self, part: str, within: Kinds, classes: list[str], left: Kinds) -> list[Item]:
        """The images of a part; adds to `left` what is none, or lies beside the class folders."""
        folder, found = f"{self.root}/{part}", within.get(FOLDER, [])
        if strange := sorted(set(found) - set(classes)):
            raise InputError(
                f"{folder} has classes that train/ lacks: {some(strange)}; train on them or take them away"
            )
        _add(left, within, f"{part}/", set(found))
        items = []
        for name in found:
            entries = scan(f"{folder}/{name}", self.advice())
            files = entries.get(IMAGE, [])
            if not files:
                holds = f"; it holds {describe_kinds(entries)}" if entries else ""
                raise InputError(f"{folder}/{name} holds no image{holds}; put some in it, or take the folder away")
            _add(left, entries, f"{part}/{name}/", set(files))
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
            print(
                f"{self.root} has no train images: the test images give the classes, and nothing can be trained on it"
            )
        paths = dict.fromkeys(item.path for items in self._parts.values() for item in items)
        if strange := [path for path in paths if not has_decoder(path)]:
            print(f"{len(strange)} images are named as this Pillow cannot decode: {some(strange)}; convert them to PNG")
        print(
            f"ImageFolder {self.root}: {len(self._names)} classes, {counts['train']} train, {counts['val']} val and "
            f"{counts['test']} test images"
        )

    def parts(self, shots: int, seed: int) -> Parts:
        """Without train images there is nothing to draw from."""
        if self._parts["train"]:
            return super().parts(shots, seed)
        return {part: self._parts[part] for part in ("val", "test")}

    def arrange(self, lists: dict[str, list]) -> dict[str, list]:
        """Dassl's DatasetBase takes the classes from train_x: without train images these are the test images."""
        return super().arrange({"train": lists["test"], **lists})

    def advice(self) -> str:
        """What to do if something is missing."""
        return "correct the folder or the split file"


def _add(left: Kinds, found: Kinds, below: str, without: set[str]) -> None:
    for kind, names in found.items():
        left[kind] += [below + name for name in names if name not in without]
