"""Passes over a test set that encode its views, beside the test's own: before it, and in `report`."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from tlla.errors import InputError
from tlla.precision import float32_products

from .batches import GuardedDataset, batch_loader, timed
from .entries import Entry, Meter


def encoded_batches(trainer: Any, split: str, encoding: Meter) -> Iterator[tuple[dict[str, Any], Tensor]]:
    """Each batch of images that can be read, in the dataset's order, and the features of their views, (B, V, E).

    The features are kept, if they are to be kept; `encoding` has the time at the end.

    Raises:
        InputError: None of the images can be read.
    """
    tester, unreadable = trainer.tester, set()
    dataset = GuardedDataset(tester.dataset(split), trainer.cfg.TEST.SKIP_BAD_IMAGES)
    size, total = tester.batch_size(), len(dataset)
    batches = [list(range(start, min(start + size, total))) for start in range(0, total, size)]
    loader = batch_loader(trainer.cfg, trainer.device, dataset, batches)
    for batch, bad in timed(loader, encoding, trainer.device):
        unreadable |= {index for index, _ in bad}
        if batch:
            with encoding:
                features = tester.prepare(batch).features()
            yield batch, features
    if len(unreadable) == total:
        raise InputError(f"none of the {split} images of {trainer.cfg.DATASET.NAME} can be read")
    encoding.seconds = encoding.lap()
    tester.passed(encoding, unreadable)


def read_first(trainer: Any, split: str, entries: list[Entry]) -> None:
    """Shows all images to those methods that read the test set before they predict (`Method.reads_first`).

    The time of a method's own work is its own, as that of encoding, unless the test itself is spared that.
    """
    readers = [entry for entry in entries if entry.method and entry.method.reads_first]
    if not readers:
        return
    print(f"Reading the {split} set first, for {', '.join(dict.fromkeys(e.method.title for e in readers if e.method))}")
    encoding = Meter(trainer.device)
    for _, features in encoded_batches(trainer, split, encoding):
        for entry in readers:
            with entry.meter, float32_products(trainer.device):
                entry.method.observe(features)
    if not (trainer.tester.kept and trainer.tester.kept.complete):
        for entry in readers:
            entry.meter.seconds += encoding.seconds
