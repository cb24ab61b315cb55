"""Listing, reading and writing files without surprises."""

import hashlib
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tlla.errors import InputError
from tlla.files import read_text, write_text
from tlla.image_files import FOLDER, HIDDEN, scan


def data_root(root: str, needs: str) -> str:
    """The absolute DATASET.ROOT. InputError if it is empty or not a folder."""
    if not root:
        raise InputError(f"DATASET.ROOT is empty; give --root, the folder that holds {needs}")
    path = os.path.abspath(os.path.expanduser(root))
    if not os.path.isdir(path):
        what = "is a file" if os.path.exists(path) else "does not exist"
        raise InputError(f"DATASET.ROOT {path} {what}; a folder that holds {needs} was expected")
    return path


def list_folders(folder: str, advice: str) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones."""
    return scan(folder, advice).get(FOLDER, [])


def list_files(folder: str, advice: str) -> list[str]:
    """Names of all that is in a folder but folders and hidden entries, sorted; also of links that lead to nothing."""
    found = scan(folder, advice)
    return sorted(name for kind, names in found.items() if kind not in (FOLDER, HIDDEN) for name in names)


@contextmanager
def _readable(path: str, advice: str) -> Iterator[None]:
    """Turns the errors of a file that is missing or of another kind into an InputError."""
    try:
        yield
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error}); {advice}") from error


def read_lines(path: str, advice: str) -> list[str]:
    """The lines of a text file that are not blank."""
    with _readable(path, advice):
        return [line.strip() for line in io.StringIO(read_text(path), newline=None) if line.strip()]


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
    with _readable(path, advice):
        return json.loads(Path(path).read_text(encoding="utf-8"))


def read_mat(path: str, advice: str) -> dict[str, Any]:
    """A MATLAB file's content."""
    from scipy.io import loadmat  # slow to import, and needed for two new splits only

    with _readable(path, advice):
        return loadmat(path)
