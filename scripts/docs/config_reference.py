"""The page of all config keys: defaults and types from the config that train.py builds, descriptions from the source.

A key's description is the comment beside the line that sets it: of the toolkit's table of defaults, of an add_config,
or of a field of a test-time method.

    python -m scripts.docs.config_reference    # prints the page
"""

import ast
import contextlib
import inspect
import io
import sys
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from dassl.config import defaults, get_cfg_default
from yacs.config import CfgNode

import datasets
import trainers
from tlla.methods import METHODS, settings

Place = tuple[str, int]  # file, line
ACCEPTED = "accepted for upstream's files, used by no trainer here"
HEAD = """# All settings

This page is generated from the code. A setting's value is the last of: the default below, `--dataset-config-file`,
`--config-file` (several: in their order), the command line's flags, and its `KEY VALUE` pairs, such as
`TRAINER.SAPT.RHO 0.1`. A key that is not here is refused, with the nearest one that is.
"""
TITLES = {
    "": "Of a run",
    "INPUT": "Images and augmentation",
    "DATASET": "Data",
    "DATALOADER": "Loading",
    "MODEL": "Model",
    "OPTIM": "Optimizer and schedule",
    "TRAIN": "Training",
    "TEST": "Testing",
    "TRAINER": "Trainer",
}


@cache
def comments(file: str) -> dict[int, str]:
    """Comments of a source file by line, without the #."""
    with open(file, "rb") as source:
        tokens = tokenize.tokenize(source.readline)
        return {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}


@contextlib.contextmanager
def _watch(places: dict[tuple[int, str], Place]) -> Iterator[None]:
    """Notes which line sets which key of which node."""
    plain = CfgNode.__setattr__

    def noting(node: CfgNode, name: str, value: Any) -> None:
        caller = sys._getframe(1)
        places[id(node), name] = (caller.f_code.co_filename, caller.f_lineno)
        plain(node, name, value)

    CfgNode.__setattr__ = noting
    try:
        yield
    finally:
        CfgNode.__setattr__ = plain


def _of_defaults() -> dict[str, Place]:
    """Lines of the toolkit's defaults, by full key."""
    file = inspect.getsourcefile(defaults)
    body = ast.parse(Path(file).read_text(encoding="utf-8")).body
    tables = {n.targets[0].id: n.value for n in body if isinstance(n, ast.Assign) and isinstance(n.value, ast.Dict)}
    found: dict[str, Place] = {}

    def walk(table: ast.expr, prefix: str) -> None:
        if isinstance(table, ast.Name):
            table = tables[table.id]
        for key, value in zip(table.keys, table.values, strict=True):
            if key is None:  # ** of another table
                walk(value, prefix)
                continue
            found[prefix + key.value] = (file, key.lineno)
            if isinstance(value, (ast.Dict, ast.Name)):
                walk(value, f"{prefix}{key.value}.")

    walk(tables["DEFAULTS"], "")
    return found


def _of_fields(method: type) -> dict[str, Place]:
    """Lines of the fields of a method and its bases, by field."""
    found: dict[str, Place] = {}
    for cls in reversed(method.__mro__[:-1]):
        file = inspect.getsourcefile(cls)
        lines, start = inspect.getsourcelines(cls)
        body = ast.parse(inspect.cleandoc("".join(lines)) if lines[0][0].isspace() else "".join(lines)).body[0].body
        for node in body:
            if isinstance(node, ast.AnnAssign):
                found[node.target.id] = (file, start + node.lineno - 1)
    return found


def config_leaves(node: CfgNode, prefix: str = "") -> Iterator[tuple[str, CfgNode, Any]]:
    """Full key, node and value of every setting."""
    for name, value in node.items():
        if isinstance(value, CfgNode):
            yield from config_leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, node, value


def read_descriptions() -> tuple[CfgNode, dict[str, str]]:
    """The default config with all keys, and the description of each key; "" where there is none."""
    places: dict[tuple[int, str], Place] = {}
    cfg = get_cfg_default()
    with _watch(places):
        trainers.add_configs(cfg)
        datasets.add_configs(cfg)
    of_defaults = _of_defaults()
    fields = {name.upper(): method for name, method in METHODS.items()} | {"TLLA": METHODS["STSS"]}
    found = {}
    for key, node, _ in config_leaves(cfg):
        section, name = (key.rpartition(".")[0]).rpartition(".")[2], key.rpartition(".")[2]
        place = places.get((id(node), name)) or of_defaults.get(key)
        if section in fields and name in settings(fields[section]):
            place = _of_fields(fields[section])[settings(fields[section])[name][0]]
        found[key] = comments(place[0]).get(place[1], "") if place else ""
        if section in defaults.TRAINER_DEFAULTS:
            found[key] = ACCEPTED
    found["TRAINER.NAME"] = "the trainer; --trainer"
    return cfg, found


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def _row(key: str, value: Any, text: str) -> str:
    shown = f'"{value}"' if isinstance(value, str) else str(value)
    kind = {"str": "text", "bool": "True or False", "int": "integer", "float": "number"}.get(
        type(value).__name__, type(value).__name__
    )
    return f"| `{key}` | `{shown}` | {kind} | {_cell(text)} |"


def reference_page() -> str:
    """The page, Markdown: a table for each node."""
    cfg, described = read_descriptions()
    values = {key: value for key, _, value in config_leaves(cfg)}
    groups: dict[str, list[str]] = {}
    for key in values:
        parts = key.split(".")
        group = ".".join(parts[:2]) if parts[0] == "TRAINER" and len(parts) > 2 else parts[0] if parts[1:] else ""
        groups.setdefault(group, []).append(key)
    unused = [g for g in groups if g.partition(".")[2] in defaults.TRAINER_DEFAULTS]
    out = io.StringIO()
    out.write(HEAD)
    for group in (g for g in groups if g not in unused):
        title = TITLES.get(group, f"`{group}`")
        out.write(f"\n## {title}\n\n| key | default | type | what |\n|---|---|---|---|\n")
        out.writelines(_row(key, values[key], described[key]) + "\n" for key in groups[group])
    out.write(
        f"\n## Of upstream's trainers\n\nThese are {ACCEPTED}.\n\n| key | default | type | what |\n|---|---|---|---|\n"
    )
    out.writelines(_row(key, values[key], "as upstream") + "\n" for group in unused for key in groups[group])
    return out.getvalue()


if __name__ == "__main__":
    print(reference_page(), end="")
