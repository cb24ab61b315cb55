"""All views of a run's images, encoded once and kept: what every setting of STSS is then computed from.

Letters in shapes: N images, V views, E joint space.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tlla.errors import InputError
from tlla.rules import Known
from trainers.base import ClipTrainer

from ...view_batches import view_batches


@dataclass(frozen=True)
class ViewBank:
    """Features of all views of a split's images."""

    features: Tensor  # normalised, (N, V, E), float32; read from the disk piece by piece
    labels: Tensor  # (N,), int64
    index: Tensor  # place of each image in the split, (N,), int64
    at_once: int  # images that a test takes at once

    def __len__(self) -> int:
        return -(-len(self.labels) // self.at_once)

    def batches(self) -> Iterator[tuple[Tensor, Known]]:
        """Features (B, V, E), and the index and the label of each image, one batch of a test each."""
        for start in range(0, len(self.labels), self.at_once):
            rows = slice(start, start + self.at_once)
            yield self.features[rows], Known(self.index[rows], self.labels[rows])


def view_bank(trainer: ClipTrainer, split: str, folder: Path) -> ViewBank:
    """The views of a split, encoded now or by an earlier call or test with the same images, views and image encoder.

    Args:
        trainer: Of an opened run.
        split: "val" or "test".
        folder: Where the features are kept, unless the run has kept them: 4 V E bytes an image (130 kB with 64 views
            of ViT-B/16).

    Raises:
        InputError: The split has no images, or none can be read.
    """
    tester = trainer.tester
    folder, items = Path(tester.features_folder or folder), tester.items(split)
    if not items:
        raise InputError(f"{trainer.cfg.DATASET.NAME} has no {split} images: choose the other --split")
    kept = tester.features_file(split, folder)
    if not kept.complete:
        tester.features_folder = folder
        for _ in view_batches(trainer, split):
            pass
        kept = tester.kept
    columns = [torch.from_numpy(kept.array), torch.tensor([item.label for item in items]), torch.arange(len(items))]
    good = kept.good()
    return ViewBank(*(columns if good.all() else [column[good] for column in columns]), tester.batch_size())
