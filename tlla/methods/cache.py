"""What online methods with a cache share: features of past images, filed by predicted class; those of low entropy stay.

The cache is TDA's (Karmanov et al., arXiv 2403.18293; kdiAAA/TDA@e697fb0, tda_runner.py, update_cache), as tensors that
are allocated once, so that a look-up is one matrix product.

Letters in shapes: V views, s kept views, K classes, E joint space.
"""

import torch
from torch import Tensor

from .base import Method


class FeatureCache:
    """At most `capacity` features for each class, sorted by their entropy, lowest first.

    Args:
        text: Class features, (K, E), which define the sizes, dtype and device.
        capacity: Features per class.
        n_values: Length of a further vector that is stored with each feature.
    """

    def __init__(self, text: Tensor, capacity: int, n_values: int = 0):
        self.keys = text.new_zeros(len(text), capacity, text.shape[1])
        self.values = text.new_zeros(len(text), capacity, n_values)
        self.entropy = text.new_full((len(text), capacity), torch.inf)  # inf: empty place

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restores what ``vars(cache)`` returned."""
        for name, own in vars(self).items():
            own.copy_(tensors[name])

    def add(self, label: int, entropy: Tensor, key: Tensor, value: Tensor | float = 0.0) -> None:
        """Adds a feature to a class; if the class is full, it replaces the highest entropy, if its own is lower."""
        place = int((self.entropy[label] <= entropy).sum())
        if place == self.entropy.shape[1]:
            return
        for stored, new in ((self.keys, key), (self.values, value), (self.entropy, entropy)):
            stored[label, place + 1 :] = stored[label, place:-1].clone()
            stored[label, place] = new

    def affinity(self, feature: Tensor, beta: float) -> Tensor:
        """exp(-beta (1 - cosine)) of a feature (E,) and each cached one, 0 for empty places: (K, capacity)."""
        return (beta * (self.keys @ feature - 1)).exp() * self.entropy.isfinite()

    def prototypes(self) -> tuple[Tensor, Tensor]:
        """The N classes with cached features, (N,), ascending, and their mean features, (N, E)."""
        count = self.entropy.isfinite().sum(dim=1)  # (K,)
        seen = count.nonzero().squeeze(1)
        return seen, self.keys[seen].sum(dim=1) / count[seen, None]


def pool_views(method: Method, features: Tensor, text: Tensor, shift: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean feature of the views that a method keeps, (E,), not normalised again, and their logits, (s, K).

    Args:
        method: Chooses the views.
        features: Normalised features of one image's views, (V, E).
        text: Normalised class features, (K, E).
        shift: What the method has added to them, see `Method.choose`.

    >>> from tlla.methods import METHODS
    >>> from tlla.prompts.classifier import Classifier
    >>> method = METHODS["TDA"](top=0.5)
    >>> method.start(Classifier(torch.eye(2), 100.0))
    >>> pool_views(method, torch.tensor([[1.0, 0.0], [0.6, 0.8]]), torch.eye(2))
    (tensor([1., 0.]), tensor([[100.,   0.]]))
    """
    logits = method.classifier.scale * features @ text.T
    kept = method.choose(features[None], logits[None], shift)[0]
    return features[kept].mean(dim=0), logits[kept]
