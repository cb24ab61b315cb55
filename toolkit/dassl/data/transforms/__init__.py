"""Image transforms by name."""

from .transforms import AVAI_CHOICES, INTERPOLATION_MODES, build_transform, get_interpolation

__all__ = ["AVAI_CHOICES", "INTERPOLATION_MODES", "build_transform", "get_interpolation"]
