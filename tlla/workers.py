"""Worker processes of data loaders: how they stop, and how they send batches if shared memory is small."""

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

SHARED_MEMORY = Path("/dev/shm")  # on Linux; elsewhere shared memory has no separate limit


def _leave_stopping_to_parent(worker_id: int) -> None:
    """Initialises a worker: Ctrl-C and a scheduler's SIGTERM reach all processes at once, but the parent decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    for number in STOPS:
        signal.signal(number, lambda *_: os._exit(0))  # torch raises an error in the parent for any other exit

    def quiet(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if not issubclass(kind, (OSError, EOFError)):  # when the parent ends while it receives a tensor
            sys.__excepthook__(kind, error, trace)

    sys.excepthook = quiet


def fit_workers(loader: DataLoader[Any]) -> DataLoader[Any]:
    """Makes a loader's workers end quietly, and send batches through pipes if shared memory is full.

    All loaders of this project use this. The batches are the same either way. Returns the loader.

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
    """A loader's own collate function, except in a worker whose batch does not fit into shared memory.

    Torch passes tensors through /dev/shm. A container has 64 MB of it, and a batch of views needs hundreds.
    """

    def __init__(self, collate: Callable[[list[Any]], Any]):
        self.collate = collate

    def __call__(self, items: list[Any]) -> Any:
        worker = get_worker_info()
        if worker is None or not SHARED_MEMORY.is_dir():
            return self.collate(items)
        # Each worker may be about to write a batch; twice that, as other programs use shared memory, too.
        if 2 * worker.num_workers * _n_bytes(items) <= shutil.disk_usage(SHARED_MEMORY).free:
            return self.collate(items)
        return _Parcel(self.collate, items)


class _Parcel:
    """Items sent through a pipe; the receiver collates them into the batch."""

    def __init__(self, collate: Callable[[list[Any]], Any], items: list[Any]):
        self.content = collate, pickle.dumps(items)  # the standard pickle copies tensors; torch's would share them

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpack, self.content


def _unpack(collate: Callable[[list[Any]], Any], items: bytes) -> Any:
    _note_once()
    return collate(pickle.loads(items))


@cache
def _note_once() -> None:
    total = shutil.disk_usage(SHARED_MEMORY).total / 1e6
    print(
        f"note: {SHARED_MEMORY} ({total:,.0f} MB) is too small for the batches of all workers: they are sent "
        "through pipes, which is slower (enlarge it by docker run --shm-size)",
        file=sys.stderr,
    )


def _n_bytes(items: Any) -> int:
    if isinstance(items, Tensor):
        return items.numel() * items.element_size()
    if isinstance(items, dict):
        items = list(items.values())
    return sum(map(_n_bytes, items)) if isinstance(items, (list, tuple)) else 0
