"""SAR: sharpness-aware, reliable entropy minimisation, one image at a time (Niu et al., arXiv 2302.12400, eq. 2-5).

Upstream: mr-eggplant/SAR@20f6e24, sar.py and sam.py, an online method on batches. TLLA's paper (arXiv 2501.18864)
compares with "SAR (single sample)" and does not say how a single image makes a batch. Our reading:
- The batch is the image's most confident views, and everything is as before after each image. Then SAR's restart, for
  when the moving average of the entropy collapses, has nothing to do and is left out.
- The prediction is the adapted encoder's on the centre crop. SAR returns the logits from before the step, which would
  be no adaptation at all here.
- Tuned are weights and biases of the image encoder's norm layers, without the last stage of a ResNet, the last quarter
  of a ViT's blocks (SAR names the last three of twelve) and its final norm. CLIP's ln_pre, that SAR's ViT lacks, is in.
- Batch norm uses its stored statistics: some crops of one image are no sample of the data. SAR uses the batch's.
- The threshold is e0 times ln K, not ln 1000, as in SAR's port to CLIP (mariodoebler/test-time-adaptation@8b2ed63,
  classification/methods/sar.py); so is the learning rate. SAR's own is 0.001 * batch / 64 for a ViT and
  0.00025 for a ResNet, less for small batches.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from tlla.errors import InputError
from tlla.prompts.classifier import Classifier
from tlla.selection import confident, entropy

from .base import Tuning, check_at_least

NORMS = (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)
MOMENTUM = 0.9  # of SGD; plays no part in a single step

Parameters = dict[str, Tensor]  # by name, in the image encoder


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
        if classifier.clip_model is None:
            raise InputError("SAR adapts the image encoder, but there is no CLIP: features alone are not enough")
        self.encoder, self.dtype = classifier.clip_model.visual, classifier.clip_model.dtype
        self.initial = dict(_norm_parameters(self.encoder))
        if not self.initial:
            raise InputError(
                f"SAR found no norm layer to adapt in the image encoder ({type(self.encoder).__name__}): "
                "it needs a ViT or a ResNet as OpenAI or open_clip build them"
            )
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
        tuned = {name: p.detach().clone().requires_grad_() for name, p in self.initial.items()}
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
            loss = entropies[reliable].mean() * self.classifier.loss_scale
            gradients = torch.autograd.grad(loss, list(parameters.values()))
        if not torch.stack([g.isfinite().all() for g in gradients]).all():
            return None  # fp16 overflow: no step, as with a gradient scaler
        return [g / self.classifier.loss_scale for g in gradients], images[reliable]

    def _logits(self, images: Tensor, text: Tensor, parameters: Parameters) -> Tensor:
        """Logits with other norm parameters, of images (N, 3, H, W) and class features (K, E): (N, K)."""
        with self.classifier.autocast():
            found = functional_call(self.encoder, parameters, (images.type(self.dtype),))
        features = found[0] if isinstance(found, tuple) else found  # CoCa also returns its tokens
        return self.classifier.logits(F.normalize(features.to(text.dtype), dim=-1), text)


def _norm_parameters(encoder: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of the weights and biases that SAR tunes in the norm layers of CLIP's image encoder.

    Empty unless it is a ViT or a ResNet as OpenAI and open_clip build them, where it is known which layers to skip.
    """
    layers = dict(encoder.named_modules())
    blocks = list(layers.get("transformer.resblocks", nn.Module()).children())
    if not blocks and "layer4" not in layers:
        return
    skipped = [f"transformer.resblocks.{i}" for i in range(len(blocks) * 3 // 4, len(blocks))]
    skipped += ["layer4", "ln_post"]
    for layer_name, layer in layers.items():
        if isinstance(layer, NORMS) and not any(f"{layer_name}.".startswith(f"{name}.") for name in skipped):
            yield from ((f"{layer_name}.{name}", p) for name, p in layer.named_parameters())
