"""Names in state dicts: prefixes of wrappers, Hugging Face's names, and the names of OpenAI's architecture."""

import functools
import json
import re
import warnings
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from .openai_package import CLIP

WRAPPERS = ("module.", "model.")  # prefixes by DataParallel, and by modules that hold the model as an attribute
COMPILED = "_orig_mod."  # by torch.compile, which may wrap a part of the model
OPENAI_ENTRIES = {"input_resolution", "context_length", "vocab_size"}  # in OpenAI's archives; not weights

HUGGING_FACE = {  # part of a name in Hugging Face's CLIPModel -> part of OpenAI's name
    "text_model.embeddings.token_embedding.": "token_embedding.",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.encoder.layers.": "transformer.resblocks.",
    "text_model.final_layer_norm.": "ln_final.",
    "text_projection.weight": "text_projection",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.": "visual.conv1.",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.encoder.layers.": "visual.transformer.resblocks.",
    "vision_model.pre_layrnorm.": "visual.ln_pre.",
    "vision_model.post_layernorm.": "visual.ln_post.",
    "visual_projection.weight": "visual.proj",
    ".self_attn.": ".attn.",
    ".layer_norm1.": ".ln_1.",
    ".layer_norm2.": ".ln_2.",
    ".mlp.fc1.": ".mlp.c_fc.",
    ".mlp.fc2.": ".mlp.c_proj.",
}
TRANSPOSED = ("text_projection", "visual.proj")
HEAD_WIDTH = 64  # width of each attention head in OpenAI's architecture
CONFIG_DEFAULTS = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}


def strip_wrappers(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state dict without the prefixes of wrappers; unchanged if names would then coincide.

    >>> strip_wrappers({"module._orig_mod.ctx": 1})
    {'ctx': 1}
    """
    names = [name.replace(COMPILED, "") for name in state]
    while names and (prefix := next((p for p in WRAPPERS if all(n.startswith(p) for n in names)), "")):
        names = [name.removeprefix(prefix) for name in names]
    return dict(zip(names, state.values(), strict=True)) if len(set(names)) == len(names) else dict(state)


def is_hugging_face(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict has the names of Hugging Face's CLIPModel.

    >>> [is_hugging_face({name: torch.zeros(2)}) for name in ("text_model.final_layer_norm.bias", "ln_final.bias")]
    [True, False]
    """
    return any(name.startswith(("text_model.", "vision_model.")) for name in state)


def from_hugging_face(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Weights of Hugging Face's CLIPModel under OpenAI's names.

    Args:
        state: State dict under Hugging Face's names.
        path: Its file; a ``config.json`` beside it shows whether the architecture is OpenAI's.

    Raises:
        InputError: the config is of another architecture, or a projection of an attention layer is missing.

    >>> _ = Path("config.json").write_text('{"text_config": {}, "vision_config": {}}')
    >>> list(from_hugging_face({"text_model.final_layer_norm.bias": torch.zeros(2)}, Path("model.safetensors")))
    ['ln_final.bias']
    """
    _check_config(state, path)
    found: dict[str, Tensor] = {}
    attention: dict[tuple[str, str], dict[str, Tensor]] = {}  # parts of a name before and after q, k or v -> the three
    for name, value in state.items():
        if part := re.fullmatch(r"(.+\.self_attn\.)([qkv])(_proj\.(?:weight|bias))", name):
            attention.setdefault((part[1], part[3]), {})[part[2]] = value
        elif not name.endswith(".position_ids"):  # a buffer in older versions: 0, 1, 2, ...
            name = _openai_name(name)
            found[name] = value.T if name in TRANSPOSED else value
    for (before, after), parts in attention.items():
        if missing := [f"{before}{part}{after}" for part in "qkv" if part not in parts]:
            raise InputError(f"{path} is not a state dict of Hugging Face's CLIP: it lacks {', '.join(missing)}")
        found[_openai_name(before) + "in" + after.replace(".", "_")] = torch.cat([parts[part] for part in "qkv"])
    return found


def _openai_name(name: str) -> str:
    for theirs, ours in HUGGING_FACE.items():
        name = name.replace(theirs, ours)
    return name


def _check_config(state: Mapping[str, Tensor], path: Path) -> None:
    file = path.parent / "config.json"
    if not file.is_file():
        warnings.warn(
            f"{path} is in Hugging Face's layout, but there is no config.json beside it with the activation: "
            "quick_gelu is assumed, as in OpenAI's CLIPs",
            stacklevel=2,
        )
        return
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        parts = {part: CONFIG_DEFAULTS | config[f"{part}_config"] for part in ("text", "vision")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is not the config of a CLIPModel from Hugging Face ({error!r})") from error
    for part, settings in parts.items():
        for key, expected in CONFIG_DEFAULTS.items():
            if settings[key] != expected:
                raise InputError(
                    f"{file} has {key} {settings[key]!r} for the {part} encoder, but OpenAI's architecture has "
                    f"{expected!r}: load such a model through open_clip (docs/backbones.md)"
                )
        width, heads = settings.get("hidden_size"), settings.get("num_attention_heads")
        if width and heads and width != HEAD_WIDTH * heads:
            raise InputError(
                f"{file} has {heads} attention heads with a total width of {width} for the {part} encoder, but in "
                f"OpenAI's architecture each has {HEAD_WIDTH}: load such a model through open_clip (docs/backbones.md)"
            )


def check_names(state: Mapping[str, Tensor], what: str) -> None:
    """Raises InputError, with names, if weights of OpenAI's architecture are missing or there are unknown ones.

    Args:
        state: State dict under OpenAI's names.
        what: Subject of the message, in the plural.

    >>> check_names({"ctx": torch.zeros(4, 512)}, "the weights in a.pt")
    Traceback (most recent call last):
    tlla.errors.InputError: the weights in a.pt are not a state dict of OpenAI's CLIP: 38 names are missing
    (ln_final.bias, ln_final.weight, logit_scale) and 1 name is unknown (ctx)
    """
    expected = _expected_names(state)
    needed = {name for name in expected if not name.endswith(".num_batches_tracked")}  # optional in torch
    faults = [_some(needed - set(state), "missing"), _some(set(state) - expected - OPENAI_ENTRIES, "unknown")]
    if any(faults):
        raise InputError(f"{what} are not a state dict of OpenAI's CLIP: {' and '.join(filter(None, faults))}")


def _some(names: Collection[str], kind: str) -> str:
    first = ", ".join(sorted(names)[:3])
    return f"{len(names)} {'name is' if len(names) == 1 else 'names are'} {kind} ({first})" if names else ""


def _expected_names(state: Iterable[str]) -> frozenset[str]:
    """Names of all weights of OpenAI's architecture with as many layers as the state dict has."""
    names = list(state)
    text, blocks = _n_layers(names, "transformer.resblocks."), _n_layers(names, "visual.transformer.resblocks.")
    stages = tuple(_n_layers(names, f"visual.layer{i}.") for i in range(1, 5))
    resnet = any(name.startswith("visual.layer") for name in names)
    return _names_of((stages, 8, None) if resnet else (blocks, HEAD_WIDTH, 32), text)


@functools.cache
def _names_of(visual: tuple[tuple[int, ...] | int | None, ...], text: int) -> frozenset[str]:
    with torch.device("meta"):
        return frozenset(CLIP(1, 32, *visual, 77, 1, 64, 1, text).state_dict())


def _n_layers(names: Iterable[str], prefix: str) -> int:
    """Number of layers, at least 1."""
    return max(1, len({name[len(prefix) :].partition(".")[0] for name in names if name.startswith(prefix)}))
