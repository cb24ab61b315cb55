"""CoOp's split files, `{"train": [[path, label, class name], ...], "val": ..., "test": ...}`, read and made."""

import json
import random
import reprlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tlla.errors import InputError
from tlla.files import read_text

from .items import Item
from .listing import list_files, list_folders

Parts = dict[str, list[Item]]


def read_split(path: str | Path) -> Parts:
    """Reads a split file. InputError if it is not one; the message names the first wrong row."""
    try:
        content = json.loads(read_text(path))
        parts = {part: content[part] for part in ("train", "test")} | {"val": content.get("val", [])}
        parts = {part: list(rows) for part, rows in parts.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f'{path} is not a split file ({type(error).__name__}: {error}); JSON with "train", "val" and "test" lists '
            "of [path, label, class name] was expected: download it again"
        ) from error
    return {part: [_item(row, f"{path}, {part}[{i}]") for i, row in enumerate(parts[part])] for part in PARTS}


PARTS = ("train", "val", "test")


def _item(row: Any, where: str) -> Item:
    try:
        path, label, classname = row
        if not (isinstance(path, str) and isinstance(classname, str) and path and classname and int(label) >= 0):
            raise ValueError
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{where} is {reprlib.repr(row)}; [path, label (0 or more), class name] was expected"
        ) from error
    return Item(path, int(label), classname)


def format_split(parts: Parts) -> str:
    """The text of a split file."""
    return json.dumps({part: [list(item) for item in parts[part]] for part in PARTS}, indent=0) + "\n"


def by_label(items: list[Item]) -> dict[int, list[Item]]:
    """Items of each class, in order of first appearance."""
    classes: dict[int, list[Item]] = {}
    for item in items:
        classes.setdefault(item.label, []).append(item)
    return classes


def split_trainval(items: list[Item], test: list[Item], rng: random.Random) -> Parts:
    """Splits off 20 % of each class for validation, as CoOp does where a dataset has no val split, only a test set."""
    parts: Parts = {"train": [], "val": [], "test": test}
    for members in by_label(items).values():
        rng.shuffle(members)
        count = round(len(members) * 0.2)
        _check_share(members, count, len(members) - count)
        parts["val"] += members[:count]
        parts["train"] += members[count:]
    return parts


def split_items(items: list[Item], rng: random.Random) -> Parts:
    """50 % of each class for training, 20 % for validation, the rest for the test."""
    parts: Parts = {part: [] for part in PARTS}
    for members in by_label(items).values():
        rng.shuffle(members)
        a = round(len(members) * 0.5)
        b = a + round(len(members) * 0.2)
        _check_share(members, a, b - a, len(members) - b)
        for part, share in zip(PARTS, (members[:a], members[a:b], members[b:]), strict=True):
            parts[part] += share
    return parts


def _check_share(members: list[Item], *counts: int) -> None:
    if min(counts) < 1:
        raise InputError(
            f"class {members[0].classname!r} has only {len(members)} images, too few to split into shares of {counts}"
        )


def list_classes(
    image_dir: str,
    advice: str,
    ignored: tuple[str, ...],
    renamed: Mapping[str, str],
) -> list[Item]:
    """Images of a folder of class folders, sorted; the class folders' sorted order gives the labels."""
    folders = [f for f in list_folders(image_dir, advice) if f not in ignored]
    return list_images(image_dir, folders, lambda folder: renamed.get(folder, folder), advice)


def list_images(
    directory: str, folders: list[str], name_of: Callable[[str], str], advice: str, below: str = ""
) -> list[Item]:
    """All images of some class folders, sorted; a label is a folder's place in the list.

    Args:
        directory: Holds the class folders.
        folders: Their names.
        name_of: Folder -> class name.
        advice: What to do about an empty folder.
        below: What comes before the folder in the items' paths.

    Raises:
        InputError: a folder is empty: the labels after it would not match the names.
    """
    items = []
    for label, folder in enumerate(folders):
        names = list_files(f"{directory}/{folder}", advice)
        if not names:
            raise InputError(f"{directory}/{folder} is empty; {advice}")
        items += [Item(f"{below}{folder}/{name}", label, name_of(folder)) for name in names]
    return items
