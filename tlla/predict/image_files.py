"""Which image files are meant: files, folders, patterns."""

import glob
from collections.abc import Iterable
from pathlib import Path

from ..errors import InputError

SUFFIXES = frozenset(
    ".avif .bmp .gif .heic .heif .jfif .jp2 .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split()
)


def find_images(inputs: Iterable[str]) -> list[str]:
    """Paths of all images meant, in the order given.

    Args:
        inputs: Files, taken whatever their name; folders, searched with all folders in them for names that end as
            images do, sorted, without hidden ones; patterns such as ``photos/**/*.jpg``, sorted.

    Raises:
        InputError: a folder or a pattern without images, or no input at all.
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
    inside = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    found = [str(p) for p in inside if p.is_file() and not _hidden(p.relative_to(folder))]
    if not found:
        raise InputError(
            f"there are no images in the folder {folder}, that is, no names that end in {', '.join(sorted(SUFFIXES))}"
        )
    return found


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _matching(pattern: str) -> list[str]:
    found = sorted(p for p in glob.glob(pattern, recursive=True) if Path(p).is_file())
    if not found:
        raise InputError(f"no file matches the pattern {pattern!r}")
    return found
