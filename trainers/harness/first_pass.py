"""The first pass over a test set, for methods that read it before they predict (`Method.reads_first`)."""

from typing import Any

from tlla.precision import float32_products

from .batches import GuardedDataset, batch_loader, timed
from .entries import Entry, Meter


def read_first(trainer: Any, split: str, entries: list[Entry]) -> None:
    """Shows all images to those methods, in the dataset's order; keeps the features, if they are to be kept.

    The time of a method's own work is its own, as that of encoding, unless the test itself is spared that.
    """
    readers = [entry for entry in entries if entry.method and entry.method.reads_first]
    if not readers:
        return
    print(f"Reading the {split} set first, for {', '.join(dict.fromkeys(e.method.title for e in readers if e.method))}")
    tester, encoding, unreadable = trainer.tester, Meter(trainer.device), set()
    dataset = GuardedDataset(tester.dataset(split), trainer.cfg.TEST.SKIP_BAD_IMAGES)
    size, total = tester.batch_size(), len(dataset)
    batches = [list(range(start, min(start + size, total))) for start in range(0, total, size)]
    loader = batch_loader(trainer.cfg, trainer.device, dataset, batches)
    for batch, bad in timed(loader, encoding, trainer.device):
        unreadable |= {index for index, _ in bad}
        if not batch:
            continue
        with encoding:
            features = tester.prepare(batch).features()
        for entry in readers:
            with entry.meter, float32_products(trainer.device):
                entry.method.observe(features)
    encoding.seconds = seconds = encoding.lap()
    if not tester.passed(encoding, unreadable) and not (tester.kept and tester.kept.complete):
        for entry in readers:
            entry.meter.seconds += seconds
