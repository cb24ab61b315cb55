"""The batches of a test: loaded in a given order, timed, with what could not be read beside what could."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, default_collate
from yacs.config import CfgNode

from tlla.workers import fit_workers

from .entries import Meter
from .move_ahead import move_ahead


def batch_loader(cfg: CfgNode, device: torch.device, dataset: Dataset, batches: Sequence[list[int]]) -> DataLoader:
    """Loads these batches of a dataset's indices."""
    return fit_workers(
        DataLoader(
            dataset,
            batch_sampler=batches,
            num_workers=cfg.DATALOADER.NUM_WORKERS,
            pin_memory=device.type == "cuda",
            collate_fn=collate,
        )
    )


def timed(loader: DataLoader, shared: Meter, device: torch.device) -> Iterator:
    """The loader's batches; the time of waiting for them is shared."""
    batches = move_ahead(iter(loader), device)
    for _ in range(len(loader)):
        with shared:
            batch = next(batches)
        yield batch


class GuardedDataset(Dataset):
    """Gives what it cannot read as (index, reason) if such images are to be skipped; else it raises, as before."""

    def __init__(self, dataset: Dataset, skip: bool):
        self.dataset = dataset
        self.skip = skip

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any] | tuple[int, str]:
        try:
            return self.dataset[index]
        except (OSError, ValueError) as error:  # of Pillow, Dassl's ImageError, InputError
            if not self.skip:
                raise
            return index, str(error)


def collate(items: list[Any]) -> tuple[dict[str, Any] | None, list[tuple[int, str]]]:
    """A batch of what could be read, or None, and (index, reason) of the rest."""
    good = [item for item in items if isinstance(item, dict)]
    bad = [item for item in items if not isinstance(item, dict)]
    if not good:
        return None, bad
    if "img" not in good[0]:  # features that were kept
        return default_collate(good), bad
    rest = default_collate([{name: value for name, value in item.items() if name != "img"} for item in good])
    images = [item["img"] for item in good]
    if "crops" in rest:  # decoded images of any size
        return {**rest, "img": images}, bad
    # Views have their channels innermost in memory, in which order they are copied 18 times as fast.
    return {**rest, "img": default_collate([image.movedim(-3, -1) for image in images]).movedim(-1, -3)}, bad
