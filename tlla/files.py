"""Files that are written whole or not at all, by any number of processes at once, and texts as Windows writes them."""

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
    """Writes a text file whole or not at all.

    >>> write_text(Path("runs/note.txt"), "done")
    >>> Path("runs/note.txt").read_text()
    'done'
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all.

    >>> write_bytes(Path("runs/data.bin"), b"done")
    >>> Path("runs/data.bin").read_bytes()
    b'done'
    """
    try:
        with whole_file(path) as part:
            part.write_bytes(data)
    except OSError as error:  # that of a full disk names no file
        raise OSError(error.errno, f"{error.strerror or error}: it cannot be written", str(path)) from error


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """The name of a file beside `path`, this process's own, that takes its place when the block has ended well.

    >>> with whole_file(Path("names.txt")) as part: _ = part.write_text("cat")
    >>> Path("names.txt").read_text()
    'cat'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A process's number could be another's on a shared disk; a name may be as long as names can be.
    part = path.with_name(f".{path.name[:50]}.{uuid.uuid4().hex[:12]}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def read_text(path: str | os.PathLike[str], errors: str = "strict") -> str:
    """A text file's content: UTF-8, or UTF-16 with a byte order mark, as Excel, Notepad and PowerShell write it.

    Args:
        path: The file.
        errors: What is done about other bytes, as of ``bytes.decode``.

    Raises:
        OSError: It cannot be read.
        UnicodeDecodeError: It is neither.

    >>> _ = Path("names.txt").write_text("größer", encoding="utf-16")
    >>> read_text("names.txt")
    'größer'
    """
    data = Path(path).read_bytes()
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if marked else "utf-8-sig", errors)


def read_dict(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None if there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def to_csv(rows: Iterable[Iterable[Any]]) -> str:
    """Rows of cells, the header first, as CSV; lines end with a newline alone."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Of all processes that make the same file or folder one is inside; the others wait, then find what it has made.

    The lock is a hidden file beside `path`, which stays; it is free again when its process ends, however that ends.

    >>> with one_at_a_time(Path("data/emoji")): print("only this process downloads")
    only this process downloads
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        print(f"Waiting for another process, which makes {path}", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
