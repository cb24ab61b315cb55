"""Files that are written whole or not at all, and texts of whatever editor."""

import codecs
import os
from pathlib import Path

UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_text(path: Path, errors: str = "strict") -> str:
    """Reads UTF-8, or UTF-16 if its mark says so, as Windows' PowerShell and Excel write it.

    Args:
        path: The file.
        errors: As of ``bytes.decode``.

    Raises:
        OSError: It cannot be read.
        UnicodeDecodeError: It is neither.
    """
    data = path.read_bytes()
    text = data.decode("utf-16" if data.startswith(UTF16) else "utf-8-sig", errors)
    return text.replace("\r\n", "\n").replace("\r", "\n")


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
