"""Loads models of open_clip by name and tag, or from files of weights and architecture. Needs open_clip.

open_clip's own loader is not used for files: it resizes position embeddings of another shape, and does not read
OpenAI's archives. Here a mismatch is an error, and what a file lacks (the activation, the normalisation of the pixels)
comes from a tag or must be named.
"""

import warnings
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict, convert_weights_to_lp
from open_clip.tokenizer import HFTokenizer
from torch import Tensor

from ..errors import InputError
from .openclip import OpenClip, preprocessing_of
from .openclip_source import Config, OpenClipSource, check_activation, needs_quick_gelu, parse, preprocess_of
from .weight_names import OPENAI_ENTRIES
from .weights import read_state_dict


def load_open_clip(text: str, half: bool = False) -> OpenClip:
    """Loads a model of open_clip, on the CPU.

    Args:
        text: ``ViT-B-32/laion2b_s34b_b79k`` (downloaded by open_clip), ``ViT-B-32/laion2b_s34b_b79k=weights.pt`` (these
            weights from a file), ``ViT-B-32=weights.safetensors`` (other weights of that architecture),
            ``config.json=weights.pt`` (your own architecture, in open_clip's format), or ``hf-hub:owner/repository``.
        half: Whether to use fp16 weights.

    Raises:
        InputError: a name, tag or file is unknown, unavailable, or does not match the others.

    >>> load_open_clip("ViT-B-32/laion")
    Traceback (most recent call last):
    tlla.errors.InputError: open_clip has no weights 'laion' of ViT-B-32: did you mean ...
    """
    try:
        source = parse(text)
        model, preprocess = _from_file(source, half) if source.file else _from_network(source, half)
        found = OpenClip(model, _tokenizer(source), preprocessing_of(model.visual, preprocess))
    except InputError:
        raise
    except Exception as error:  # open_clip, timm, transformers and the hub raise many kinds
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"open_clip cannot load {text!r}: {reason}") from error
    _warn_of_preprocessing(text, found)
    return found


def _from_network(source: OpenClipSource, half: bool) -> tuple[Any, Config]:
    model = open_clip.create_model(
        source.name,
        pretrained=source.tag or None,
        precision="fp16" if half else "fp32",
        force_quick_gelu=bool(source.tag) and needs_quick_gelu(source),
        require_pretrained=True,
        weights_only=True,
    )
    return model, model.visual.preprocess_cfg


def _from_file(source: OpenClipSource, half: bool) -> tuple[Any, Config]:
    path = Path(source.file).expanduser()
    preprocess = preprocess_of(source)
    state = read_state_dict(path)
    from_openai = set(state) >= OPENAI_ENTRIES
    config = dict(source.config)
    if source.tag:
        config["quick_gelu"] = needs_quick_gelu(source)
    else:
        check_activation(source, from_openai)
    model = _build(config, half)
    _fill(model, {name: value for name, value in state.items() if not from_openai or name not in OPENAI_ENTRIES}, path)
    return model, preprocess


def _build(config: Config, half: bool) -> Any:
    """The architecture with random weights; downloads only the configs of encoders from Hugging Face."""
    text, vision = dict(config["text_cfg"]), dict(config["vision_cfg"])
    custom = config.pop("custom_text", False) or "hf_model_name" in text
    if "hf_model_name" in text:
        text["hf_model_pretrained"] = False
    if "timm_model_name" in vision:
        vision["timm_model_pretrained"] = False
    kind = open_clip.CLIP
    if custom:
        kind = open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP
    if half and (custom or "timm_model_name" in vision):
        raise InputError("only open_clip's own encoders can have fp16 weights: use PREC amp, bf16 or fp32")
    model = kind(**{**config, "text_cfg": text, "vision_cfg": vision}, cast_dtype=torch.float16 if half else None)
    if half:
        convert_weights_to_lp(model, dtype=torch.float16)
    return model


def _fill(model: Any, state: dict[str, Tensor], path: Path) -> None:
    """Loads weights; InputError unless all names and shapes match."""
    own = model.state_dict()
    state = convert_state_dict(model, state)  # Apple's names
    if "positional_embedding" in state and "positional_embedding" not in own:
        state = convert_to_custom_text_state_dict(state)
    state.pop("text.transformer.embeddings.position_ids", None)  # of older versions of transformers
    for name in {"logit_scale", "logit_bias"} & set(state) & set(own):
        state[name] = state[name].reshape(own[name].shape)  # a scalar or one element
    shapes = [name for name in own if name in state and state[name].shape != own[name].shape]
    parts = {"missing": set(own) - set(state), "unknown": set(state) - set(own), "of another shape": set(shapes)}
    if any(parts.values()):
        what = "; ".join(f"{len(names)} {kind}, such as {min(names)}" for kind, names in parts.items() if names)
        raise InputError(f"{path} does not fit the architecture ({what}): check the name or the config")
    model.load_state_dict(state)


def _tokenizer(source: OpenClipSource) -> Any:
    if not source.name.endswith(".json"):
        return open_clip.get_tokenizer(source.name)
    text = source.config["text_cfg"]
    settings = {"context_length": text.get("context_length", 77), **(text.get("tokenizer_kwargs") or {})}
    if name := text.get("hf_tokenizer_name"):
        return HFTokenizer(name, tokenizer_mode=text.get("tokenizer_mode"), **settings)
    return open_clip.SimpleTokenizer(**settings)


def _warn_of_preprocessing(text: str, model: OpenClip) -> None:
    """The centre crop is always bicubic after a resize of the short side, for every model."""
    own = model.preprocessing
    if (own.interpolation, own.resize) != ("bicubic", "shortest"):
        warnings.warn(
            f"{text} was trained on images resized by {own.resize!r} ({own.interpolation}), but here the short side is "
            "resized (bicubic) before the centre crop: results can differ a little from published ones",
            stacklevel=2,
        )
