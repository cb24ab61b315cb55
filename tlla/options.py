"""A choice that has settings of its own, written as a text: "entropy", "tsallis(q=0.3)"."""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, TypeVar

from .arguments import number, short, whole
from .errors import InputError, nearest


@dataclass(frozen=True)
class Option:
    """A choice. A subclass has a name, and its settings as fields: numbers, at least 0."""

    name: ClassVar[str]

    def __post_init__(self) -> None:
        for field in fields(self):
            check = whole if field.type is int else number
            object.__setattr__(self, field.name, check(field.name, getattr(self, field.name)))

    def __str__(self) -> str:
        """The text that names it: the name, and the settings that are not the defaults."""
        changed = [f"{f.name}={value}" for f in fields(self) if (value := getattr(self, f.name)) != f.default]
        return self.name + (f"({','.join(changed)})" if changed else "")


Kind = TypeVar("Kind", bound=Option)


def parse_option(
    text: Any, known: Mapping[str, type[Kind]], key: str, kind: str, example: str, own: Kind | None = None
) -> Kind:
    """The option that a text names.

    Args:
        text: A name in any case, with settings in brackets.
        known: The classes by name.
        key: The setting that holds the text, for messages.
        kind: What an option is called in messages.
        example: A text with a setting.
        own: If the text names this option, the settings that it leaves out are those of `own`.

    Raises:
        InputError: There is no such option or setting, or a value is invalid.

    >>> parse_option("fast", {"slow": Option}, "MODE", kind="mode", example="slow(n=2)")
    Traceback (most recent call last):
    tlla.errors.InputError: MODE 'fast' is not a mode: known are slow
    """
    said = f"{key} {short(text)}"
    match = re.fullmatch(r"\s*(\w+)\s*(?:\((.*)\)\s*)?", text) if isinstance(text, str) else None
    if match is None:
        how = f"write a name, with settings as in '{example}'"
        raise InputError(f"{said} is not a {kind}: {how} (known: {', '.join(sorted(known))})")
    name, inside = match[1].lower(), match[2] or ""
    if name not in known:
        raise InputError(f"{said} is not a {kind}: {nearest(name, [*known])}")
    option = own if own is not None and own.name == name else known[name]()
    values = dict(_setting(part, option, said, kind) for part in inside.split(",") if part.strip())
    try:
        return replace(option, **values)
    except InputError as error:
        raise InputError(f"{said}: {error}") from error


def _setting(part: str, option: Option, said: str, kind: str) -> tuple[str, Any]:
    """The name and the value of a setting, NAME=VALUE."""
    name, _, value = (word.strip() for word in part.partition("="))
    known = [field.name for field in fields(option)]
    if name not in known:
        has = f"no setting {name!r}: {nearest(name, known)}" if known else "no settings: leave them out"
        raise InputError(f"{said} cannot be used, as the {kind} {option.name} has {has}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return name, value  # refused as no number
