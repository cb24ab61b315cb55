"""TLLA: sharpness-aware prompt tuning (SAPT) and sharpness-based test sample selection (STSS) for CLIP.

Paper: Li et al., "Test-time Loss Landscape Adaptation for Zero-Shot Generalization in Vision-Language Models",
arXiv 2501.18864 (v2: "Flatness Guided Test-Time Adaptation", ICLR 2026). Nothing here needs Dassl or yacs.

The names below are all that most uses need; docs/api.md shows them. They are imported when they are first used, so that
``import tlla`` is quick.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .errors import InputError

if TYPE_CHECKING:
    from .clip import available_models, load_clip
    from .features import perturbed_text_features, stss
    from .predict.predictions import Predictions
    from .predict.predictor import Predictor
    from .prompts.saved import Prompt
    from .training.prompt import train_prompt
    from .views.read_image import read_image

__version__ = "0.1.0"
__all__ = [
    "InputError",
    "Predictions",
    "Predictor",
    "Prompt",
    "__version__",
    "available_models",
    "load_clip",
    "perturbed_text_features",
    "read_image",
    "stss",
    "train_prompt",
]
_HOMES = {
    "Predictions": "predict.predictions",
    "Predictor": "predict.predictor",
    "Prompt": "prompts.saved",
    "available_models": "clip",
    "load_clip": "clip",
    "perturbed_text_features": "features",
    "read_image": "views.read_image",
    "stss": "features",
    "train_prompt": "training.prompt",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
