"""CLIPs from any source behind one interface (`base.Backbone`)."""

from .base import Backbone, Preprocessing, Tokenizer
from .openai import OpenAICLIP, openai_view
from .openclip import OpenClip
from .registry import BACKBONES, as_backbone, register_backbone

__all__ = [
    "BACKBONES",
    "Backbone",
    "OpenAICLIP",
    "OpenClip",
    "Preprocessing",
    "Tokenizer",
    "as_backbone",
    "openai_view",
    "register_backbone",
]
