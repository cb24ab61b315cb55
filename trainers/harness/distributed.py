"""Several processes, one device each, as torchrun starts them: who am I, sums and gatherings over all, who may write.

Without torchrun there is one process, and everything here is free.
"""

import datetime
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Sampler, default_collate

from tlla.arguments import one_of
from tlla.errors import InputError

BACKENDS = ("nccl", "gloo")


def join_processes(use_cuda: bool) -> None:
    """Joins the processes that torchrun has started, if it has: NCCL on GPUs, gloo on CPUs.

    The environment variable TLLA_BACKEND names another one; with gloo several processes may share a GPU.

    Raises:
        InputError: More processes on this machine than GPUs, or another backend than nccl and gloo.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or dist.is_initialized():
        return
    on_gpu = use_cuda and torch.cuda.is_available()
    backend = os.environ.get("TLLA_BACKEND", "nccl" if on_gpu else "gloo")
    one_of("TLLA_BACKEND", backend, BACKENDS)
    # A test meets the others only at its end, and they may need hours longer.
    options: dict[str, Any] = {"timeout": datetime.timedelta(days=7)}
    if on_gpu:
        local, present = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= present and backend == "nccl":
            raise InputError(
                f"torchrun has started process {local + 1} on a machine with {present} GPUs: "
                f"use --nproc-per-node {present}"
            )
        torch.cuda.set_device(local % present)
        if backend == "nccl":
            options["device_id"] = torch.device("cuda", local)
    dist.init_process_group(backend, **options)


def stop() -> None:
    """Leaves the other processes, when all are done."""
    if dist.is_initialized():
        dist.destroy_process_group()


def leave(code: int) -> None:
    """Ends this process at once after an error, if it is one of several; torchrun then ends the others.

    On GPUs leaving the group would wait for the others, which wait for this one.
    """
    if dist.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this process is the one that prints and writes."""
    return rank() == 0


def sum_over_processes(tensors: list[Tensor]) -> list[Tensor]:
    """The sums over all processes, in one message."""
    if world_size() == 1:
        return tensors
    flat = torch.cat([t.detach().flatten() for t in tensors])
    dist.all_reduce(flat)
    return [part.view_as(t) for part, t in zip(flat.split([t.numel() for t in tensors]), tensors, strict=True)]


def sum_gradient(gradient: Tensor) -> Tensor:
    """The sum over all processes."""
    return sum_over_processes([gradient])[0]


def share(rows: Sequence) -> Sequence:
    """This process's rows: every world_size()-th, perhaps none."""
    return rows[rank() :: world_size()]


def gather_rows(own: Tensor, total: int) -> Tensor:
    """All `total` rows, of which each process has its share; gradients flow to its own rows alone."""
    if world_size() == 1:
        return own
    size = -(-total // world_size())
    padded = own.new_zeros(size, *own.shape[1:])
    padded[: len(own)] = own.detach()
    parts = [torch.empty_like(padded) for _ in range(world_size())]
    dist.all_gather(parts, padded)
    rows = torch.stack(parts, dim=1).flatten(0, 1)[:total]
    rows[rank() :: world_size()] = own
    return rows


def spread(rows: Sequence, function: Callable[[Any], Tensor]) -> Tensor:
    """function(rows), of which each process computes its share.

    All processes get the whole result, but each knows the derivative of its own share alone: what is computed from it
    has the same value everywhere, and its gradient is the sum over the processes.
    """
    if world_size() == 1:
        return function(rows)
    own = share(rows)
    # Where nothing is to be done, a row that nobody uses is computed: then there is a gradient, 0.
    found = function(own if len(own) else rows[:1])[: len(own)]
    return gather_rows(found, len(rows))


def wait() -> None:
    """Waits until all processes have come here."""
    if world_size() > 1:
        dist.barrier()


def gather(value: Any) -> list[Any]:
    """Every process's value, in order, on every process."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def from_first(value: Any) -> Any:
    """The first process's value, on every process."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


class SharedBatches(Sampler[list[int]]):
    """This process's share of each batch; it is empty if the batch has fewer images than there are processes."""

    def __init__(self, batches: BatchSampler):
        self.batches = batches

    def reseed(self, seed: int) -> None:
        """Lets the order depend on a seed."""
        if hasattr(self.batches.sampler, "reseed"):
            self.batches.sampler.reseed(seed)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return map(share, self.batches)


def share_loader(loader: DataLoader) -> DataLoader:
    """The same loader, for this process's share of each batch: the whole batches are those of a single process.

    Raises:
        InputError: Of another toolkit, whose order and augmentation depend on more than seed, epoch and index.
    """
    if not hasattr(loader, "stream"):
        raise InputError("training in several processes (torchrun) needs the toolkit of this repository: see toolkit/")
    return type(loader)(
        loader.dataset,
        batch_sampler=SharedBatches(loader.batch_sampler),
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
        collate_fn=collate_share,
        seed=loader.seed,
        stream=loader.stream,
        is_train=loader.is_train,
    )


def collate_share(items: list[dict]) -> dict[str, Tensor]:
    """A batch, or an empty dict of no items."""
    return default_collate(items) if items else {}
