"""What this project asks of a CLIP, whoever wrote it.

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
        n_before: Special tokens before the words, such as SOS.
        n_special: All special tokens that a text needs beside its words.
    """

    n_before: int
    n_special: int

    def encode(self, text: str) -> list[int]:
        """Tokens of the words alone."""

    def __call__(self, texts: list[str]) -> Tensor:
        """Tokens with special ones and padding, (N, context length), int64; texts that are too long are cut."""


@dataclass(frozen=True)
class Preprocessing:
    """What a model expects of its images.

    Attributes:
        size: Side of the square images in pixels.
        mean: Of the channels, for pixels in 0..1.
        std: Of the channels.
        interpolation: Of the plain view.
        resize: "shortest": the short side to `size`, then the centre crop. Anything else is not done here.
    """

    size: int
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)  # OpenAI's
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
    interpolation: str = "bicubic"
    resize: str = "shortest"


class Backbone(nn.Module):
    """A CLIP: an image encoder, a text encoder that takes embeddings, a tokenizer, a temperature.

    A subclass gives the attributes and the methods below that raise NotImplementedError; of `causal_tower` and
    `encode_embeddings` one is enough.

    Attributes:
        visual: The image encoder.
        logit_scale: Logarithm of the inverse temperature, of one element.
        context_length: Tokens that the text encoder takes, special ones included.
        dtype: What the encoders compute in.
        name: Under which `load_clip` has loaded it.
    """

    name = ""
    visual: nn.Module
    logit_scale: Tensor
    context_length: int
    dtype: torch.dtype

    @property
    def tokenizer(self) -> Tokenizer:
        """Makes tokens of texts."""
        raise NotImplementedError

    @property
    def text_layers(self) -> int:
        """Layers of the text encoder; with its width they say how much memory a prompt needs."""
        raise NotImplementedError

    @property
    def preprocessing(self) -> Preprocessing:
        """What the image encoder expects."""
        raise NotImplementedError

    @property
    def embed_dim(self) -> int:
        """E, width of the joint space."""
        raise NotImplementedError

    @property
    def token_weight(self) -> Tensor:
        """Embeddings of all tokens, (vocabulary, D). InputError if the text encoder has none that could be replaced."""
        raise NotImplementedError

    def encode_image(self, image: Tensor) -> Tensor:
        """Features of normalised images, (N, 3, size, size) -> (N, E), as the model gives them, not normalised."""
        raise NotImplementedError

    @property
    def causal_tower(self) -> CausalTower | None:
        """The text encoder, if it is causal and built of known blocks: then prompts share what they begin with."""
        return None

    def encode_embeddings(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Features of texts that are given as embeddings; asked for only where there is no `causal_tower`.

        Args:
            x: Embeddings without positions, (N, T, D), float32; T is the largest of `lengths`, or more.
            tokens: The tokens for which they stand, (N, T), int64: they say where EOS and padding are.

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
        """How many tokens of each text the text encoder must see, of (N, T) tokens: here all of them.

        A causal text encoder that is read at EOS needs none that come later.
        """
        return [tokens.shape[1]] * len(tokens)

    def named_weights(self) -> Mapping[str, Tensor]:
        """All weights by name, each once: what tells this model from others."""
        return cast(Mapping[str, Tensor], self.state_dict())

    def fingerprint(self) -> Tensor:
        """The one matrix, here the last, by which older checkpoints name their CLIP; newer ones by `named_weights`."""
        return [parameter.detach() for parameter in self.parameters() if parameter.dim() == 2][-1]

    def to_half(self) -> None:
        """Makes the weights fp16 where that is safe."""
        raise InputError(f"{type(self).__name__} has no fp16 weights: use PREC amp, bf16 or fp32")
