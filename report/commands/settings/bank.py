"""All views of a run's images, encoded once and kept: what every setting of STSS is then computed from.

Letters in shapes: N images, V views, E joint space.
"""

import io
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from tlla.errors import InputError
from tlla.files import write_bytes
from tlla.fingerprint import key_of
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
    """The views of a split, encoded now or by an earlier call with the same images, views and image encoder.

    Args:
        trainer: Of an opened run.
        split: "val" or "test".
        folder: Where the features are kept: 4 V E bytes an image (130 kB with 64 views of ViT-B/16).

    Raises:
        InputError: The split has no images, or none can be read.
    """
    if not getattr(trainer.dm.dataset, split):
        raise InputError(f"{trainer.cfg.DATASET.NAME} has no {split} images: choose the other --split")
    file = folder / f"{trainer.cfg.DATASET.NAME}_{split}_{_key(trainer, split)}.pt"
    if not file.is_file():
        buffer = io.BytesIO()
        torch.save(_encode(trainer, split), buffer)
        write_bytes(file, buffer.getvalue())
    kept = torch.load(file, weights_only=True, mmap=True)
    return ViewBank(kept["features"], kept["labels"], kept["index"], trainer.tester.batch_size())


def _key(trainer: ClipTrainer, split: str) -> str:
    """Fingerprint of all that can change a feature."""
    return key_of(
        {
            "images": trainer.tester.images_key(split),
            "code": trainer.tester.code_key,
            "views": asdict(trainer.tester.config),
            "how": {name: trainer.tester.node[name] for name in ("VIEW_BATCH", "ON_DEVICE")},
            "skip": trainer.cfg.TEST.SKIP_BAD_IMAGES,
        }
    )


def _encode(trainer: ClipTrainer, split: str) -> dict[str, Tensor]:
    """Features, labels and indices of all images that can be read, on the CPU."""
    found = [(features.cpu(), batch["label"], batch["index"]) for batch, features in view_batches(trainer, split)]
    columns = zip(("features", "labels", "index"), zip(*found, strict=True), strict=True)
    return {name: torch.cat(values) for name, values in columns}
