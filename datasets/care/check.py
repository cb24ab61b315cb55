"""Compares a dataset's folder with its split: what is missing, extra, empty or unreadable. Changes nothing."""

import os
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from dassl.data.datasets import DATASET_REGISTRY
from tqdm import tqdm
from yacs.config import CfgNode

from tlla.errors import InputError
from tlla.fingerprint import file_identity
from tlla.image_files import EMPTY_FOLDER, IMAGE, describe_kinds, one_line, walk
from tlla.views.read_image import has_decoder, read_image

from ..base import ZooDataset
from ..catalog import CATALOG
from ..items import check_labels, same_names, some
from ..listing import list_folders, sha256
from ..splits import PARTS, Parts

TWICE = "twice in one class of one part"
SYNSETS = Path(__file__).parents[1] / "data"


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
    try:
        folder = cls.folder_of_images(options)
    except InputError as error:
        yield Finding(True, str(error))
        return
    yield from _synsets(name, os.path.join(os.path.expanduser(options.ROOT), cls.dataset_dir, folder))
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
    own = name not in CATALOG  # published datasets hold some images twice, which is not the user's to mend
    yield from _listed_twice(dataset.image_dir, parts, own)
    yield from _images(dataset.image_dir, parts, deep, own)


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
    """Missing images, extra images, empty folders, and everything else that lies in the folder."""
    found: dict[str, list[str]] = defaultdict(list)
    try:
        for path, kind in walk(dataset.image_dir, skip=("split_fewshot",)):
            found[kind].append(path)
    except InputError as error:
        yield Finding(True, str(error))
    present = {path for kind, paths in found.items() if kind != EMPTY_FOLDER for path in paths}
    loose = {path for path in found[IMAGE] if not _is_file(dataset, path)}
    for part, items in parts.items():
        listed = [item.path for item in items]
        missing = [p for p in listed if p in loose or p not in present and not _is_file(dataset, p)]
        if missing:
            yield Finding(True, f"{part}: {len(missing)} of {len(items)} images are missing: {some(missing, 5)}")
        elif items:
            yield Finding(False, f"{part}: all {len(items):,} images are there")
    used = {os.path.normpath(item.path) for items in parts.values() for item in items}
    extra = set(found.pop(IMAGE)) - used
    yield from _difference(dataset.image_dir, "images", (), extra, extra_is_fault=False)
    if empty := found.pop(EMPTY_FOLDER, []):
        yield Finding(True, f"{dataset.image_dir} has {len(empty)} empty folders: {some(sorted(empty), 5)}")
    for kind, paths in sorted(found.items()):  # a split may list files whose names do not end as those of images
        if rest := sorted(set(paths) - used):
            yield Finding(False, f"{dataset.image_dir} also has {describe_kinds({kind: rest}, 5)}")


def _is_file(dataset: ZooDataset, path: str) -> bool:
    return os.path.isfile(os.path.join(dataset.image_dir, path))  # a path that leaves the folder, as own splits may


class Listing(NamedTuple):
    """Where a split lists an image."""

    path: str
    part: str
    label: int


def _places(parts: Parts) -> list[Listing]:
    return [Listing(item.path, part, item.label) for part, items in parts.items() for item in items]


def _listed_twice(image_dir: str, parts: Parts, own: bool) -> Iterator[Finding]:
    """Files that are in two parts, under two classes, or twice in one part: by path, and by links."""
    paths: dict[Hashable, list[Listing]] = defaultdict(list)
    files: dict[Hashable, list[Listing]] = defaultdict(list)
    for place in _places(parts):
        key = os.path.normpath(place.path)
        if key not in paths:
            files[file_identity(os.path.join(image_dir, place.path))].append(place)
        paths[key].append(place)
    yield from _shared(paths, "images are", fault=True, twice=True)
    yield from _shared(files, "images are links to one file,", fault=own)


def _shared(places: Mapping[Hashable, list[Listing]], what: str, fault: bool, twice: bool = False) -> Iterator[Finding]:
    """What is in more places than one, a fault or not; `twice`: whether it is one within a class of a part."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for found in places.values():
        shown = " = ".join(dict.fromkeys(place.path for place in found))
        parts = [part for part in PARTS if any(place.part == part for place in found)]
        if len(parts) > 1:
            kinds[f"both in {' and '.join(parts)}"].append(shown)
        if len({place.label for place in found}) > 1:
            kinds["under two classes"].append(shown)
        if len({(place.part, place.label) for place in found}) < len(found):
            kinds[TWICE].append(shown)
    for kind, images in sorted(kinds.items()):
        yield Finding(twice if kind == TWICE else fault, f"{len(images)} {what} {kind}: {some(images, 5)}")


def _images(image_dir: str, parts: Parts, deep: bool, own: bool) -> Iterator[Finding]:
    """Empty files and those that cannot be decoded; unless `deep`, only what a name without a decoder is tried on."""
    images: dict[Hashable, Listing] = {}
    for place in _places(parts):
        images.setdefault(file_identity(os.path.join(image_dir, place.path)), place)
    contents: dict[Hashable, list[Listing]] = defaultdict(list)
    broken = []
    for place in tqdm(images.values(), unit="img", desc="decoding", disable=not deep):
        file = os.path.join(image_dir, place.path)
        if not os.path.isfile(file):
            continue
        if reason := _unreadable(file, deep or not has_decoder(file)):
            broken.append(f"{place.path} ({reason})")
        elif deep:
            contents[sha256(file)].append(place)
    if broken:
        yield Finding(True, f"{len(broken)} of {len(images)} images cannot be read: {some(broken, 5)}")
    elif deep:
        yield Finding(False, f"all {len(images):,} images can be read")
    yield from _shared(contents, "images of the same content are", fault=own)


def _unreadable(file: str, decode: bool) -> str:
    """Why a file cannot be read as an image, or nothing."""
    if os.path.getsize(file) == 0:
        return "is empty"
    try:
        if decode:
            read_image(file)
    except InputError as error:
        return str(error).removeprefix(f"{one_line(file)} ")
    return ""
