"""The config of a run: defaults, then files, flags and KEY VALUE pairs; what is not known is refused by its name."""

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY
from yacs.config import CfgNode

from tlla.command_line import take_pairs, take_texts
from tlla.errors import InputError, nearest
from tlla.fingerprint import config_leaves, flat_config

from .choose_protocol import apply_protocol
from .limits import check_limits
from .yaml_files import load_yaml


def merge(args: argparse.Namespace, add_configs: Sequence[Callable[[CfgNode], None]], folder: Path) -> CfgNode:
    """The frozen config of a run.

    Args:
        args: Of `tlla.train_flags`.
        add_configs: Each adds nodes to the defaults.
        folder: Of the checkout, where config files are looked for beside the working directory.

    Raises:
        InputError: a file, a key or a value that is not known, with the nearest known names.
    """
    cfg = get_cfg_default()
    for add in add_configs:
        add(cfg)
    defaults = dict(config_leaves(cfg))
    given: set[str] = set()
    for file in filter(None, (args.dataset_config_file, *args.config_file)):
        given |= _merge_file(cfg, file, folder)
    _merge_flags(cfg, args)
    pairs = take_pairs(cfg, args.opts)
    _merge(cfg, lambda: _merge_pairs(cfg, pairs), "the command line")
    check_limits(cfg, defaults)
    _check_registered("--trainer (TRAINER.NAME)", cfg.TRAINER.NAME, TRAINER_REGISTRY.registered_names())
    _check_registered("DATASET.NAME", cfg.DATASET.NAME, DATASET_REGISTRY.registered_names())
    apply_protocol(cfg, given | set(args.opts[::2]), folder)
    cfg.freeze()
    return cfg


def _merge_file(cfg: CfgNode, file: str, folder: Path) -> set[str]:
    """Merges a file, and returns the keys that it sets."""
    path = next((p for p in (Path(file), folder / file) if p.is_file()), None)
    if path is None:
        inside = Path(file).parent if Path(file).parent.is_dir() else folder / Path(file).parent
        present = sorted(p.name for p in inside.glob("*.yaml"))
        raise InputError(f"there is no config file {file}: {nearest(Path(file).name, present)}")
    if path.suffix not in (".yaml", ".yml"):
        raise InputError(f"the config file {path} must be YAML (.yaml), not {path.suffix or 'a file without suffix'}")
    content = load_yaml(path, cfg)
    if not isinstance(content, dict):
        what = "is empty" if content is None else f"holds a {type(content).__name__}"
        raise InputError(f"the config file {path} {what}: keys and values were expected, such as SEED: 1")
    others = take_texts(cfg, content)
    _merge(cfg, lambda: cfg.merge_from_other_cfg(CfgNode(_with_floats(others, cfg))), str(path))
    return set(flat_config(content))


def _with_floats(content: dict, node: CfgNode) -> dict:
    """Whole numbers become floats where the config has a float: yacs takes no 0 for 0.0."""
    found = {}
    for key, value in content.items():
        default = node.get(key)
        if isinstance(value, dict) and isinstance(default, CfgNode):
            value = _with_floats(value, default)
        elif isinstance(default, float) and type(value) is int:
            value = float(value)
        found[key] = value
    return found


def _merge(cfg: CfgNode, merge: Callable[[], None], source: str) -> None:
    """Runs one of yacs's merges and says in one sentence what it did not like."""
    try:
        merge()
    except Exception as error:  # yacs's errors share no base class
        reason = " ".join(str(error.args[0] if error.args else error).split())
        if reason.startswith("Non-existent"):
            key = reason.rsplit(": ", 1)[-1]
            raise InputError(f"{source} sets the unknown config key {key}: {nearest_key(key, cfg)}") from error
        if len(reason) > 400:  # it names the key at its end
            reason = f"{reason[:250]} ... {reason[-120:]}"
        raise InputError(f"{source} cannot be merged into the config: {reason}") from error


def _merge_pairs(cfg: CfgNode, pairs: list[str]) -> None:
    for key in set(pairs[::2]) - set(all_keys(cfg)):
        raise KeyError(f"Non-existent config key: {key}")
    values = dict(config_leaves(cfg))
    for i in range(1, len(pairs), 2):
        if re.fullmatch(r"[+-]?\d+", pairs[i]) and isinstance(values.get(pairs[i - 1]), float):
            pairs[i] += ".0"
    cfg.merge_from_list(pairs)


def nearest_key(key: str, cfg: CfgNode) -> str:
    """The known keys that a mistyped one is nearest to."""
    known = list(all_keys(cfg))
    inside = [k for k in known if k.rpartition(".")[0] == key.rpartition(".")[0]]
    if inside:
        return nearest(key, inside)
    hint, _, _ = nearest(key, known).partition(" (known:")
    return hint if hint.startswith("did") else "see the defaults in trainers/ and the toolkit"


def all_keys(node: CfgNode, prefix: str = "") -> Iterator[str]:
    """All keys below a node, nodes among them: DATASET, DATASET.NAME ..."""
    for name, value in node.items():
        yield prefix + name
        if isinstance(value, CfgNode):
            yield from all_keys(value, f"{prefix}{name}.")


def _merge_flags(cfg: CfgNode, args: argparse.Namespace) -> None:
    flags = {
        "DATASET.ROOT": args.root,
        "OUTPUT_DIR": args.output_dir,
        "RESUME": args.resume,
        "SEED": args.seed,
        "DATASET.SOURCE_DOMAINS": args.source_domains,
        "DATASET.TARGET_DOMAINS": args.target_domains,
        "INPUT.TRANSFORMS": args.transforms,
        "TRAINER.NAME": args.trainer,
        "MODEL.BACKBONE.NAME": args.backbone,
        "MODEL.HEAD.NAME": args.head,
        "TEST.FRESH": args.fresh or None,
    }
    given = [x for key, value in flags.items() if value is not None for x in (key, value)]
    cfg.merge_from_list(take_pairs(cfg, given))


def _check_registered(what: str, name: str, known: list[str]) -> None:
    if name not in known:
        raise InputError(f"{what} {name!r} is not registered: {nearest(name, list(known))}")
