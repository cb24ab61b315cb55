"""Rows on disk while a run is going on, so that a stopped or killed run can resume."""

import json
import os
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import write_bytes
from ..fingerprint import key_of
from .rows import Row, json_line


class Journal:
    """A file of JSON lines beside the result, flushed after each batch.

    Its name holds a fingerprint of everything that can change a row, so that rows of other settings are not used.

    Args:
        target: The result's file; None: nothing is saved.
        everything: Everything that can change a row, as plain values.
        batch_size: Rows per batch. An incomplete batch is predicted again.
        fresh: Whether to discard earlier rows.

    Attributes:
        rows: All rows, including those of an earlier run.
        path: The file; None if nothing is saved.
    """

    def __init__(self, target: Path | None, everything: Any, batch_size: int, fresh: bool = False):
        self.rows: list[Row] = []
        self.path: Path | None = None
        if target is None:
            return
        if target.is_dir():
            raise InputError(f"{target} is a folder: name a file")
        self.path = target.with_name(f"{target.name}.{key_of(everything)}.part")
        lines = _whole_lines(self.path) if not fresh and self.path.is_file() else []
        lines = lines[: len(lines) - len(lines) % batch_size]
        self.rows = [json.loads(line) for line in lines]
        write_bytes(self.path, b"".join(lines))

    def append(self, rows: list[Row]) -> None:
        """Adds the rows of a batch and flushes them to the disk."""
        self.rows += rows
        if self.path is None:
            return
        try:
            with self.path.open("ab") as file:
                file.write("".join(map(json_line, rows)).encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:  # the error of a full disk names no file
            raise OSError(error.errno, f"{error.strerror}: it cannot be written", str(self.path)) from error

    def remove(self) -> None:
        """Removes the file, once the results are written."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def _whole_lines(path: Path) -> list[bytes]:
    """The lines before the first that is incomplete or not a row."""
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
