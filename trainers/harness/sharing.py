"""Loading a batch in several processes: each loads its share of the images."""

from collections.abc import Iterator

from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Sampler, default_collate

from tlla.errors import InputError

from . import distributed


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
        return map(distributed.share, self.batches)


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
        collate_fn=collate,
        seed=loader.seed,
        stream=loader.stream,
        is_train=loader.is_train,
    )


def collate(items: list[dict]) -> dict[str, Tensor]:
    """A batch, or an empty dict of no items."""
    return default_collate(items) if items else {}
