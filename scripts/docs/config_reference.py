"""The page of all config keys: defaults and types from the config that train.py builds, descriptions from the source.

A key's description is the comment beside the line that sets it: of the toolkit's table of defaults, of an add_config,
or of a field of a test-time method.

    python -m scripts.docs.config_reference    # prints the page
"""

import functools
import inspect
import io
import re
from pathlib import Path
from typing import Any

from dassl.config import defaults, get_cfg_default

import datasets
import trainers
from tlla.fingerprint import config_leaves
from tlla.methods import METHODS, settings

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


def _of_defaults() -> dict[str, str]:
    """Comments of the toolkit's defaults by full key, read by their indentation; of a shared table by name."""
    path: list[str] = []
    found = {}
    for indent, key, text in re.findall(r'^( +)"(\w+)":(?:.*?  # (.*))?', inspect.getsource(defaults), re.M):
        path[len(indent) // 4 - 1 :] = [key]
        found[".".join(path)] = text
    return found


def _of_trainers() -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Comments of the lines ``cfg.A.KEY = ...`` and ``node.KEY = ...``: by node, and those of no node's own file."""
    of_node: dict[str, dict[str, str]] = {}
    shared: dict[str, str] = {}
    for package in (trainers, datasets):
        for file in sorted(Path(package.__file__).parent.rglob("*.py")):
            source = file.read_text(encoding="utf-8")
            found = dict(re.findall(r"^ +(?:cfg|node)\.([A-Z][\w.]*) = .*?  # (.*)", source, re.M))
            nodes = re.findall(r"^ +cfg\.TRAINER\.(\w+) = ", source, re.M)
            of_node |= {node: found for node in nodes}
            shared |= {key: text for key, text in found.items() if "." in key or not nodes}
    return of_node, shared


@functools.cache
def _of_fields(method: type) -> dict[str, str]:
    """Comments of the fields of a method and its bases, by field."""
    own = re.findall(r"^ +(\w+): [^=#]+ = .*?  # (.*)", inspect.getsource(method), re.M)
    return {**(_of_fields(method.__mro__[1]) if method.__mro__[2:] else {}), **dict(own)}


def read_descriptions() -> tuple[dict[str, Any], dict[str, str]]:
    """The default and the description of each key; "" where there is no description."""
    cfg = get_cfg_default()
    trainers.add_configs(cfg)
    datasets.add_configs(cfg)
    values = dict(config_leaves(cfg))
    of_defaults, (of_node, shared) = _of_defaults(), _of_trainers()
    methods = {name.upper(): method for name, method in METHODS.items()} | {"TLLA": METHODS["STSS"]}
    described = {}
    for key in values:
        *nodes, name = key.split(".")
        node = nodes[-1] if nodes else ""
        found = [of_defaults.get(key), shared.get(key)]
        if node in methods and name in settings(methods[node]):
            found = [_of_fields(methods[node]).get(settings(methods[node])[name][0])]
        elif nodes[:1] == ["TRAINER"]:
            found = [shared.get(key), of_node.get(node, {}).get(name), shared.get(name)]
        elif nodes:
            found.append(of_defaults.get(name))
        described[key] = ACCEPTED if node in defaults.TRAINER_DEFAULTS else next(filter(None, found), "")
    described["TRAINER.NAME"] = "the trainer; --trainer"
    return values, described


def _row(key: str, value: Any, text: str) -> str:
    shown = f'"{value}"' if isinstance(value, str) else str(value)
    kind = {"str": "text", "bool": "True or False", "int": "integer", "float": "number"}.get(
        type(value).__name__, type(value).__name__
    )
    text = text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
    return f"| `{key}` | `{shown}` | {kind} | {text} |"


def reference_page() -> str:
    """The page, Markdown: a table for each node."""
    values, described = read_descriptions()
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
