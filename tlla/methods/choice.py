"""Builds a test-time method from names and settings that a user typed."""

import ast
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..arguments import is_whole, short
from ..errors import InputError, nearest
from . import METHODS, Method, settings

SHORT = {"tlla": "STSS", "single": "SingleView", "mean": "MeanViews", "entropy": "EntropyMean"}


def find_method(name: str) -> type[Method]:
    """The method of that name in any case, or of a short name; InputError if there is none.

    >>> find_method("tlla").__name__
    'STSS'
    """
    if not isinstance(name, str):
        raise InputError(f"the method must be a name, such as 'STSS', but got {short(name)}")
    known = {known.lower(): known for known in METHODS} | SHORT
    if name.lower() not in known:
        raise InputError(f"there is no method {name!r}: {nearest(name, [*METHODS, *SHORT])}")
    return METHODS[known[name.lower()]]


def build_method(name: str, values: Mapping[str, Any]) -> Method:
    """Builds a method.

    Args:
        name: Name of the method in any case, or "tlla" (STSS), "single", "mean" or "entropy".
        values: Settings, by field (``top_s``) or config key (``TOP_S``).

    Raises:
        InputError: the method or a setting is unknown, or a value is invalid.

    >>> build_method("stss", {"top_s": 8, "LAMBDA": 0.5})
    STSS(rho=0.5, lam=0.5, n_perturb=8, top_s=8, vote='mean_prob', rule='stss')
    """
    method = find_method(name)
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


def refuse_unknown(method: Method) -> None:
    """Raises InputError if a method needs what a prediction does not know: true classes, or the whole test set.

    >>> refuse_unknown(build_method("zero", {"rule": "oracle"}))
    Traceback (most recent call last):
    tlla.errors.InputError: the rule oracle keeps views by true classes, which are not known of images to predict: ...
    """
    if method.uses_labels:
        raise InputError(
            f"the rule {method.build_rule()} keeps views by true classes, which are not known of images to predict: "
            "choose another rule, or test it on a dataset by train.py"
        )
    if method.needs_dataset:
        raise InputError(
            f"{type(method).__name__} needs {method.needs_dataset}, but images to predict come one by one: "
            "choose another method, or test it on a dataset by train.py"
        )


def _converted(what: str, value: Any, kind: Any) -> Any:
    if kind is int and is_whole(value):
        return int(value)
    if kind is float and (is_whole(value) or isinstance(value, np.floating)):
        return float(value)
    if isinstance(kind, type) and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
        raise InputError(f"{what} must be of the type {kind.__name__}, but got {value!r}")
    return value


def parse_settings(pairs: Iterable[str]) -> dict[str, Any]:
    """Parses texts NAME=VALUE; InputError for a text without ``=`` or a repeated name.

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
        except (ValueError, SyntaxError, MemoryError, RecursionError):  # a word without quotes
            found[name.strip()] = text.strip()
    return found
