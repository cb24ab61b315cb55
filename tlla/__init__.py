"""TLLA: sharpness-aware prompt tuning (SAPT) and sharpness-based test sample selection (STSS) for CLIP.

Paper: Li et al., "Test-time Loss Landscape Adaptation for Zero-Shot Generalization in Vision-Language Models",
arXiv 2501.18864 (v2: "Flatness Guided Test-Time Adaptation", ICLR 2026). Nothing here needs Dassl or yacs.
"""

import warnings

# clip-anytorch imports pkg_resources, which warns at every start of what no user can change.
warnings.filterwarnings("ignore", message="pkg_resources is deprecated")

from .errors import InputError  # noqa: E402

__version__ = "0.1.0"
__all__ = ["InputError", "__version__"]
