"""Test-time methods, one file each. A file in this folder is found by itself: nothing else lists it."""

import importlib
import pkgutil

from .base import METHODS, Method, settings

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["METHODS", "Method", "settings"]
