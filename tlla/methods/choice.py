"""A test-time method by name, with settings by name: what users type, checked."""

import ast
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..arguments import is_whole, short
from ..errors import InputError, nearest
from . import METHODS, Method, settings

SHORT = {"tlla": "STSS", "single": "SingleView", "mean": "MeanViews", "entropy": "EntropyMean"}


def _find_method(name: str) -> type[Method]:
    """The method of that name, upper or lower case; TLLA's is STSS. InputError if there is none."""
    if not isinstance(name, str):
        raise InputError(f"the method must be a name, such as 'STSS', but got {short(name)}")
    known = {known.lower(): known for known in METHODS} | SHORT
    if name.lower() not in known:
        raise InputError(f"there is no method {name!r}: {nearest(name, [*METHODS, *SHORT])}")
    return METHODS[known[name.lower()]]


def build_method(name: str, values: Mapping[str, Any]) -> Method:
    """A method with some settings.

    Args:
        name: See `_find_method`.
        values: By field (``top_s``) or by config key (``TOP_S``).

    Raises:
        InputError: an unknown setting, or a value that it cannot take.

    >>> build_method("stss", {"top_s": 8, "LAMBDA": 0.5})
    STSS(rho=0.5, lam=0.5, n_perturb=8, top_s=8, vote='mean_prob')
    """
    method = _find_method(name)
    fields = {f.name: f for f in dataclasses.fields(method)}
    by_key = {key: field for key, (field, _) in settings(method).items()}
    chosen = {}
    for given, value in values.items():
        field = by_key.get(given.upper(), given.lower())
        if field not in fields:
            known = nearest(given, list(fields)) if fields else "it has none"
            raise InputError(f"{method.__name__} has no setting {given!r}: {known}")
        chosen[field] = _converted(f"{method.__name__}'s setting {field}", value, fields[field].type)
    return method(**chosen)


def _converted(what: str, value: Any, kind: Any) -> Any:
    if kind is int and is_whole(value):
        return int(value)
    if kind is float and (is_whole(value) or isinstance(value, np.floating)):
        return float(value)
    if isinstance(kind, type) and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
        raise InputError(f"{what} must be of the type {kind.__name__}, but got {value!r}")
    return value


def parse_settings(pairs: Iterable[str]) -> dict[str, Any]:
    """``["top_s=8", "vote=majority"]`` as a dict. InputError for a text without ``=``, or a name that comes twice.

    >>> parse_settings(["top_s=8", "vote=majority"])
    {'top_s': 8, 'vote': 'majority'}
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.strip():
            raise InputError(f"a setting must be NAME=VALUE, such as top_s=8, but got {pair!r}")
        if name.strip() in found:
            raise InputError(f"the setting {name.strip()!r} is given twice")
        try:
            found[name.strip()] = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):  # a bare word
            found[name.strip()] = text.strip()
    return found
