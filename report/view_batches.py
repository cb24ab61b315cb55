"""All views of a run's images, in the batches of a test."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from tqdm import tqdm

from trainers.base import ClipTrainer
from trainers.harness.entries import Meter
from trainers.harness.first_pass import encoded_batches


def view_batches(trainer: ClipTrainer, split: str) -> Iterator[tuple[dict[str, Any], Tensor]]:
    """Each batch of images that can be read, in the order of the split, and the features of their views, (B, V, E).

    Args:
        trainer: Of an opened run with a test-time method.
        split: "val" or "test".

    Raises:
        InputError: None of the images can be read.
    """
    trainer.tester.start()
    n_images, title = len(trainer.tester.items(split)), f"{trainer.cfg.DATASET.NAME} {split}"
    with tqdm(total=n_images, unit="img", desc=title) as bar:
        for batch, features in encoded_batches(trainer, split, Meter(trainer.device)):
            yield batch, features
            bar.update(len(features))
