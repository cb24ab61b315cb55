"""OpenAI's CLIP (Radford et al., arXiv 2103.00020).

Letters in shapes: N texts or images, T text tokens, D text width, E joint space.
"""

from typing import Any, cast

from torch import Tensor, nn

from .base import Backbone, Preprocessing
from .blocks import encode_vit, is_plain_vit, norm
from .causal import CausalTower
from .openai_package import CLIP, clip, convert_weights
from .resnet import encode_resnet, is_plain_resnet


class OpenAITokenizer:
    """OpenAI's byte-pair tokenizer."""

    n_before = 1
    n_special = 2  # SOS and EOS

    def __init__(self, context_length: int):
        self.context_length = context_length

    def encode(self, text: str) -> list[int]:
        """Tokens of the words, without special ones."""
        return list(clip._tokenizer.encode(text))

    def __call__(self, texts: list[str]) -> Tensor:
        """Tokens with SOS and EOS, padded with 0, (N, context length), int64."""
        return cast(Tensor, clip.tokenize(texts, context_length=self.context_length, truncate=True))


class OpenAICLIP(CLIP, Backbone):  # type: ignore[misc]  # clip has no types
    """A `clip.model.CLIP` that is also a `Backbone`; see `openai_view`."""

    transformer: Any
    token_embedding: nn.Embedding
    positional_embedding: Tensor
    ln_final: nn.Module
    text_projection: Tensor

    @property
    def tokenizer(self) -> OpenAITokenizer:
        """OpenAI's tokenizer."""
        return OpenAITokenizer(self.context_length)

    @property
    def preprocessing(self) -> Preprocessing:
        """OpenAI's preprocessing at this model's image size."""
        return Preprocessing(cast(int, self.visual.input_resolution))

    @property
    def embed_dim(self) -> int:
        """E, width of the joint space."""
        return self.text_projection.shape[1]

    @property
    def text_layers(self) -> int:
        """Number of layers of the text encoder."""
        return len(self.blocks)

    @property
    def blocks(self) -> list[Any]:
        """The text encoder's layers."""
        return list(self.transformer.resblocks)

    @property
    def token_weight(self) -> Tensor:
        """Embeddings of all tokens, (vocabulary, D)."""
        return self.token_embedding.weight

    def lengths(self, tokens: Tensor) -> list[int]:
        """Number of tokens up to EOS, which has the largest id: (N, T) -> N numbers."""
        return cast(list[int], (tokens.argmax(dim=-1) + 1).tolist())

    @property
    def causal_tower(self) -> CausalTower:
        """The text encoder."""
        return CausalTower(self.blocks, self.positional_embedding, self.dtype, self._finish)

    def _finish(self, x: Tensor) -> Tensor:
        return norm(self.ln_final, x) @ self.text_projection

    def encode_image(self, image: Tensor) -> Tensor:
        """Features of normalised images, (N, 3, size, size) -> (N, E), not normalised."""
        image = image.type(self.dtype)
        if is_plain_vit(self.visual):
            return encode_vit(self.visual, image)
        return encode_resnet(self.visual, image) if is_plain_resnet(self.visual) else cast(Tensor, self.visual(image))

    def fingerprint(self) -> Tensor:
        """The text projection."""
        return self.text_projection

    def to_half(self) -> None:
        """Converts the weights to fp16 as OpenAI does."""
        convert_weights(self)


def openai_view(model: CLIP) -> OpenAICLIP:
    """The same model, with the same parameters, buffers and mode, as a `Backbone`.

    >>> openai_view(model).token_weight is model.token_embedding.weight
    True
    """
    view = OpenAICLIP.__new__(OpenAICLIP)
    view.__dict__ = model.__dict__
    return view
