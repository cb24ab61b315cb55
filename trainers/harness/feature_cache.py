"""Image features of the first training epochs, kept for the later ones, which then neither load nor encode an image."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from tlla.errors import InputError

Encode = Callable[[dict[str, Tensor]], tuple[Tensor, Tensor]]


class FeatureCache:
    """Takes the place of a training loader: epoch e sees the batches of epoch e mod n, with the same augmentation.

    What a resumed run lacks is computed again, exactly, as a batch depends on (seed, epoch) alone.

    Args:
        loader: Gives batches with images.
        encode: Makes features (B, E) and labels (B,) of a batch.
        n_epochs: n.

    Raises:
        InputError: Of another toolkit, whose loader cannot be told the epoch.
    """

    def __init__(self, loader: Any, encode: Encode, n_epochs: int):
        if not hasattr(loader, "set_epoch"):
            raise InputError("CACHE_EPOCHS needs the toolkit of this repository: see toolkit/")
        self.loader, self.encode, self.n_epochs = loader, encode, n_epochs
        self.dataset = loader.dataset
        self.number = 0
        self.kept: dict[int, list[dict[str, Tensor]]] = {}

    def set_epoch(self, epoch: int) -> None:
        """Says which epoch the next pass belongs to."""
        self.number = epoch % self.n_epochs

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return iter(self.kept[self.number]) if self.number in self.kept else self._read()

    def _read(self) -> Iterator[dict[str, Tensor]]:
        self.loader.set_epoch(self.number)
        found = []
        for batch in self.loader:
            features, labels = self.encode(batch)
            found.append({"features": features.cpu(), "label": labels.cpu()})
            yield found[-1]
        self.kept[self.number] = found
