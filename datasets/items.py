"""Images as (path, label, class name) before they become Datums: cheap to list by the million and to draw from."""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from dassl.data.datasets import Datum

from tlla.errors import InputError

SUBSAMPLES = ("all", "base", "new")


class Item(NamedTuple):
    """An image: its path below the dataset's image folder, its label and the name of its class."""

    path: str
    label: int
    classname: str


def some(names: Iterable[Any], count: int = 3) -> str:
    """The first few names for a message."""
    names = list(names)
    return ", ".join(map(_printable, names[:count])) + (" ..." if len(names) > count else "")


def _printable(name: Any) -> str:
    """File names may hold line breaks and what is not UTF-8, and may be long."""
    text = str(name).encode("utf-8", "backslashreplace").decode().replace("\n", "\\n")
    return text if len(text) <= 300 else f"{text[:300]}..."


def class_names(items: Iterable[Item], source: str) -> dict[int, str]:
    """Label -> class name.

    Raises:
        InputError: a label has two names, or one without a word in it, or one that is not Unicode.
    """
    names: dict[int, str] = {}
    for item in items:
        if not item.classname.replace("_", " ").strip():
            raise InputError(f"{source} gives label {item.label} a class name without a word in it, {item.classname!r}")
        if not _is_unicode(item.classname):
            raise InputError(f"{source} gives label {item.label} a class name that is not UTF-8, {item.classname!r}")
        if names.setdefault(item.label, item.classname) != item.classname:
            raise InputError(
                f"{source} gives label {item.label} two class names, {names[item.label]!r} and {item.classname!r}; "
                "each label needs exactly one"
            )
    return names


def _is_unicode(text: str) -> bool:
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False


def check_labels(parts: dict[str, list[Item]], source: str) -> None:
    """Checks that the labels are 0 to K - 1: Dassl takes the names of the classes in the order of their labels.

    Raises:
        InputError: one is missing in train (or in test, where there is no train), or only in another part.
    """
    basis = "train" if "train" in parts else "test"
    labels = {item.label for item in parts[basis]}
    if not labels:
        raise InputError(f"{source} has no {basis} images")
    if max(labels) >= len(labels):
        lost = [label for label in range(min(max(labels), len(labels) + 4)) if label not in labels]
        raise InputError(
            f"{source} has {len(labels)} classes with {basis} images, but labels up to {max(labels)}: {some(lost)} "
            "are missing, so that class names would not match labels; complete the data or number the classes from 0"
        )
    strange = {item.label: item.classname for items in parts.values() for item in items if item.label not in labels}
    if strange:
        raise InputError(f"{source} has classes without {basis} images: {some(strange.values())}")


def duplicates(names: Iterable[str]) -> list[str]:
    """Names that more than one class has once underscores are read as spaces; no prompt can tell such classes apart."""
    return sorted(name for name, count in Counter(name.replace("_", " ") for name in names).items() if count > 1)


def same_names(names: dict[int, str]) -> list[str]:
    """Groups of names that are the same but for case, spaces and underscores: most CLIPs see one prompt in them."""
    groups: dict[str, list[str]] = {}
    for name in names.values():
        groups.setdefault(" ".join(name.replace("_", " ").split()).lower(), []).append(name)
    return [" and ".join(map(repr, group)) for group in groups.values() if len(group) > 1]


def subsample(parts: dict[str, list[Item]], choice: str) -> dict[str, list[Item]]:
    """Keeps all classes, their first half (base; the larger one) or second half (new), with labels from 0.

    The classes are those of the train part, as in CoOp; of the test part where there is none.
    """
    if choice not in SUBSAMPLES:
        raise InputError(f"DATASET.SUBSAMPLE_CLASSES must be one of {SUBSAMPLES}, but got {choice!r}")
    if choice == "all":
        return parts
    labels = sorted({item.label for item in parts["train" if "train" in parts else "test"]})
    half = (len(labels) + 1) // 2
    number = {old: new for new, old in enumerate(labels[:half] if choice == "base" else labels[half:])}
    return {
        part: [item._replace(label=number[item.label]) for item in items if item.label in number]
        for part, items in parts.items()
    }


def to_datums(items: list[Item], image_dir: str, advice: str) -> list[Datum]:
    """The toolkit's items."""
    check_files(image_dir, [item.path for item in items], advice)
    return [Datum(os.path.join(image_dir, item.path), item.label, 0, item.classname) for item in items]


def check_files(folder: str | Path, paths: list[str], advice: str) -> None:
    """Raises InputError unless all files are there: one sentence instead of a failure in the middle of a run."""
    missing = [path for path in paths if not os.path.isfile(os.path.join(folder, path))]
    if missing:
        raise InputError(f"{folder} lacks {len(missing)} of {len(paths)} images: {some(missing)}; {advice}")
