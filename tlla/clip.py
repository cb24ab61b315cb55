"""Finds, checks and loads a CLIP: an OpenAI model by name, a file, the embedded `EmojiCLIP`, or a registered backbone.

Weights: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", arXiv 2103.00020.
"""

import functools
import os

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .arguments import flag, is_path, short
from .backbones import BACKBONES, Backbone, Preprocessing, as_backbone, openai_view
from .backbones.openai_package import build_model, clip
from .backbones.weight_names import check_names, from_hugging_face, is_hugging_face
from .backbones.weights import EMBEDDED, assets_dir, find_weights, read_state_dict
from .errors import InputError

__all__ = [
    "EMBEDDED",
    "assets_dir",
    "available_models",
    "encode_images",
    "find_weights",
    "image_size",
    "load_clip",
    "logit_scale",
    "normalize",
]

OPEN_CLIP = "open_clip"
VOCABULARY = 49_408  # tokens of OpenAI's tokenizer
PIXEL_MEAN = Preprocessing.mean
PIXEL_STD = Preprocessing.std


def available_models() -> list[str]:
    """Names that `load_clip` accepts: OpenAI's models, the embedded model, and registered backbones.

    >>> {"RN50", "ViT-B/16", "EmojiCLIP"} <= set(available_models())
    True
    """
    return [*clip._MODELS, *EMBEDDED, *BACKBONES]


def find_device(device: torch.device | str | int, name: str = "device") -> torch.device:
    """The device of that name; InputError if it cannot be used, with `name` as the name of the argument.

    >>> find_device("cpu")
    device(type='cpu')
    """
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:  # torch raises any of these
        raise InputError(f"{name} {device!s} cannot be used: {str(error).splitlines()[0]}") from error
    return found


def load_clip(name: str | os.PathLike[str], device: torch.device | str | int = "cpu", half: bool = False) -> Backbone:
    """Loads a CLIP, frozen and in evaluation mode.

    Args:
        name: A name from `available_models()`; a path to a JIT archive from OpenAI or to a state dict of that
            architecture, under OpenAI's or Hugging Face's names (fp16 or fp32, optionally gzipped); or
            ``open_clip:...``, see docs/backbones.md.
        device: Device of the model.
        half: Whether to use OpenAI's fp16 weights; on the CPU the model is always fp32.

    Returns:
        The model; read sizes from it (`image_size`, ``embed_dim``, ...).

    Raises:
        InputError: the name is unknown, the file is missing, truncated or not a CLIP, its checksum does not match, or
            the device cannot be used.

    >>> load_clip("EmojiCLIP").embed_dim
    128
    """
    if not is_path(name):
        raise InputError(f"a CLIP is loaded by its name or path, a string, but got {short(name)}")
    name, device = os.fspath(name), find_device(device)
    half = flag("half", half) and device.type != "cpu"
    prefix, _, rest = name.partition(":")
    if prefix == OPEN_CLIP:
        model = _load_open_clip(rest, half)
    else:
        model = as_backbone(BACKBONES[prefix](rest)) if prefix in BACKBONES else _load_openai(name)
        if half:
            model.to_half()
    model.visual.to(memory_format=torch.channels_last)  # faster convolutions on CPUs and GPUs
    model.name = name
    return model.to(device).eval().requires_grad_(False)


def _load_open_clip(text: str, half: bool) -> Backbone:
    try:
        from .backbones.openclip_load import load_open_clip
    except ImportError as error:
        raise InputError(f"open_clip is not installed ({error}): run pip install open_clip_torch") from error
    return load_open_clip(text, half)


def _load_openai(name: str) -> Backbone:
    path = find_weights(name, list(BACKBONES))
    state_dict = read_state_dict(path)
    if is_hugging_face(state_dict):
        state_dict = from_hugging_face(state_dict, path)
    check_names(state_dict, f"the weights of {name!r}")
    if (words := len(state_dict["token_embedding.weight"])) < VOCABULARY:
        raise InputError(f"the weights of {name!r} embed {words:,} tokens, but OpenAI's tokenizer has {VOCABULARY:,}")
    try:
        model = build_model(dict(state_dict))
    except Exception as error:  # the builder infers sizes from shapes, so any exception is possible
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"the weights of {name!r} are not a state dict of OpenAI's CLIP ({type(error).__name__}: {reason})"
        ) from error
    # build_model rounds to fp16; loading again keeps the file's precision.
    own = model.float().state_dict()
    model.load_state_dict({k: v for k, v in state_dict.items() if k in own})
    return openai_view(model)


def image_size(model: nn.Module) -> int:
    """Side of the model's square input images, in pixels.

    >>> image_size(model)
    64
    """
    return as_backbone(model).preprocessing.size


def logit_scale(model: nn.Module) -> Tensor:
    """The inverse temperature, exp of the stored logarithm: a float32 scalar.

    >>> round(logit_scale(model).item(), 1)
    16.7
    """
    return as_backbone(model).logit_scale.float().exp().reshape(())


def encode_images(model: nn.Module, images: Tensor) -> Tensor:
    """Normalised image features of preprocessed images: (B, 3, H, W) -> (B, E), float32.

    >>> features = encode_images(model, torch.zeros(2, 3, 64, 64))
    >>> features.shape, features.norm(dim=-1).round(decimals=4)
    (torch.Size([2, 128]), tensor([1., 1.]))
    """
    return F.normalize(as_backbone(model).encode_image(images).float(), dim=-1)


def normalize(images: Tensor, model: nn.Module | None = None) -> Tensor:
    """The model's pixel normalisation, by default OpenAI's: (..., 3, H, W) uint8 or float in 0..1 -> float32.

    >>> normalize(torch.full((3, 1, 1), 255, dtype=torch.uint8)).flatten().round(decimals=2)
    tensor([1.9300, 2.0700, 2.1500])
    """
    expected = Preprocessing(0) if model is None else as_backbone(model).preprocessing
    mean, std = (_per_channel(values, images.shape[-1], images.device) for values in (expected.mean, expected.std))
    pixels = images.float().div_(255).sub_(mean) if images.dtype == torch.uint8 else images - mean
    return pixels.div_(std)


@functools.lru_cache(maxsize=32)  # a copy to a GPU for each batch would make the host wait for it
@torch.inference_mode(False)
def _per_channel(values: tuple[float, ...], width: int, device: torch.device) -> Tensor:
    """(3, 1, W) with the channels innermost in memory, as in the views: broadcasts three times as fast as (3, 1, 1)."""
    row = torch.tensor(values, device=device).expand(width, 3).contiguous()  # (W, 3)
    return row.t().unsqueeze(1)
