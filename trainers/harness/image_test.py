"""How images are tested, one view each: the side of a trainer that the evaluation loop asks. A trainer holds one."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

import tlla
from tlla.fingerprint import EXTRAS, files_sha256, source_sha256, versions, weights_sha256

from .entries import Entry, Meter

SOURCE = (Path(tlla.__file__).parent, Path(__file__).parents[1])  # the code that a result depends on


class ImageTest:
    """Tests the trainer's `model_inference` on plain images.

    Args:
        trainer: A ClipTrainer; what it builds is read when a test begins, not before.
    """

    def __init__(self, trainer: Any):
        self.trainer = trainer

    def describe(self) -> dict[str, Any]:
        """What is to be said otherwise in `ClipTrainer.describe_method`."""
        return {}

    def items(self, split: str) -> Sequence[Any]:
        """The *val* or *test* split as the dataset lists it: with impath and label."""
        dataset = self.trainer.dm.dataset
        return dataset.val if split == "val" else dataset.test

    def draws(self, split: str = "test") -> bool:
        """Whether the images of a split are corrupted when they are read, by the seed."""
        return hasattr(self.items(split), "corrupt")

    def images_key(self, split: str) -> list[Any]:
        """All that can change the features of a split's images, but for settings and code."""
        trainer, kept = self.trainer, self.trainer.record.content
        items = self.items(split)
        files, corrupted = files_sha256(item.impath for item in items), items.key() if self.draws(split) else []
        how = [trainer.clip_model.name, self._weights_sha256, trainer.precision, trainer.device.type]
        return [kept["split_sha256"].get(split), files, *how, kept["versions"], versions(EXTRAS), *corrupted]

    @property
    def code_key(self) -> str:
        """sha256 of the code that a result depends on: nobody resumes what other code has begun."""
        return source_sha256(*SOURCE)

    @functools.cached_property
    def _weights_sha256(self) -> str:
        return weights_sha256(self.trainer.clip_model, exact=True)  # needs a second or two for a large CLIP

    def dataset(self, split: str) -> Dataset:
        """The *val* or *test* split; items are dicts with img, label and index."""
        return (self.trainer.val_loader if split == "val" else self.trainer.test_loader).dataset

    def batch_size(self) -> int:
        """Images of a test batch."""
        return self.trainer.cfg.DATALOADER.TEST.BATCH_SIZE

    @property
    def online(self) -> bool:
        """Whether a method learns from the images in their order."""
        return False

    def order(self, split: str) -> list[int]:
        """Indices of a split's images in the order in which they are tested."""
        return list(range(len(self.items(split))))

    def warm_up(self) -> None:
        """Makes a GPU set up its kernels before anything is timed."""
        size = self.trainer.cfg.INPUT.SIZE
        self.trainer.encode_image(torch.zeros(self.batch_size(), 3, *size, device=self.trainer.device))

    def start(self) -> None:
        """Prepares what all batches of a test share."""
        self.trainer.before_test()

    def entries(self) -> list[Entry]:
        """What is tested in this pass: one entry, unless several methods share it."""
        trainer = self.trainer
        trainer.evaluator.reset()
        return [Entry(trainer.record, trainer.evaluator, Meter(trainer.device), trainer.describe_tested())]

    def prepare(self, batch: dict[str, Tensor]) -> Any:
        """What all entries need of a batch: here the images, (B, 3, H, W)."""
        return batch["img"].to(self.trainer.device, non_blocking=True)

    def probabilities(self, prepared: Any, entry: Entry) -> Tensor:
        """Class probabilities of a batch under one entry: (B, K)."""
        return self.trainer.model_inference(prepared).softmax(dim=-1)

    def passed(self, shared: Meter, unreadable: set[int]) -> dict[str, Any]:
        """Called by the first process when all images of a split have passed; returns what the records say of it.

        Args:
            shared: What all entries have shared.
            unreadable: Indices of images that could not be read.
        """
        return {}

    def unfinished(self, entries: list[Entry], split: str) -> list[Entry]:
        """Those entries that are to be tested."""
        return entries

    def finish(self, entries: list[Entry], split: str) -> None:
        """Prints or writes what concerns all entries together; the first process calls it."""
