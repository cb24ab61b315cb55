"""Backbones by name: everybody can add one."""

from collections.abc import Callable

from torch import nn

from .base import Backbone, refuse
from .openai import openai_view
from .openai_package import CLIP

Loader = Callable[[str], nn.Module]

BACKBONES: dict[str, Loader] = {}


def register_backbone(name: str) -> Callable[[Loader], Loader]:
    """Decorator of a function that loads a CLIP: `load_clip` calls it with what follows ``name:``, or with "".

    It returns OpenAI's CLIP or a `Backbone`, on the CPU and in fp32; both are frozen afterwards.
    """

    def decorate(loader: Loader) -> Loader:
        BACKBONES[name] = loader
        return loader

    return decorate


def as_backbone(model: nn.Module) -> Backbone:
    """A model as a `Backbone`: itself if it is one, else a view of OpenAI's CLIP. InputError for anything else."""
    if isinstance(model, Backbone):
        return model
    return openai_view(model) if isinstance(model, CLIP) else refuse(model)
