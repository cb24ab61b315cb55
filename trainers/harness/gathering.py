"""Images that wait until their method has as many as it predicts together, whatever the batches of the test."""

from collections.abc import Iterator

import torch
from torch import Tensor

Images = tuple[Tensor, Tensor, Tensor]  # index (B,), label (B,), features (B, V, E)


class Gathering:
    """A queue of images; groups of `size` leave it in its order, so that the loader's batches change no result.

    Args:
        size: Images of a group.
    """

    def __init__(self, size: int):
        self.size = size
        self.waiting: Images | None = None

    def add(self, *images: Tensor) -> None:
        """Appends index, label and features of a batch."""
        before = self.waiting or tuple(values[:0] for values in images)
        self.waiting = tuple(torch.cat(pair) for pair in zip(before, images, strict=True))  # type: ignore[assignment]

    def full(self, last: bool) -> Iterator[Images]:
        """Takes the groups that are complete; after the last batch also what is left."""
        while self.waiting and len(self.waiting[0]) >= (1 if last else self.size):
            index, label, features = self.waiting
            self.waiting = index[self.size :], label[self.size :], features[self.size :]
            yield index[: self.size], label[: self.size], features[: self.size]

    def move(self, device: torch.device) -> None:
        """Puts what an earlier process has left where a test expects it: the index stays on the CPU."""
        if self.waiting:
            self.waiting = self.waiting[0], self.waiting[1].to(device), self.waiting[2].to(device)
