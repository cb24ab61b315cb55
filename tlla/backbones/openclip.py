"""Models of open_clip (Ilharco et al., https://github.com/mlfoundations/open_clip): pip install open_clip_torch.

SigLIP is trained with a sigmoid for each pair, ``sigmoid(scale * cosine + bias)``. All methods here need probabilities
that sum to 1 over the classes, so they use the softmax of ``scale * cosine``, in which the bias, the same for all
classes, would cancel. The predicted class is the same as SigLIP's, but the probability is not: it compares the classes
and does not tell whether any of them is in the image.

Letters in shapes: N texts or images, T text tokens, D text width, E joint space.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..errors import InputError
from .base import Backbone, Preprocessing
from .blocks import computes_plainly, encode_vit, is_plain_vit, norm
from .causal import CausalTower
from .resnet import encode_resnet, is_plain_resnet

POOLED_AT_EOS = ("argmax", "eos")  # pool types of open_clip


class OpenClipTokenizer:
    """A tokenizer of open_clip.

    Args:
        tokenizer: A `SimpleTokenizer` or `HFTokenizer` of open_clip.
    """

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self.context_length = int(tokenizer.context_length)
        words = self.encode("a " * self.context_length)
        row = self(["a " * self.context_length])[0].tolist()  # is cut: all other tokens are special
        if len(set(words)) != 1 or words[0] not in row:
            raise InputError("this model's tokenizer makes more than one token of the word 'a': it cannot be used here")
        self.n_before = row.index(words[0])
        self.n_special = len(row) - row.count(words[0])

    def encode(self, text: str) -> list[int]:
        """Tokens of the words, without special ones."""
        own = self._tokenizer
        if hasattr(own, "encode"):
            return list(own.encode(text))
        return list(own.tokenizer.encode(own.clean_fn(text), add_special_tokens=False))

    def __call__(self, texts: list[str]) -> Tensor:
        """Tokens with special ones and padding, (N, context length), int64."""
        return cast(Tensor, self._tokenizer(texts))


class OpenClip(Backbone):
    """A `CLIP`, `CustomTextCLIP` or `CoCa` of open_clip.

    Prompts are cut at EOS if the text encoder is causal and read at EOS. Any other text encoder runs its own code on
    the full length, with only the output of the token embedding replaced.

    Args:
        model: The model, in fp32 or with open_clip's fp16 weights.
        tokenizer: Its tokenizer, from open_clip.
        preprocessing: The images that it expects. Default: as open_clip has stored in the model.
    """

    def __init__(self, model: Any, tokenizer: Any, preprocessing: Preprocessing | None = None):
        super().__init__()
        self.model: Any = model
        self.visual = model.visual
        self.logit_scale = model.logit_scale
        self.tower: Any = getattr(model, "text", model)  # the text encoder of CLIP is not a module of its own
        self.context_length = int(tokenizer.context_length)
        self.dtype = _compute_dtype(self.visual)
        self._tokenizer = OpenClipTokenizer(tokenizer)
        self._preprocessing = preprocessing or preprocessing_of(model.visual, model.visual.preprocess_cfg)
        self.pool_type = getattr(self.tower, "text_pool_type", None) or getattr(self.tower, "pool_type", None)
        self.causal = (
            getattr(self.tower, "attn_mask", None) is not None
            and getattr(self.tower, "cls_emb", None) is None
            and self.pool_type in POOLED_AT_EOS
        )

    @property
    def tokenizer(self) -> OpenClipTokenizer:
        """The model's tokenizer."""
        return self._tokenizer

    @property
    def preprocessing(self) -> Preprocessing:
        """The images that the image encoder expects."""
        return self._preprocessing

    @property
    def embed_dim(self) -> int:
        """E, width of the joint space."""
        projection = getattr(self.tower, "text_projection", None)
        if isinstance(projection, nn.Linear):
            return projection.out_features
        if projection is not None:
            return int(projection.shape[1])
        return int(self.tower.output_dim) if hasattr(self.tower, "config") else self.token_weight.shape[1]

    @property
    def text_layers(self) -> int:
        """Number of layers of the text encoder."""
        if hasattr(self.tower, "config"):
            return int(self.tower.config.num_hidden_layers)
        return int(self.tower.transformer.layers)

    @property
    def embedding(self) -> nn.Embedding:
        """The token embedding."""
        found = getattr(self.tower, "token_embedding", None)
        if found is None and hasattr(self.tower, "config"):  # from Hugging Face
            found = self.tower.transformer.get_input_embeddings()
        if not isinstance(found, nn.Embedding):
            raise InputError(
                f"the text encoder of this CLIP ({type(self.tower).__name__}) has no known token embedding: it works "
                "with templates, but not with learned prompts; use ZeroshotCLIP, or another backbone"
            )
        return found

    @property
    def token_weight(self) -> Tensor:
        """Embeddings of all tokens, (vocabulary, D)."""
        return self.embedding.weight

    def encode_image(self, image: Tensor) -> Tensor:
        """Features of normalised images, (N, 3, size, size) -> (N, E), not normalised."""
        image = image.to(self.dtype)
        if is_plain_vit(self.visual):
            return encode_vit(self.visual, image)
        if is_plain_resnet(self.visual):
            return encode_resnet(self.visual, image)
        return cast(Tensor, self.model.encode_image(image, normalize=False))

    @property
    def causal_tower(self) -> CausalTower | None:
        """The text encoder if it is causal, read at EOS and built of known blocks."""
        if not self.causal or not all(map(computes_plainly, self.tower.transformer.resblocks)):
            return None
        tower = self.tower
        return CausalTower(
            list(tower.transformer.resblocks),
            tower.positional_embedding,
            tower.transformer.get_cast_dtype(),
            self._finish,
        )

    def _finish(self, x: Tensor) -> Tensor:
        x, projection = norm(self.tower.ln_final, x), self.tower.text_projection
        if projection is None:
            return x
        return cast(Tensor, projection(x) if isinstance(projection, nn.Module) else x @ projection)

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """Features of texts, (N, context length) -> (N, E), not normalised, by the model's own code."""
        return cast(Tensor, self.model.encode_text(tokens, normalize=False))

    def encode_embeddings(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Features of texts from embeddings (N, T, D) and tokens (N, T): (N, E)."""
        if self.causal:
            return self._encode_causal(x, tokens)
        with _replaced_output(self.embedding, x):
            return self.encode_tokens(tokens)

    def _encode_causal(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Like open_clip's encode_text, which needs the full length."""
        tower, length = self.tower, x.shape[1]
        dtype = tower.transformer.get_cast_dtype()
        x = x.to(dtype) + tower.positional_embedding[:length].to(dtype)
        x = tower.transformer(x, attn_mask=tower.attn_mask[:length, :length])
        return self._finish(x[torch.arange(len(x), device=x.device), self._eos(tokens)])

    def _eos(self, tokens: Tensor) -> Tensor:
        """Index at which the text encoder is read: (N, T) -> (N,)."""
        if self.pool_type == "argmax":
            return tokens.argmax(dim=-1)
        eos: int = self.tower.eos_id if hasattr(self.tower, "eos_id") else self.tower.text_eos_id
        return (tokens == eos).int().argmax(dim=-1)

    def lengths(self, tokens: Tensor) -> list[int]:
        """Number of tokens up to EOS if that is enough, else the full length: (N, T) -> N numbers."""
        return (self._eos(tokens) + 1).tolist() if self.causal else super().lengths(tokens)

    def named_weights(self) -> Mapping[str, Tensor]:
        """All weights by open_clip's names; OpenAI's architecture has OpenAI's names."""
        return cast(Mapping[str, Tensor], self.model.state_dict())

    def fingerprint(self) -> Tensor:
        """The text projection, or the text encoder's last matrix if there is no projection."""
        projection = getattr(self.tower, "text_projection", None)
        if isinstance(projection, nn.Linear):
            return projection.weight
        if isinstance(projection, nn.Parameter):
            return projection
        return super().fingerprint()


@contextmanager
def _replaced_output(module: nn.Module, x: Tensor) -> Iterator[None]:
    """Within the block, calls of the module return `x`."""
    handle = module.register_forward_hook(lambda module, inputs, output: x.to(output.dtype))
    try:
        yield
    finally:
        handle.remove()


def _compute_dtype(visual: nn.Module) -> torch.dtype:
    """Dtype of the first convolution or linear layer; norm layers stay in fp32."""
    layers = (m for m in visual.modules() if isinstance(m, (nn.Conv2d, nn.Linear)))
    return next(layers).weight.dtype


def preprocessing_of(visual: Any, settings: dict[str, Any]) -> Preprocessing:
    """open_clip's preprocessing settings of a model as a `Preprocessing`; InputError if its images are not square.

    >>> preprocessing_of(type("ViT", (), {"image_size": (224, 224)}), {"interpolation": "bilinear"}).interpolation
    'bilinear'
    """
    size = visual.image_size
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1:
        raise InputError(f"this model needs images of {tuple(size)} pixels, but only square ones are supported")
    defaults = Preprocessing(0)
    return Preprocessing(
        size=sides.pop(),
        mean=tuple(settings.get("mean", defaults.mean)),
        std=tuple(settings.get("std", defaults.std)),
        interpolation=settings.get("interpolation", defaults.interpolation),
        resize=settings.get("resize_mode", defaults.resize),
    )
