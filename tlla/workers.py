"""Processes that load batches: how they are stopped, and how a batch leaves them where shared memory is small."""

import os
import pickle
import shutil
import signal
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info

from .command_line import STOPS

SHARED_MEMORY = Path("/dev/shm")  # Linux's; elsewhere it has no limit of its own


def _leave_stopping_to_parent(worker_id: int) -> None:
    """For a loader's workers: a terminal's Ctrl-C and a scheduler's SIGTERM come to all processes at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    for number in STOPS:
        signal.signal(number, lambda *_: os._exit(0))  # of another end torch would make an error in the parent

    def quiet(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if not issubclass(kind, (OSError, EOFError)):  # of a parent that left while it was handed a tensor
            sys.__excepthook__(kind, error, trace)

    sys.excepthook = quiet


def fit_workers(loader: DataLoader[Any]) -> DataLoader[Any]:
    """Makes the workers of any loader end quietly, and send batches by another way while shared memory has no room.

    Every loader of this project passes here. The batches are the same either way. Returns the loader.

    >>> loader = fit_workers(DataLoader([1, 2, 3], batch_size=2))
    >>> list(loader)
    [tensor([1, 2]), tensor([3])]
    """
    if loader.worker_init_fn is None:
        loader.worker_init_fn = _leave_stopping_to_parent
    if not isinstance(loader.collate_fn, _Collate):
        loader.collate_fn = _Collate(loader.collate_fn)
    return loader


class _Collate:
    """A loader's own collate function, but in a worker whose batch would not fit into shared memory.

    Torch hands tensors over in /dev/shm. A container has 64 MB of it, and a batch of views takes hundreds.
    """

    def __init__(self, collate: Callable[[list[Any]], Any]):
        self.collate = collate

    def __call__(self, items: list[Any]) -> Any:
        worker = get_worker_info()
        if worker is None or not SHARED_MEMORY.is_dir():
            return self.collate(items)
        # Each worker may be about to put a batch there; twice that, as other programs use it, too.
        if 2 * worker.num_workers * _n_bytes(items) <= shutil.disk_usage(SHARED_MEMORY).free:
            return self.collate(items)
        return _Parcel(self.collate, items)


class _Parcel:
    """Items on their way through a pipe; what arrives is the batch, put together there."""

    def __init__(self, collate: Callable[[list[Any]], Any], items: list[Any]):
        self.content = collate, pickle.dumps(items)  # the common pickle, which copies; torch's own one shares

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpack, self.content


def _unpack(collate: Callable[[list[Any]], Any], items: bytes) -> Any:
    _note_once()
    return collate(pickle.loads(items))


@cache
def _note_once() -> None:
    total = shutil.disk_usage(SHARED_MEMORY).total / 1e6
    print(
        f"note: {SHARED_MEMORY} ({total:,.0f} MB) has too little room for the batches of all workers: they come "
        "through pipes, which is slower (a container's --shm-size enlarges it)",
        file=sys.stderr,
    )


def _n_bytes(items: Any) -> int:
    if isinstance(items, Tensor):
        return items.numel() * items.element_size()
    if isinstance(items, dict):
        items = list(items.values())
    return sum(map(_n_bytes, items)) if isinstance(items, (list, tuple)) else 0
