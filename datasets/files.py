"""Listing, reading and writing files without surprises."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from PIL import Image

from tlla.errors import InputError
from tlla.files import read_text, write_text


def image_suffixes() -> frozenset[str]:
    """Suffixes of all files that Pillow reads, in lower case."""
    known = Image.registered_extensions()  # loads Pillow's plugins, which fills Image.OPEN
    return frozenset(suffix for suffix, kind in known.items() if kind in Image.OPEN)


def data_root(root: str, needs: str) -> str:
    """The absolute DATASET.ROOT.

    Raises:
        InputError: it is empty or not a folder.
    """
    if not root:
        raise InputError(f"DATASET.ROOT is empty; give --root, the folder that holds {needs}")
    path = os.path.abspath(os.path.expanduser(root))
    if not os.path.isdir(path):
        what = "is a file" if os.path.exists(path) else "does not exist"
        raise InputError(f"DATASET.ROOT {path} {what}; a folder that holds {needs} was expected")
    return path


def list_folders(folder: str, advice: str) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones."""
    return _list(folder, True, advice)


def list_files(folder: str, advice: str) -> list[str]:
    """Names of the files in a folder, sorted, without hidden ones."""
    return _list(folder, False, advice)


def _list(folder: str, folders: bool, advice: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            # is_dir and is_file come with the listing: a million files are listed without a million look-ups.
            return sorted(e.name for e in entries if not e.name.startswith(".") and _is(e, folders))
    except OSError as error:
        raise InputError(f"{folder} cannot be listed ({error.strerror}); {advice}") from error


def _is(entry: os.DirEntry, folder: bool) -> bool:
    try:
        return entry.is_dir() if folder else entry.is_file()
    except OSError:  # a link that leads to itself
        return False


def read_lines(path: str, advice: str) -> list[str]:
    """The lines of a text file that are not blank."""
    try:
        return [line.strip() for line in read_text(Path(path)).split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); {advice}") from error


def sha256(*paths: str | Path) -> str:
    """sha256 of the contents of one file, or of several in this order."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()


_unwritable: set[str] = set()


def store_text(path: Path, text: str, what: str) -> bool:
    """Writes a file whole or not at all; on a read-only or full disk says so, once a folder, and returns False."""
    try:
        write_text(path, text)
        return True
    except OSError as error:
        if str(path.parent) not in _unwritable:
            _unwritable.add(str(path.parent))
            print(f"{path.parent} cannot be written to ({os.strerror(error.errno)}): {what} is not stored")
        return False


def read_json(path: str, advice: str) -> Any:
    """A JSON file's content."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error}); {advice}") from error


def read_mat(path: str, advice: str) -> dict[str, Any]:
    """A MATLAB file's content."""
    from scipy.io import loadmat  # slow to import, and needed for two new splits only

    try:
        return loadmat(path)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} cannot be read ({error}); {advice}") from error
