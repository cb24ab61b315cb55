"""Parses names such as ``open_clip:ViT-B-32/openai=weights.pt``. Needs open_clip."""

import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import open_clip

from ..errors import InputError, nearest

HUB = "hf-hub:"
USAGE = "<name>/<tag>, <name>/<tag>=<file>, <name>=<file>, <config.json>=<file> or hf-hub:<owner>/<repository>"
PIXELS = ("mean", "std", "interpolation", "resize_mode")

Config = dict[str, Any]


@dataclass(frozen=True)
class OpenClipSource:
    """The parts of a model's name.

    Attributes:
        name: A model of open_clip, a JSON file in the format of open_clip's model configs, or ``hf-hub:...``.
        tag: Tag of open_clip's pretrained weights; may be empty.
        file: File of the weights; empty: open_clip downloads them.
        config: The architecture; empty for ``hf-hub:...``.
        preprocess: The preprocessing in a JSON file, beside the architecture.
    """

    name: str
    tag: str = ""
    file: str = ""
    config: Config = field(default_factory=dict)
    preprocess: Config = field(default_factory=dict)

    @property
    def quick_gelu(self) -> bool:
        """Whether the architecture has QuickGELU."""
        return bool(self.config.get("quick_gelu", False))

    @property
    def tags(self) -> list[str]:
        """All tags of this name."""
        return list(open_clip.list_pretrained_tags_by_model(self.name))

    def tag_config(self, tag: str) -> Config:
        """open_clip's settings of a tag."""
        return dict(open_clip.get_pretrained_cfg(self.name, tag))

    def tag_quick_gelu(self, tag: str) -> bool:
        """Whether a tag's weights were trained with QuickGELU."""
        return bool(self.tag_config(tag).get("quick_gelu", False))


def parse(text: str) -> OpenClipSource:
    """Parses what follows ``open_clip:``; InputError if it is incomplete or unknown.

    >>> source = parse("ViT-B-32/openai")
    >>> source.name, source.tag, source.config["embed_dim"]
    ('ViT-B-32', 'openai', 512)
    """
    head, _, file = text.partition("=")
    path = head.startswith(HUB) or head.endswith(".json")
    name, _, tag = (head, "", "") if path else head.partition("/")
    if head.startswith(HUB) and file:
        raise InputError(f"'open_clip:{text}' names a repository and a file: write <config.json>=<file> for files")
    if head.startswith(HUB):
        return OpenClipSource(head)
    config, preprocess = _read_json(Path(head).expanduser()) if path else (_known_config(name), {})
    source = OpenClipSource(name, tag, file, config, preprocess)
    if not tag and not file:
        known = f"; {name} has the tags {', '.join(source.tags)}" if source.tags else ""
        raise InputError(f"'open_clip:{text}' names no weights: write {USAGE}{known}")
    if tag and tag not in source.tags:
        raise InputError(f"open_clip has no weights {tag!r} of {name}: {nearest(tag, source.tags)}")
    if file and not Path(file).expanduser().is_file():
        raise InputError(f"'open_clip:{text}' names the weights {file}, but there is no such file: check the path")
    return source


def _known_config(name: str) -> Config:
    known = open_clip.list_models()
    if name not in known:
        raise InputError(f"open_clip has no model {name!r}: {nearest(name, known)}")
    return dict(open_clip.get_model_config(name))


def _read_json(path: Path) -> tuple[Config, Config]:
    """Reads a model config, or an ``open_clip_config.json``, which holds a config and its preprocessing."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as a model config of open_clip: {error}") from error
    found = content if isinstance(content, dict) else {}
    config, preprocess = found.get("model_cfg", found), found.get("preprocess_cfg", {})
    parts = [config, preprocess, *(config.get(key) for key in ("vision_cfg", "text_cfg") if isinstance(config, dict))]
    if not all(isinstance(part, dict) for part in parts) or "embed_dim" not in config:
        raise InputError(f"{path} is not a model config of open_clip: it needs embed_dim, vision_cfg and text_cfg")
    return config, preprocess


def preprocess_of(source: OpenClipSource) -> Config:
    """Preprocessing for weights from a file: that of the JSON file, of the tag, or of all tags if they agree.

    >>> preprocess_of(OpenClipSource("ViT-B-32", "openai"))["interpolation"]
    'bicubic'
    """
    if source.preprocess or source.name.endswith(".json"):
        return source.preprocess
    tags = [source.tag] if source.tag else source.tags
    found = [{key: value for key in PIXELS if (value := source.tag_config(tag).get(key)) is not None} for tag in tags]
    if any(other != found[0] for other in found):
        raise InputError(
            f"the weights of {source.name} differ in their preprocessing, which is not stored in a file: "
            f"write open_clip:{source.name}/<tag>={source.file} with one of {', '.join(tags)}"
        )
    return found[0] if found else {}


def needs_quick_gelu(source: OpenClipSource) -> bool:
    """Whether a tag's weights need QuickGELU; InputError if they need GELU and the architecture has QuickGELU.

    >>> [needs_quick_gelu(OpenClipSource("ViT-B-32", tag)) for tag in ("openai", "laion2b_s34b_b79k")]
    [True, False]
    """
    needed = source.tag_quick_gelu(source.tag)
    if source.quick_gelu and not needed:
        plain = source.name.removesuffix("-quickgelu")
        raise InputError(f"the weights {source.tag} were trained with GELU, {source.name} has QuickGELU: use {plain}")
    return needed


def check_activation(source: OpenClipSource, from_openai: bool) -> None:
    """Refuses OpenAI's weights without QuickGELU; warns if another file's activation is uncertain.

    >>> check_activation(OpenClipSource("RN50", file="RN50.pt"), from_openai=True)
    Traceback (most recent call last):
    tlla.errors.InputError: RN50.pt is from OpenAI and needs QuickGELU, but RN50 has GELU: use RN50-quickgelu
    """
    if from_openai and not source.quick_gelu:
        name = f"{source.name}-quickgelu"
        hint = name if name in open_clip.list_models() else 'a config with "quick_gelu": true'
        raise InputError(f"{source.file} is from OpenAI and needs QuickGELU, but {source.name} has GELU: use {hint}")
    others = [tag for tag in source.tags if source.tag_quick_gelu(tag) != source.quick_gelu]
    if others and not from_openai:
        kind = "QuickGELU" if source.quick_gelu else "GELU"
        warnings.warn(
            f"{source.file} is assumed to be trained with {kind}, as {source.name} has it, but {', '.join(others)} "
            f"were not: write open_clip:{source.name}/<tag>={source.file} to be sure",
            stacklevel=2,
        )
