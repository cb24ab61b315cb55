"""The norm layers of CLIP's image encoder under other weights and biases, for SAR and DeYO.

Tuned are those without the last stage of a ResNet, the last quarter of a ViT's blocks (both name the last three of
twelve) and its final norm. CLIP's ln_pre, that their ViT lacks, is in.
"""

import contextlib
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from tlla.errors import InputError
from tlla.prompts.classifier import Classifier

NORMS = (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)

Parameters = dict[str, Tensor]  # by name, in the image encoder


class NormLayers:
    """An image encoder whose norm layers' parameters are arguments; the encoder itself stays as it is.

    Args:
        classifier: Has the CLIP.
        method: Name of the method, for messages.
        batch_statistics: Whether batch norms use the mean and variance of what they are given, not those of training.

    Attributes:
        initial: The encoder's own parameters of these layers.

    Raises:
        InputError: There is no image encoder, or none with such layers.
    """

    def __init__(self, classifier: Classifier, method: str, batch_statistics: bool = False):
        if classifier.clip_model is None:
            raise InputError(f"{method} adapts the image encoder, but there is no CLIP: features alone are not enough")
        self.classifier = classifier
        self.encoder, self.dtype = classifier.clip_model.visual, classifier.clip_model.dtype
        batch_norms = [layer for layer in self.encoder.modules() if isinstance(layer, nn.BatchNorm2d)]
        self.batch_norms = batch_norms if batch_statistics else []
        self.initial = dict(norm_parameters(self.encoder))
        if not self.initial:
            raise InputError(
                f"{method} found no norm layer to adapt in the image encoder ({type(self.encoder).__name__}): "
                "it needs a ViT or a ResNet as OpenAI or open_clip build them"
            )

    def encode(self, images: Tensor, parameters: Parameters) -> Tensor:
        """Normalised features under these parameters, (N, 3, H, W) -> (N, E), in the class features' dtype."""
        with self._statistics(), self.classifier.autocast():
            found = functional_call(self.encoder, parameters, (images.type(self.dtype),))
        features = found[0] if isinstance(found, tuple) else found  # CoCa also returns its tokens
        return F.normalize(features.to(self.classifier.text_features.dtype), dim=-1)

    @contextlib.contextmanager
    def _statistics(self) -> Iterator[None]:
        """Batch norms by the batch, without a trace in the stored statistics."""
        before = [(layer.training, layer.track_running_stats) for layer in self.batch_norms]
        try:
            for layer in self.batch_norms:
                layer.training, layer.track_running_stats = True, False
            yield
        finally:
            for layer, values in zip(self.batch_norms, before, strict=True):
                layer.training, layer.track_running_stats = values

    def gradients(self, loss: Tensor, parameters: Parameters) -> list[Tensor] | None:
        """Gradients of a scalar; None if they overflow in fp16: then there is no step, as with a gradient scaler."""
        scale = self.classifier.loss_scale
        gradients = torch.autograd.grad(loss * scale, list(parameters.values()))
        if not torch.stack([g.isfinite().all() for g in gradients]).all():
            return None
        return [g / scale for g in gradients]


def norm_parameters(encoder: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of the weights and biases that are tuned in the norm layers of CLIP's image encoder.

    Empty unless it is a ViT or a ResNet as OpenAI and open_clip build them, where it is known which layers to skip.

    >>> [name for name, _ in norm_parameters(model.visual)][:2]
    ['bn1.weight', 'bn1.bias']
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
