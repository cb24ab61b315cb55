"""Registered backbones, by name."""

from collections.abc import Callable
from typing import NoReturn

from torch import nn

from ..errors import InputError
from .base import Backbone
from .openai import openai_view
from .openai_package import CLIP

Loader = Callable[[str], nn.Module]

BACKBONES: dict[str, Loader] = {}


def register_backbone(name: str) -> Callable[[Loader], Loader]:
    """Decorator that registers a loader of CLIPs: `load_clip` calls it with what follows ``name:``, or with "".

    The loader returns OpenAI's CLIP or a `Backbone`, on the CPU in fp32; `load_clip` freezes it.

    >>> loader = register_backbone("mine")(lambda rest: model)
    >>> BACKBONES.pop("mine") is loader
    True
    """

    def decorate(loader: Loader) -> Loader:
        BACKBONES[name] = loader
        return loader

    return decorate


def as_backbone(model: nn.Module) -> Backbone:
    """A model as a `Backbone`: unchanged if it is one, else a view of OpenAI's CLIP; InputError for anything else.

    >>> as_backbone(model).preprocessing.size
    64
    """
    if isinstance(model, Backbone):
        return model
    return openai_view(model) if isinstance(model, CLIP) else _refuse(model)


def _refuse(model: nn.Module) -> NoReturn:
    """Raises InputError for a model that is not a supported CLIP."""
    if isinstance(model, str):
        raise InputError(f"a CLIP is needed, but got its name {model!r}: load it by tlla.load_clip({model!r})")
    raise InputError(
        f"{type(model).__module__}.{type(model).__name__} is not a supported CLIP: pass OpenAI's clip.model.CLIP "
        "or a subclass of tlla.backbones.Backbone; for a model of open_clip use tlla.backbones.OpenClip"
    )
