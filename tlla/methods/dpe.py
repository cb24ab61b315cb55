"""DPE: text and image prototypes that evolve together from image to image (Zhang et al., arXiv 2410.12790).

Upstream: zhangce01/DPE-CLIP@fecae5a, main_dpe.py. As in that code: the confident views enter the cache and the loss,
but only the centre crop is classified, except on ImageNet-A (PREDICT_ON confident); InfoNCE goes from images to texts
only; the entropy in the condition for an update is in nats, divided by log2 K; the mean text prototypes are normalised
only where they are used. Its residuals are fp16, ours fp32; it fixes the logit scale at 100, ours is the classifier's.
Its class features also use sentences by GPT-3 (CuPL); ours are the classifier's.

The authors tuned alpha, beta, lr and align on each test set (configs/trainers/DPE); the defaults are ImageNet's, for
all sets.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from tlla.arguments import one_of
from tlla.methods.cache import FeatureCache, pool_views
from tlla.selection import marginal_entropy

from .base import Method, check_at_least, tune

PREDICT_ON = ("plain", "confident")
TEMPERATURE = 0.01  # InfoNCE's


@dataclass
class DPE(Method):
    """Takes one step on text and image prototypes for each image; averages the text prototypes of confident images."""

    online: ClassVar[bool] = True
    keeps_text: ClassVar[bool] = True
    needs_backprop: ClassVar[bool] = True

    alpha: float = 6.0  # weight of the image prototypes
    beta: float = 5.0  # sharpness of the similarities to them
    lr: float = 6e-4  # AdamW's learning rate for both kinds of prototypes
    align: float = 0.5  # weight of InfoNCE in the loss
    capacity: int = 3  # cached images per class
    entropy_threshold: float = 0.1  # an image with a lower entropy / log2(K) changes the text prototypes
    top: float = 0.1  # fraction of the views that is used
    predict_on: str = "plain"  # views that are classified: plain (the centre crop), confident
    rule: str = "entropy"  # which views are used, see docs/methods.md

    def __post_init__(self) -> None:
        super().__post_init__()
        names = ("alpha", "beta", "lr", "align", "entropy_threshold")
        check_at_least(0, **{name: getattr(self, name) for name in names})
        check_at_least(1, capacity=self.capacity)
        one_of("PREDICT_ON", self.predict_on, PREDICT_ON)

    def reset(self) -> None:
        """Empties the cache and forgets the evolved text prototypes."""
        self.text = self.classifier.text_features  # (K, E)
        self.n_merged = 0
        self.cache = FeatureCache(self.text, self.capacity)

    def state(self) -> dict[str, Any]:
        """The text prototypes, how many images they are the mean of, and the cache's tensors."""
        return {"text": self.text, "n_merged": self.n_merged, "cache": vars(self.cache)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores the prototypes and the cache."""
        self.text, self.n_merged = state["text"].to(self.text), state["n_merged"]
        self.cache.load(state["cache"])

    def predict_one(self, features: Tensor, text: Tensor) -> Tensor:
        """Class probabilities, (K,); adds the image to the cache and, if it is confident, to the text prototypes."""
        scale = self.classifier.scale
        pooled, kept = self._pool(features, F.normalize(self.text, dim=-1))
        self.cache.add(int(kept.mean(dim=0).argmax()), marginal_entropy(kept), pooled)
        seen, prototypes = self.cache.prototypes()

        def shifted(text_shift: Tensor, image_shift: Tensor) -> tuple[Tensor, Tensor]:
            return F.normalize(self.text + text_shift, dim=-1), F.normalize(prototypes + image_shift, dim=-1)

        def logits(feature: Tensor, text: Tensor, images: Tensor) -> Tensor:
            similarity = (self.beta * (images @ feature - 1)).exp()  # (N,)
            return (scale * text @ feature).index_add(0, seen, self.alpha * similarity)

        def loss(text_shift: Tensor, image_shift: Tensor) -> Tensor:
            text, images = shifted(text_shift, image_shift)
            info_nce = F.cross_entropy(images @ text[seen].T / TEMPERATURE, torch.arange(len(seen), device=seen.device))
            return marginal_entropy(logits(pooled, text, images)[None]) + self.align * info_nce

        shifts = [torch.zeros_like(self.text), torch.zeros_like(prototypes)]
        text, images = shifted(*tune(shifts, loss, self.lr, eps=1e-3, weight_decay=0.1))
        feature = features[0] if self.predict_on == "plain" else self._pool(features, text)[0]
        final = logits(feature, text, images)
        if marginal_entropy(final[None]) < self.entropy_threshold * math.log2(len(text)):
            self.n_merged += 1
            self.text = self.text + (text - self.text) / (self.n_merged + 1)
        return final.softmax(dim=-1)

    def _pool(self, features: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        return pool_views(self, features, text, text - self.classifier.text_features)
