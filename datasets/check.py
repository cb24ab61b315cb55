"""Compares a dataset's folder with its split: what is missing, extra, empty or unreadable. Changes nothing."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from dassl.data.datasets import DATASET_REGISTRY
from dassl.utils import ImageError, read_image
from tqdm import tqdm
from yacs.config import CfgNode

from tlla.errors import InputError

from .base import ZooDataset
from .catalog import CATALOG
from .files import image_suffixes, list_folders
from .items import Item, check_labels, same_names, some
from .splits import PARTS, Parts

SYNSETS = Path(__file__).with_name("data")


class Finding(NamedTuple):
    """A sentence, and whether it tells of a fault."""

    fault: bool
    text: str


def check(name: str, options: CfgNode, deep: bool = False) -> Iterator[Finding]:
    """Checks a dataset; the findings come as they are found.

    Args:
        name: Its registered name.
        options: The config's DATASET node.
        deep: Also decode every image.

    Raises:
        InputError: the data root is none.
    """
    cls = DATASET_REGISTRY.get(name)
    dataset = cls.__new__(cls)  # without __init__, which stops at the first missing image
    yield from _synsets(name, os.path.join(os.path.expanduser(options.ROOT), cls.dataset_dir, cls.image_folder))
    try:
        dataset.open(options)
        parts = dataset.parts(-1, -1)
        check_labels(parts, dataset.dataset_dir)
    except InputError as error:
        if not os.path.isdir(os.path.expanduser(options.ROOT)):
            raise
        yield Finding(True, str(error))
        return
    yield from _counts(name, dataset, parts, options)
    yield from _files(dataset, parts)
    if deep:
        yield from _images(dataset.image_dir, _all_items(parts))


def _all_items(parts: Parts) -> list[Item]:
    return list({item.path: item for items in parts.values() for item in items}.values())


def _synsets(name: str, image_dir: str) -> Iterator[Finding]:
    """ImageNet's and its variants' class folders against the known ones."""
    known = {"ImageNetA": "imagenet_a.txt", "ImageNetR": "imagenet_r.txt"}.get(name, "imagenet_tpt.txt")
    if not name.startswith("ImageNet") or name == "ImageNetV2":
        return
    expected = {line.split()[0] for line in (SYNSETS / known).read_text(encoding="utf-8").splitlines()}
    for folder in (f"{image_dir}/train", f"{image_dir}/val") if name == "ImageNet" else (image_dir,):
        if os.path.isdir(folder):
            found = set(list_folders(folder, ""))
            yield Finding(found != expected, f"{folder} has {len(found)} of {len(expected)} class folders")
            yield from _difference(folder, "class folders", expected - found, found - expected, extra_is_fault=True)


def _difference(
    place: str, what: str, missing: Iterable[str], extra: Iterable[str], extra_is_fault: bool
) -> Iterator[Finding]:
    if missing := sorted(missing):
        yield Finding(True, f"{place} lacks {len(missing)} {what}: {some(missing, 5)}")
    if extra := sorted(extra):
        yield Finding(extra_is_fault, f"{place} has {len(extra)} {what} that are not expected: {some(extra, 5)}")


def _counts(name: str, dataset: ZooDataset, parts: Parts, options: CfgNode) -> Iterator[Finding]:
    """Numbers of classes and items against the published ones."""
    found = [len(parts[part]) if part in parts else None for part in PARTS]
    classes = len({item.label for items in parts.values() for item in items})
    text = f"{classes} classes; train, val, test: {', '.join('-' if n is None else f'{n:,}' for n in found)}"
    entry = CATALOG.get(name)
    if entry is None or options.get("SPLIT_FILE", "") or (classes, *found) == (entry.classes, *entry.counts):
        yield Finding(False, text)
    else:
        published = ", ".join("-" if n is None else f"{n:,}" for n in entry.counts)
        yield Finding(True, f"{text}; {entry.classes} classes and {published} were expected")
    if same := same_names({item.label: item.classname for items in parts.values() for item in items}):
        yield Finding(dataset.own_names, f"classes whose names CLIP takes for one: {some(same)}")
    if sha := dataset.split_file_sha256:
        yield Finding(False, f"sha256 of the split: {sha}")


def _files(dataset: ZooDataset, parts: Parts) -> Iterator[Finding]:
    """Missing images, extra images and empty folders."""
    present, empty = _walk(dataset.image_dir)
    for part, items in parts.items():
        missing = [item.path for item in items if item.path not in present and not _is_file(dataset, item.path)]
        if missing:
            yield Finding(True, f"{part}: {len(missing)} of {len(items)} images are missing: {some(missing, 5)}")
        elif items:
            yield Finding(False, f"{part}: all {len(items):,} images are there")
    used = {os.path.normpath(item.path) for items in parts.values() for item in items}
    suffixes = image_suffixes()
    extra = [path for path in present - used if os.path.splitext(path)[1].lower() in suffixes]
    yield from _difference(dataset.image_dir, "images", (), extra, extra_is_fault=False)
    if empty:
        yield Finding(True, f"{dataset.image_dir} has {len(empty)} empty folders: {some(sorted(empty), 5)}")


def _is_file(dataset: ZooDataset, path: str) -> bool:
    return os.path.isfile(os.path.join(dataset.image_dir, path))  # a path that leaves the folder, as own splits may


def _walk(image_dir: str) -> tuple[set[str], set[str]]:
    """Paths of all files and of all empty folders, relative to the image folder."""
    files, empty, seen = set(), set(), set()
    for folder, below, names in os.walk(image_dir, followlinks=True):
        if (place := os.path.realpath(folder)) in seen:  # a link to a folder above would lead round and round
            below.clear()
            continue
        seen.add(place)
        below[:] = [name for name in below if not name.startswith(".") and name != "split_fewshot"]
        relative = os.path.relpath(folder, image_dir)
        files.update(name if relative == "." else f"{relative}/{name}" for name in names if not name.startswith("."))
        if not names and not below:
            empty.add(relative)
    return files, empty


def _images(image_dir: str, items: list[Item]) -> Iterator[Finding]:
    """Decodes every image that is there."""
    broken = []
    for item in tqdm(items, unit="img", desc="decoding"):
        path = os.path.join(image_dir, item.path)
        if os.path.isfile(path) and (reason := _unreadable(path)):
            broken.append(f"{item.path} ({reason})")
    if broken:
        yield Finding(True, f"{len(broken)} of {len(items)} images cannot be read: {some(broken, 5)}")
    else:
        yield Finding(False, f"all {len(items):,} images can be read")


def _unreadable(path: str) -> str:
    try:
        read_image(path)
    except ImageError as error:
        return type(error.__cause__).__name__
    return ""
