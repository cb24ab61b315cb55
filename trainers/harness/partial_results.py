"""The batches of a test that are done, on disk, so that a killed test goes on where it was.

A test is divided into numbered batches, always the same ones. Their results are written every now and then as a shard,
whole or not at all, named by its content's sha256; a shard that does not match its name is computed again. The folder's
name holds the fingerprint of all that can change a result, so that shards of other settings are never read.
"""

import contextlib
import hashlib
import io
import itertools
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tlla.files import write_bytes

KEPT_STATES = 2  # the newest, and one in case it is damaged: a method with matrices for each class keeps 1 GB


class PartialResults:
    """Results by batch number.

    Args:
        folder: Of the run.
        name: Of the test and its settings, e.g. "test-<fingerprint>"; the shards go to <folder>/shards/<name>/.
        save_every: Seconds between two shards; 0 writes one for every batch.
        get_state: For batches that depend on those before: gives what the next ones need. Then only an unbroken
            beginning counts as done.

    Attributes:
        done: batch number -> result, a dict of tensors and plain values.
        state: The state after `done`, if an earlier process has left one.
        sums: Tensors that are added up over the batches in `done`, as they are too large to be kept of each.
    """

    def __init__(self, folder: Path, name: str, save_every: float, get_state: Callable[[], Any] | None = None):
        self.folder = folder / "shards" / name
        self.save_every = save_every
        self.get_state = get_state
        self.done: dict[int, dict[str, Any]] = {}
        self.state: Any = None
        self.sums: list[Tensor] = []
        self._fresh: dict[int, dict[str, Any]] = {}
        self._fresh_sums: tuple[int, list[Tensor]] = (0, [])  # of the first so many of `_fresh`
        self._saved_at = time.monotonic()

    def load(self) -> None:
        """Reads what an earlier process has left."""
        shards = [shard for path in sorted(self.folder.glob("*.pt")) if (shard := _read(path))]
        shards.sort(key=lambda shard: min(shard["batches"]))
        for shard in self._with_state(shards) if self.get_state else shards:
            if self.done.keys().isdisjoint(shard["batches"]):  # else two processes have tested the same: sum once
                self.done.update(shard["batches"])
                self.sums = added_up(self.sums, shard["sums"])

    def _with_state(self, shards: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The unbroken beginning up to the newest state, which is set; what has come after it is tested again."""
        begins, count = [], 0
        for shard in shards:
            if min(shard["batches"]) == count:
                begins.append(shard)
                count += len(shard["batches"])
        for path in sorted(self.folder.glob("*.state"), reverse=True):
            number = int(path.stem.partition("-")[0])
            if any(max(shard["batches"]) == number - 1 for shard in begins) and (found := _read(path)):
                self.state = found["state"]
                return [shard for shard in begins if max(shard["batches"]) < number]
        return []

    def add(self, number: int, result: dict[str, Any]) -> None:
        """Takes a batch's result, of which the entry "sums" is added up; the state must be that after it."""
        sums = added_up(self._fresh_sums[1], result.pop("sums", []))
        self.done[number] = self._fresh[number] = result
        self._fresh_sums = (len(self._fresh), sums)  # at once: a process that is stopped writes what belongs together
        if time.monotonic() - self._saved_at >= self.save_every:
            self.flush()

    def flush(self) -> None:
        """Writes what is not on disk yet."""
        number, sums = self._fresh_sums
        if not number:
            return
        batches, sums = dict(itertools.islice(self._fresh.items(), number)), [x.cpu() for x in sums]
        self._write(min(batches), ".pt", {"batches": batches, "sums": sums})
        if self.get_state:
            self._write(max(batches) + 1, ".state", {"state": self.get_state()})
            for path in sorted(self.folder.glob("*.state"))[:-KEPT_STATES]:
                path.unlink(missing_ok=True)
        self.sums = added_up(self.sums, sums)
        self._fresh, self._fresh_sums = {}, (0, [])
        self._saved_at = time.monotonic()

    def _write(self, number: int, suffix: str, content: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(content, buffer)
        data = buffer.getvalue()
        write_bytes(self.folder / f"{number:07d}-{hashlib.sha256(data).hexdigest()[:32]}{suffix}", data)

    def others(self) -> list[Path]:
        """What tests of the same split under other settings have left when they were cut."""
        split = self.folder.name.partition("-")[0]
        return sorted(path for path in self.folder.parent.glob(f"{split}-*") if path != self.folder)

    def remove(self) -> None:
        """Removes the shards of this test; those of other settings stay, for the day when these are wanted again."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # it does not exist, or is not empty
            self.folder.parent.rmdir()


def added_up(first: list[Tensor], second: list[Tensor]) -> list[Tensor]:
    """The sums of two lists of tensors, one of which may be empty."""
    return [a + b for a, b in zip(first, second, strict=True)] if first and second else first or second


def _read(path: Path) -> dict[str, Any] | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:  # another process has completed this test meanwhile
        return None
    if hashlib.sha256(data).hexdigest()[:32] != path.stem.partition("-")[2]:
        print(f"The shard {path} is damaged; its images are computed again")
        os.remove(path)
        return None
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
