"""Image paths from files, folders and patterns."""

import glob
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from ..errors import InputError
from ..image_files import IMAGE, IMAGE_SUFFIXES, describe_kinds, walk


def find_images(inputs: Iterable[str]) -> list[str]:
    """Paths of all images, in the order of the inputs.

    Args:
        inputs: Files, whatever their name; folders, searched recursively for suffixes of images and sorted (what is
            left out is printed); patterns such as ``photos/**/*.jpg``, sorted.

    Raises:
        InputError: a folder or a pattern has no images, or there are no inputs.

    >>> find_images([".", "fruit.*"])
    ['fruit.png', 'fruit.png']
    """
    found: list[str] = []
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            found += _in_folder(path)
        elif glob.has_magic(text) and not path.exists():
            found += _matching(text)
        else:
            found.append(text)
    if not found:
        raise InputError("no images are given: name files, folders or patterns, or - for paths on the standard input")
    return found


def _in_folder(folder: Path) -> list[str]:
    kinds: dict[str, list[str]] = defaultdict(list)
    for path, kind in walk(folder):
        kinds[kind].append(path)
    found = sorted(folder / path for path in kinds.pop(IMAGE, []))
    if not found:
        raise InputError(
            f"there are no images in the folder {folder}: expected files that end in "
            f"{', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    if kinds:
        print(f"left out in {folder}: {describe_kinds(kinds)}", file=sys.stderr)
    return [str(path) for path in found]


def _matching(pattern: str) -> list[str]:
    found = sorted(p for p in glob.glob(pattern, recursive=True) if not Path(p).is_dir())
    if not found:
        raise InputError(f"no file matches the pattern {pattern!r}")
    return found
