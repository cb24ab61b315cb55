"""Rows of a long run on disk as they come, so that a run that is stopped or killed goes on where it was."""

import json
import os
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import write_bytes
from ..fingerprint import key_of
from .rows import Row, json_line


class Journal:
    """A file of JSON lines beside the result, flushed batch by batch.

    Its name holds a fingerprint of all that can change a row, so that rows of other settings are never taken.

    Args:
        target: The file that the rows are for; None: nothing is kept.
        everything: All that can change a row; plain values.
        batch_size: Rows of a batch. A batch that was cut is done again as a whole.
        fresh: Whether earlier rows are thrown away.

    Attributes:
        rows: All rows, with those of an earlier run.
        path: The file; None if nothing is kept.
    """

    def __init__(self, target: Path | None, everything: Any, batch_size: int, fresh: bool = False):
        self.rows: list[Row] = []
        self.path: Path | None = None
        if target is None:
            return
        if target.is_dir():
            raise InputError(f"{target} is a folder: give the name of a file")
        self.path = target.with_name(f"{target.name}.{key_of(everything)}.part")
        lines = _whole_lines(self.path) if not fresh and self.path.is_file() else []
        lines = lines[: len(lines) - len(lines) % batch_size]
        self.rows = [json.loads(line) for line in lines]
        write_bytes(self.path, b"".join(lines))

    def append(self, rows: list[Row]) -> None:
        """Adds the rows of a batch; when this returns they are on the disk."""
        self.rows += rows
        if self.path is None:
            return
        try:
            with self.path.open("ab") as file:
                file.write("".join(map(json_line, rows)).encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:  # that of a full disk names no file
            raise OSError(error.errno, f"{error.strerror}: it cannot be written", str(self.path)) from error

    def remove(self) -> None:
        """Removes the file: the results are written."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def _whole_lines(path: Path) -> list[bytes]:
    """The lines up to the first that was cut short or is no row."""
    whole: list[bytes] = []
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            break
        is_row = isinstance(row, dict) and row.get("index") == len(whole) and ("error" in row or "top" in row)
        if not is_row or not line.endswith(b"\n"):
            break
        whole.append(line)
    return whole
