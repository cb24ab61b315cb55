"""Files that are written whole or not at all, and texts in the encodings that programs on Windows write."""

import codecs
import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    except OSError as error:  # that of a full disk names no file
        raise OSError(error.errno, f"{error.strerror or error}: it cannot be written", str(path)) from error
    finally:
        part.unlink(missing_ok=True)


def read_text(path: str | os.PathLike[str]) -> str:
    """A text file's content: UTF-8, or UTF-16 with a byte order mark, as Excel, Notepad and PowerShell write it.

    Raises:
        OSError: It cannot be read.
        UnicodeDecodeError: It is neither.
    """
    data = Path(path).read_bytes()
    return data.decode("utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig")
