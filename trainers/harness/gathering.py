"""Images that wait until their method has as many as it predicts together, whatever the batches of the test."""

from collections.abc import Iterator

import torch
from torch import Tensor

Images = tuple[Tensor, Tensor, Tensor, Tensor]  # index (B,), label (B,), features (B, V, E), pixels or (B, V, 0)


class Gathering:
    """A queue of images; groups of `size` leave it in its order, so that the loader's batches change no result.

    Args:
        size: Images of a group.
    """

    def __init__(self, size: int):
        self.size = size
        self.waiting: Images | None = None

    def add(self, *images: Tensor) -> None:
        """Appends index, label, features and pixels of a batch."""
        before = self.waiting or tuple(values[:0] for values in images)
        self.waiting = tuple(torch.cat(pair) for pair in zip(before, images, strict=True))  # type: ignore[assignment]

    def full(self, last: bool) -> Iterator[Images]:
        """Takes the groups that are complete; after the last batch also what is left."""
        while self.waiting and len(self.waiting[0]) >= (1 if last else self.size):
            group, self.waiting = zip(*((v[: self.size], v[self.size :]) for v in self.waiting), strict=True)
            yield group

    def move(self, device: torch.device) -> None:
        """Puts what an earlier process has left where a test expects it: the index stays on the CPU."""
        if self.waiting:
            self.waiting = self.waiting[0], *(values.to(device) for values in self.waiting[1:])  # type: ignore[assignment]
