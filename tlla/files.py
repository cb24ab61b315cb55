"""Atomic writes, safe with any number of processes, and text files in the encodings that Windows writes."""

import codecs
import csv
import io
import json
import os
import sys
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically, with its folder.

    >>> write_text(Path("runs/note.txt"), "done")
    >>> Path("runs/note.txt").read_text()
    'done'
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file atomically, with its folder.

    >>> write_bytes(Path("runs/data.bin"), b"done")
    >>> Path("runs/data.bin").read_bytes()
    b'done'
    """
    try:
        with whole_file(path) as part:
            part.write_bytes(data)
    except OSError as error:  # the error of a full disk names no file
        raise OSError(error.errno, f"{error.strerror or error}: it cannot be written", str(path)) from error


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`, private to this process, that replaces it when the block ends without an error.

    >>> with whole_file(Path("names.txt")) as part: _ = part.write_text("cat")
    >>> Path("names.txt").read_text()
    'cat'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A process id may be in use on another machine that shares the disk; `path` may have the longest name allowed.
    part = path.with_name(f".{path.name[:50]}.{uuid.uuid4().hex[:12]}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def read_text(path: str | os.PathLike[str], errors: str = "strict") -> str:
    """Content of a text file: UTF-8, or UTF-16 with a byte order mark, as Excel, Notepad and PowerShell write it.

    Args:
        path: The file.
        errors: How to handle other bytes, see ``bytes.decode``.

    Raises:
        OSError: the file cannot be read.
        UnicodeDecodeError: it is in another encoding.

    >>> _ = Path("names.txt").write_text("größer", encoding="utf-16")
    >>> read_text("names.txt")
    'größer'
    """
    data = Path(path).read_bytes()
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if marked else "utf-8-sig", errors)


def read_dict(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None if there is none that can be read.

    >>> _ = Path("a.json").write_text('{"seed": 1}')
    >>> read_dict(Path("a.json")), read_dict(Path("b.json"))
    ({'seed': 1}, None)
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def to_csv(rows: Iterable[Iterable[Any]]) -> str:
    """Rows of cells, the header first, as CSV; lines end with a newline alone.

    >>> print(to_csv([["class", "images"], ["cat", 3]]), end="")
    class,images
    cat,3
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """A lock between processes that make the same file or folder: one makes it, the others wait and then find it.

    The lock is a hidden file beside `path`, which stays. It is released when its process ends, even if killed.

    >>> with one_at_a_time(Path("data/emoji")): print("only this process downloads")
    only this process downloads
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        print(f"waiting for another process, which makes {path}", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
