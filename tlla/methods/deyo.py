"""DeYO: entropy minimisation on images that look otherwise once their patches are shuffled (Lee et al., ICLR 2024).

arXiv 2403.07366. Upstream: Jhyun17/DeYO@3d7d289, methods/deyo.py; settings for a ViT as in main.py and exp_deyo.sh. As
there, a batch is predicted with what earlier batches have taught, then one step of SGD is taken on it. An image takes
part if its entropy is below `margin` ln K, and if the probability of its class falls by more than `plpd` once its
patches are shuffled; images of low entropy and of a large fall weigh more. Batch norms use the statistics of each
batch. For a ResNet with them the authors have a learning rate of 0.00025 and plpd 0.3. Differences:
- The thresholds are fractions of ln K, not of ln 1000, as in the ports to CLIP (mariodoebler/test-time-adaptation,
  walawalagoose/TTABC); these also tune the final norm, and the latter predicts anew after the step.
- Permutations come from the seed and the image's place in the stream.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tlla.errors import InputError
from tlla.prompts.classifier import Classifier
from tlla.selection import entropy

from .base import Method, check_at_least
from .norm_layers import NormLayers

MOMENTUM = 0.9  # of SGD


@dataclass
class DeYO(Method):
    """Adapts the image encoder's norm layers, from batch to batch, to images that are recognised by their shape."""

    needs_backprop: ClassVar[bool] = True
    needs_images: ClassVar[bool] = True
    online: ClassVar[bool] = True
    in_batches: ClassVar[bool] = True
    uses_views: ClassVar[bool] = False
    needs_dataset: ClassVar[str] = "batches of images that are predicted together"

    batch: int = 64  # images that are predicted together, then learned from
    lr: float = 1e-3  # SGD's learning rate; the authors' for a ViT is 1e-3 * batch / 64
    margin: float = 0.5  # an image is learned from if its entropy is below this fraction of ln K
    e0: float = 0.4  # fraction of ln K: the lower an entropy is below it, the more an image weighs
    plpd: float = 0.2  # by how much the probability of an image's class must fall at least with shuffled patches
    patches: int = 4  # along each side

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(1, batch=self.batch, patches=self.patches)
        check_at_least(0, lr=self.lr, margin=self.margin, e0=self.e0)
        check_at_least(-1, plpd=self.plpd)

    def start(self, classifier: Classifier, seed: int = 0) -> None:
        """Refuses a classifier without an image encoder, or with one that has nothing to tune."""
        self.norms = NormLayers(classifier, "DeYO", batch_statistics=True)
        self.unit = math.log(len(classifier.text_features))
        super().start(classifier, seed)

    def reset(self) -> None:
        """Returns to the encoder as it was."""
        self.seen = 0
        self.tuned = {name: p.detach().clone() for name, p in self.norms.initial.items()}
        self.velocity = {name: torch.zeros_like(p) for name, p in self.tuned.items()}

    def state(self) -> dict[str, Any]:
        """How many images have passed, the tuned parameters, and SGD's momentum."""
        return {"seen": self.seen, "tuned": self.tuned, "velocity": self.velocity}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores them."""
        self.seen = state["seen"]
        self.tuned, self.velocity = (
            {name: value.to(self.tuned[name].device) for name, value in state[part].items()}
            for part in ("tuned", "velocity")
        )

    def predict(self, features: Tensor, images: Tensor | None = None) -> Tensor:
        """Class probabilities of a batch, (B, K), then a step on it.

        Class features that depend on the image are those of the centre crop under the encoder as it was.
        """
        if images is None:
            raise InputError("DeYO adapts the image encoder: predict needs the views' pixels, not their features alone")
        pixels, text = images[:, 0], self.classifier.text(features[:, :1])
        with torch.enable_grad():
            tuned = {name: p.detach().requires_grad_() for name, p in self.tuned.items()}
            logits = self._logits(pixels, text, tuned)
            loss = self._loss(logits, pixels, text, tuned)
            gradients = None if loss is None else self.norms.gradients(loss, tuned)
        if gradients is not None:
            self._step(gradients)
        self.seen += len(images)
        return logits.detach().softmax(dim=-1)

    def _logits(self, pixels: Tensor, text: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        """(N, 3, H, W) and (1 or N, K, E) -> (N, K)."""
        return self.classifier.logits(self.norms.encode(pixels, parameters)[:, None], text).squeeze(1)

    def _loss(self, logits: Tensor, pixels: Tensor, text: Tensor, tuned: dict[str, Tensor]) -> Tensor | None:
        """Mean weighted entropy of the images that are learned from; None if there is none."""
        entropies = entropy(logits)  # (B,)
        rows = (entropies.detach() < self.margin * self.unit).nonzero().squeeze(1)
        if not len(rows):
            return None
        with torch.no_grad():
            shuffled = self._shuffle(pixels, rows)
            after = self._logits(shuffled, text if len(text) == 1 else text[rows], tuned).softmax(dim=-1)
            before, label = logits[rows].softmax(dim=-1).max(dim=-1)
            fall = before - after.gather(1, label[:, None]).squeeze(1)
        entropies, chosen = entropies[rows], fall > self.plpd
        if not chosen.any():
            return None
        weight = (self.e0 * self.unit - entropies.detach()).exp() + fall.exp()
        return (entropies * weight)[chosen].mean()

    def _shuffle(self, pixels: Tensor, rows: Tensor) -> Tensor:
        """Those images, their patches in another order: (B, 3, S, S) -> (N, 3, S, S)."""
        n, size = self.patches, pixels.shape[-1]
        side = size // n
        x = _resized(pixels[rows], side * n).reshape(-1, 3, n, side, n, side)
        x = x.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)  # (N, n * n, 3, side, side)
        places = [self.seen + row for row in rows.tolist()]
        orders = np.stack([np.random.default_rng((self.seed, place)).permutation(n * n) for place in places])
        order = torch.from_numpy(orders).to(x.device)
        x = x[torch.arange(len(x), device=x.device)[:, None], order].reshape(-1, n, n, 3, side, side)
        return _resized(x.permute(0, 3, 1, 4, 2, 5).reshape(-1, 3, side * n, side * n), size)

    def _step(self, gradients: list[Tensor]) -> None:
        for (name, parameter), gradient in zip(self.tuned.items(), gradients, strict=True):
            self.velocity[name] = MOMENTUM * self.velocity[name] + gradient
            self.tuned[name] = parameter - self.lr * self.velocity[name]


def _resized(images: Tensor, size: int) -> Tensor:
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True)
