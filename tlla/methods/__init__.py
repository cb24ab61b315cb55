"""Test-time methods, one file each. All files in this folder are imported: nothing else lists them."""

import importlib
import pkgutil

from .base import METHODS, Method, settings

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["METHODS", "Method", "settings"]
