"""OpenAI's package `clip` (clip-anytorch), imported here for all other modules.

It imports pkg_resources, which setuptools 82 no longer has, but uses only its `packaging`. A stand-in replaces it
during the import and is removed afterwards.
"""

import sys
from types import ModuleType

import packaging.version

_stand_in = ModuleType("pkg_resources")
_stand_in.packaging = packaging  # type: ignore[attr-defined]
if sys.modules.get("pkg_resources") is None:
    sys.modules["pkg_resources"] = _stand_in
try:
    from clip import clip
    from clip.model import CLIP, build_model, convert_weights
finally:
    if sys.modules["pkg_resources"] is _stand_in:
        del sys.modules["pkg_resources"]

__all__ = ["CLIP", "build_model", "clip", "convert_weights"]
