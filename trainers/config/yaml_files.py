"""YAML that people write: plain values only, no key twice, and no more than it looks like."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tlla.errors import InputError
from tlla.files import read_text

MOST_NODES = 100_000  # values with all aliases written out; the largest config here has some hundred


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # libyaml's is faster, where PyYAML has it
    """Refuses what SafeLoader takes without a word: a key that comes twice, and aliases that grow without bounds."""

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            _count(node, {})
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    what = f"the key {key.value!r} comes twice"
                    raise yaml.constructor.ConstructorError(None, None, what, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Values in a node with all its aliases written out; raises yaml's error if they are too many."""
    if id(node) not in known:
        known[id(node)] = MOST_NODES + 1  # what holds itself has no end
        parts = [x for x in node.value if isinstance(x, yaml.Node)] if isinstance(node.value, list) else []
        parts += [x for pair in node.value for x in pair] if isinstance(node, yaml.MappingNode) else []
        known[id(node)] = 1 + sum(_count(part, known) for part in parts)
    if known[id(node)] > MOST_NODES:
        raise yaml.constructor.ConstructorError(None, None, f"it stands for more than {MOST_NODES:,} values")
    return known[id(node)]


def _as_written(content: Any, written: Any, default: Any) -> Any:
    """The content, with the texts of the file where the default is a text."""
    if isinstance(content, dict) and isinstance(written, dict) and isinstance(default, Mapping):
        return {key: _as_written(value, written.get(key), default.get(key)) for key, value in content.items()}
    plain = isinstance(written, str) and not isinstance(content, (bytes, type(None)))
    return written if plain and isinstance(default, str) else content


def load_yaml(path: Path, defaults: Mapping[str, Any] | None = None) -> Any:
    """The content of a YAML file.

    Args:
        path: The file.
        defaults: A tree; where it has a text, a plain value becomes the text that the file has there: 007, 1e3, 2024.

    Raises:
        InputError: it cannot be read, or is none; the message names the file, and the line if that is known.
    """
    try:
        loader = _Loader(read_text(path))
        node = loader.get_single_node()
        if node is None:
            return None
        written = yaml.constructor.BaseConstructor().construct_document(node)
        return _as_written(loader.construct_document(node), written, defaults)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        reason = reason.replace('in "<unicode string>", ', "in ").removeprefix("in ")
        raise InputError(f"{path} cannot be read as YAML: {reason}") from error
