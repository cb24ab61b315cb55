"""All views of a run's images, in the batches of a test."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from tlla.errors import InputError
from tlla.workers import fit_workers
from trainers.base import ClipTrainer
from trainers.harness.batches import GuardedDataset, collate, timed
from trainers.harness.entries import Meter


def view_batches(trainer: ClipTrainer, split: str) -> Iterator[tuple[dict[str, Any], Tensor]]:
    """Each batch of images that can be read, in the order of the split, and the features of their views, (B, V, E).

    Args:
        trainer: Of an opened run with a test-time method.
        split: "val" or "test".

    Raises:
        InputError: None of the images can be read.
    """
    tester, cfg, seen = trainer.tester, trainer.cfg, 0
    dataset = GuardedDataset(tester.dataset(split), cfg.TEST.SKIP_BAD_IMAGES)
    workers = cfg.DATALOADER.NUM_WORKERS
    loader = fit_workers(DataLoader(dataset, tester.batch_size(), num_workers=workers, collate_fn=collate))
    tester.start()
    shared, unreadable = Meter(trainer.device), set()
    with tqdm(total=len(dataset), unit="img", desc=f"{cfg.DATASET.NAME} {split}") as bar:
        for batch, bad in timed(loader, shared, trainer.device):
            if batch:
                with shared:
                    features = tester.prepare(batch).features()
                yield batch, features
                seen += len(batch["label"])
            unreadable |= {index for index, _ in bad}
            bar.update(len(bad) + (len(batch["label"]) if batch else 0))
    if not seen:
        raise InputError(f"none of the {split} images of {cfg.DATASET.NAME} can be read")
    shared.seconds = shared.lap()
    tester.passed(shared, unreadable)
