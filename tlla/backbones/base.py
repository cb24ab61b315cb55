"""The interface of a CLIP.

Letters in shapes: N texts or images, T text tokens, D text width, E joint space.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from ..errors import InputError
from .causal import CausalTower


class Tokenizer(Protocol):
    """Texts to tokens.

    Attributes:
        n_before: Number of special tokens before the words, such as SOS.
        n_special: Number of all special tokens of a text.
    """

    n_before: int
    n_special: int

    def encode(self, text: str) -> list[int]:
        """Tokens of the words, without special ones."""

    def __call__(self, texts: list[str]) -> Tensor:
        """Tokens with special ones and padding, (N, context length), int64; longer texts are cut."""


@dataclass(frozen=True)
class Preprocessing:
    """The images that a model expects.

    Attributes:
        size: Side of the square images in pixels.
        mean: Mean of each channel, for pixels in 0..1.
        std: Standard deviation of each channel.
        interpolation: Interpolation of the centre crop.
        resize: "shortest": resizes the short side to `size`, then takes the centre crop; others are not implemented.
    """

    size: int
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)  # OpenAI's
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
    interpolation: str = "bicubic"
    resize: str = "shortest"


class Backbone(nn.Module):
    """A CLIP: an image encoder, a text encoder that accepts embeddings, a tokenizer, a temperature.

    A subclass defines the attributes and the methods that raise NotImplementedError here, but only one of
    `causal_tower` and `encode_embeddings`.

    Attributes:
        visual: The image encoder.
        logit_scale: Logarithm of the inverse temperature, one element.
        context_length: Tokens that the text encoder accepts, special ones included.
        dtype: Dtype in which the encoders compute.
        name: Name under which `load_clip` loaded the model.
    """

    name = ""
    visual: nn.Module
    logit_scale: Tensor
    context_length: int
    dtype: torch.dtype

    @property
    def tokenizer(self) -> Tokenizer:
        """Maps texts to tokens."""
        raise NotImplementedError

    @property
    def text_layers(self) -> int:
        """Number of layers of the text encoder, for an estimate of the memory per prompt."""
        raise NotImplementedError

    @property
    def preprocessing(self) -> Preprocessing:
        """The images that the image encoder expects."""
        raise NotImplementedError

    @property
    def embed_dim(self) -> int:
        """E, width of the joint space."""
        raise NotImplementedError

    @property
    def token_weight(self) -> Tensor:
        """Embeddings of all tokens, (vocabulary, D); InputError if the text encoder has none that can be replaced."""
        raise NotImplementedError

    def encode_image(self, image: Tensor) -> Tensor:
        """Features of normalised images, (N, 3, size, size) -> (N, E), not normalised."""
        raise NotImplementedError

    @property
    def causal_tower(self) -> CausalTower | None:
        """The text encoder if it is causal and built of known blocks, so that prompts share their first tokens."""
        return None

    def encode_embeddings(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Features of texts from their embeddings; needed only if there is no `causal_tower`.

        Args:
            x: Embeddings without positions, (N, T, D), float32; T is at least the maximum of `lengths`.
            tokens: The tokens of these embeddings, (N, T), int64; they show where EOS and padding are.

        Returns:
            (N, E), not normalised; gradients flow to `x`.
        """
        raise NotImplementedError

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """Features of texts, (N, context length) int64 -> (N, E), not normalised."""
        lengths = self.lengths(tokens)
        tokens = tokens[:, : max(lengths)]
        x = self.token_weight[tokens]
        tower = self.causal_tower
        if tower is None:
            return self.encode_embeddings(x, tokens)
        alike = (tokens == tokens[0]).all(dim=0).cumprod(dim=0).sum()
        shared = max(1, min(int(alike), min(lengths) - 1))  # SOS, and no EOS
        eos = torch.tensor(lengths, device=tokens.device) - 1 - shared
        return tower.suffix(x[None, :, shared:], tower.prefix(x[:1, :shared]), eos)[0]

    def lengths(self, tokens: Tensor) -> list[int]:
        """How many of its (N, T) tokens each text needs: here all.

        A causal text encoder that is read at EOS needs no later ones.
        """
        return [tokens.shape[1]] * len(tokens)

    def named_weights(self) -> Mapping[str, Tensor]:
        """All weights by name, each once, to identify the model."""
        return cast(Mapping[str, Tensor], self.state_dict())

    def fingerprint(self) -> Tensor:
        """The matrix (here the last) by which older checkpoints identify their CLIP; newer ones use `named_weights`."""
        return [parameter.detach() for parameter in self.parameters() if parameter.dim() == 2][-1]

    def to_half(self) -> None:
        """Converts the weights to fp16 where that is safe."""
        raise InputError(f"{type(self).__name__} has no fp16 weights: use PREC amp, bf16 or fp32")
