"""SAR: sharpness-aware, reliable entropy minimisation, one image at a time (Niu et al., arXiv 2302.12400, eq. 2-5).

Upstream: mr-eggplant/SAR@20f6e24, sar.py and sam.py, an online method on batches. TLLA's paper (arXiv 2501.18864)
compares with "SAR (single sample)" and does not say how a single image makes a batch. Our reading:
- The batch is the image's most confident views, and everything is as before after each image. Then SAR's restart, for
  when the moving average of the entropy collapses, has nothing to do and is left out.
- The prediction is the adapted encoder's on the centre crop. SAR returns the logits from before the step, which would
  be no adaptation at all here.
- Tuned are the norm layers that `norm_layers.py` names.
- Batch norm uses its stored statistics: some crops of one image are no sample of the data. SAR uses the batch's.
- The threshold is e0 times ln K, not ln 1000, as in SAR's port to CLIP (mariodoebler/test-time-adaptation@8b2ed63,
  classification/methods/sar.py); so is the learning rate. SAR's own is 0.001 * batch / 64 for a ViT and
  0.00025 for a ResNet, less for small batches.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tlla.errors import InputError
from tlla.prompts.classifier import Classifier
from tlla.selection import confident, entropy

from .base import Tuning, check_at_least
from .norm_layers import NormLayers, Parameters

MOMENTUM = 0.9  # of SGD; plays no part in a single step


@dataclass
class SAR(Tuning):
    """Adapts the image encoder's norm layers to the reliable views of an image, then predicts the centre crop."""

    needs_images: ClassVar[bool] = True

    e0: float = 0.4  # a view is reliable if its entropy is below this fraction of ln K
    rho: float = 0.05  # norm of SAM's perturbation of all tuned parameters together
    lr: float = 1e-3  # SGD's learning rate

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(0, e0=self.e0, rho=self.rho)

    def start(self, classifier: Classifier, seed: int = 0) -> None:
        """Refuses a classifier without an image encoder, or with one that has nothing to tune."""
        self.norms = NormLayers(classifier, "SAR")
        self.threshold = self.e0 * math.log(len(classifier.text_features))
        super().start(classifier, seed)

    def predict(self, features: Tensor, images: Tensor | None = None) -> Tensor:
        """Class probabilities, (B, K). Class features that depend on the image are those of the centre crop."""
        if images is None:
            raise InputError("SAR adapts the image encoder: predict needs the views' pixels, not their features alone")
        text = self.classifier.text(features)
        logits = self.classifier.logits(features, text)  # (B, V, K)
        chosen = confident(logits, self.top)  # (B, s)
        rows = []
        for b, index in enumerate(chosen):
            own = text[b if len(text) > 1 else 0]  # (K, E)
            row = logits[b, 0]
            if (entropy(logits[b, index]) < self.threshold).any():  # otherwise there is no step to take
                row = self._logits(images[b, :1], own, self._adapt(images[b, index], own))[0]
            rows.append(row.softmax(dim=-1))
        return torch.stack(rows)

    def _adapt(self, images: Tensor, text: Tensor) -> Parameters:
        """Tuned parameters for the chosen views' pixels, (s, 3, H, W), and class features, (K, E)."""
        tuned = {name: p.detach().clone().requires_grad_() for name, p in self.norms.initial.items()}
        optimizer = torch.optim.SGD(tuned.values(), self.lr, MOMENTUM)
        for _ in range(self.steps):
            first = self._gradients(images, text, tuned)
            if first is None:
                break
            gradients, reliable = first
            norm = torch.stack([g.norm() for g in gradients]).norm()
            climb = zip(tuned.items(), gradients, strict=True)
            above = {n: (p + self.rho / (norm + 1e-12) * g).detach().requires_grad_() for (n, p), g in climb}
            second = self._gradients(reliable, text, above)
            if second is None:
                break
            for parameter, gradient in zip(tuned.values(), second[0], strict=True):
                parameter.grad = gradient
            optimizer.step()
        return {name: p.detach() for name, p in tuned.items()}

    def _gradients(self, images: Tensor, text: Tensor, parameters: Parameters) -> tuple[list[Tensor], Tensor] | None:
        """Gradients of the reliable views' mean entropy, and these views; None if there is no usable gradient."""
        with torch.enable_grad():
            entropies = entropy(self._logits(images, text, parameters))  # (s,)
            reliable = entropies < self.threshold
            if not reliable.any():
                return None
            gradients = self.norms.gradients(entropies[reliable].mean(), parameters)
        return None if gradients is None else (gradients, images[reliable])

    def _logits(self, images: Tensor, text: Tensor, parameters: Parameters) -> Tensor:
        """Logits with other norm parameters, of images (N, 3, H, W) and class features (K, E): (N, K)."""
        return self.classifier.logits(self.norms.encode(images, parameters), text)
