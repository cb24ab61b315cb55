"""Features of the views of a split's images on disk, so that a further test neither makes nor encodes them again.

Letters in shapes: N images, V views, E joint space.
"""

import functools
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from tlla.errors import InputError
from tlla.files import read_dict, write_text

TOLERANCE = 1e-2  # of a feature's norm, which is 1
CHUNK = 256  # images whose norms are computed at once


class KeptViews:
    """An array of features, (N, V, E) float32; it is whole, or a part file that a test is writing.

    Args:
        path: Of the whole array, .npy; its name holds the fingerprint of all that can change a feature.
        shape: N, V and E.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int]):
        self.path, self.shape = path, shape
        self.part = path.with_suffix(".part")
        self.complete = path.is_file()

    def begin(self) -> None:
        """Makes the part file, unless a test that was cut has left it.

        Raises:
            InputError: There is too little space on the disk.
        """
        header = self._header()
        size = len(header) + 4 * int(np.prod(self.shape))
        if self.part.is_file() and self.part.stat().st_size == size:
            return
        self.part.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.part.parent).free
        if free < size:
            raise InputError(
                f"{self.path} needs {size / 1e9:.1f} GB for the features of the views, but {free / 1e9:.1f} GB are "
                "free: choose another TEST.FEATURES, or none"
            )
        with self.part.open("wb") as file:
            file.write(header)
            file.truncate(size)

    def write(self, index: Tensor, features: Tensor) -> None:
        """Writes the features (B, V, E) of images (B,)."""
        start, size = len(self._header()), 4 * self.shape[1] * self.shape[2]
        if not self.part.is_file():  # another test of the same views has completed it
            return
        with self.part.open("r+b") as file:
            for i, row in zip(index.tolist(), features.float().cpu().numpy(), strict=True):
                file.seek(start + i * size)
                file.write(row.tobytes())

    def row(self, index: int) -> Tensor | None:
        """The features of an image, (V, E); None if it could not be read when they were kept."""
        features = torch.from_numpy(self.array[index])
        return features if _are_features(features) else None

    def close(self, unreadable: set[int], seconds: float, peak_mb: float) -> None:
        """Makes the part file the whole one, if it has all images but those that cannot be read.

        Args:
            unreadable: Their indices.
            seconds: Of making and encoding the views, for the records of tests that are spared it.
            peak_mb: Peak of memory meanwhile.
        """
        if not self.part.is_file():
            return
        features = torch.from_numpy(np.load(self.part, mmap_mode="c"))
        if {i for i, good in enumerate(_good(features).tolist()) if not good} <= unreadable:
            write_text(self.facts_file, json.dumps({"seconds": seconds, "peak_memory_mb": peak_mb}))
            os.replace(self.part, self.path)
            self.complete = True

    @property
    def facts_file(self) -> Path:
        """Seconds and memory of the test that kept the features."""
        return self.path.with_suffix(".json")

    def facts(self) -> dict[str, float]:
        """What `facts_file` says."""
        found = read_dict(self.facts_file) or {}
        if not {"seconds", "peak_memory_mb"} <= found.keys():
            raise self.damaged(f"{self.facts_file} does not say how long they took")
        return found

    def good(self) -> Tensor:
        """Which images have features, (N,)."""
        return _good(torch.from_numpy(self.array))

    @functools.cached_property
    def array(self) -> np.ndarray:
        """The whole array, read from the disk piece by piece."""
        try:
            array = np.load(self.path, mmap_mode="c", allow_pickle=False)
        except ValueError as error:
            raise self.damaged(str(error)) from error
        if (array.shape, array.dtype) != (self.shape, np.float32):
            raise self.damaged(f"{array.shape} {array.dtype} instead of {self.shape} float32")
        return array

    def damaged(self, what: str) -> InputError:
        """The error for a file that is not as it was written."""
        return InputError(f"the features kept in {self.path} are damaged ({what}): remove it, and run this again")

    def _header(self) -> bytes:
        buffer = io.BytesIO()
        npy.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": self.shape})
        return buffer.getvalue()


def _good(features: Tensor) -> Tensor:
    return torch.cat([_are_features(chunk) for chunk in features.split(CHUNK)])


def _are_features(features: Tensor) -> Tensor:
    """Whether all views have features of norm 1: (..., V, E) -> (...); what was not written is 0."""
    return ((features.norm(dim=-1) - 1).abs() < TOLERANCE).all(dim=-1)
