"""A DataLoader whose order and augmentations depend on the seed and the epoch, not on workers or on what ran before."""

import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from dassl.utils.seeding import derive_seed


def leave_stopping_to_parent(worker_id: int) -> None:
    """Makes a worker end without a word, as a terminal's Ctrl-C and a scheduler's SIGTERM come to all processes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    for name in ("SIGTERM", "SIGUSR1", "SIGUSR2"):  # Windows lacks the last two
        if hasattr(signal, name):  # of another end torch would make an error in the parent
            signal.signal(getattr(signal, name), lambda *_: os._exit(0))

    def quiet(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if not issubclass(kind, (OSError, EOFError)):  # of a parent that left while it was handed a tensor
            sys.__excepthook__(kind, error, trace)

    sys.excepthook = quiet


class SeededLoader(DataLoader):
    """Seeds its sampler and its dataset at the start of every pass.

    Args:
        seed: The run's seed.
        stream: What the images are for, such as "train_x": other streams get other numbers.
        is_train: New random numbers for each epoch, and each pass in it; else the same in every pass.
        kwargs: As of torch's DataLoader. ``reseed`` of the sampler and the batch sampler and the dataset's ``set_seed``
            are called if present.
    """

    def __init__(self, *args: Any, seed: int, stream: str = "", is_train: bool = False, **kwargs: Any):
        self.seed, self.stream, self.is_train = seed, stream, is_train
        self.epoch = self.passes = 0
        # Torch draws the workers' seeds from this one: the global generator must not depend on the loading.
        kwargs.setdefault("worker_init_fn", leave_stopping_to_parent)
        super().__init__(*args, generator=torch.Generator(), **kwargs)

    def set_epoch(self, epoch: int) -> None:
        """Says which epoch the next pass belongs to."""
        self.epoch, self.passes = epoch, 0

    def __iter__(self) -> Iterator[dict]:
        seed = derive_seed(self.seed, self.stream)
        if self.is_train:
            seed = derive_seed(seed, self.epoch, self.passes)
            self.passes += 1
        self.generator.manual_seed(seed)
        for part, name in ((self.sampler, "reseed"), (self.batch_sampler, "reseed"), (self.dataset, "set_seed")):
            if hasattr(part, name):
                getattr(part, name)(seed)
        return super().__iter__()
