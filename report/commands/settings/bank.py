"""All views of a run's images, encoded once and kept: what every setting of STSS is then computed from.

Letters in shapes: N images, V views, E joint space.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tlla.errors import InputError
from trainers.base import ClipTrainer

from ...view_batches import view_batches


@dataclass(frozen=True)
class ViewBank:
    """Features of all views of a split's images."""

    features: Tensor  # normalised, (N, V, E), float32; read from the disk piece by piece
    labels: Tensor  # (N,), int64
    at_once: int  # images that a test takes at once

    def __len__(self) -> int:
        return -(-len(self.labels) // self.at_once)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Features (B, V, E) and labels (B,), one batch of a test each."""
        return zip(self.features.split(self.at_once), self.labels.split(self.at_once), strict=True)


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
    features, labels = torch.from_numpy(kept.array), torch.tensor([item.label for item in items])
    good = kept.good()
    return ViewBank(*((features, labels) if good.all() else (features[good], labels[good])), tester.batch_size())
