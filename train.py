"""CoOp's command line: builds the config and the trainer, then trains or evaluates. See python train.py --help."""

import argparse
import contextlib
import functools
import json
import os
import re
import sys
import traceback

from tlla import command_line
from tlla.train_flags import parse_args

if __name__ == "__main__":
    command_line.start(__file__)
    parse_args()  # here first, as --help and a wrong flag need no torch

from pathlib import Path

import torch
from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY, build_trainer
from dassl.utils import collect_env_info, set_random_seed, setup_logger
from yacs.config import CfgNode

import datasets
import trainers
from tlla.errors import InputError, nearest
from trainers.config.limits import check_limits
from trainers.config.yaml_files import load_yaml
from trainers.harness import distributed

HERE = Path(__file__).resolve().parent


def build_cfg(args: argparse.Namespace) -> CfgNode:
    """The frozen config of a run.

    Raises:
        InputError: a file, a key or a value that is not known, with the nearest known names.
    """
    cfg = get_cfg_default()
    trainers.add_configs(cfg)
    datasets.add_configs(cfg)
    defaults = cfg.clone()
    for file in filter(None, (args.dataset_config_file, *args.config_file)):
        _merge_file(cfg, file)
    _merge_flags(cfg, args)
    pairs = command_line.take_pairs(cfg, args.opts)
    _merge(cfg, lambda: _merge_pairs(cfg, pairs), "the command line")
    check_limits(cfg, defaults)
    _check_registered("--trainer (TRAINER.NAME)", cfg.TRAINER.NAME, TRAINER_REGISTRY.registered_names())
    _check_registered("DATASET.NAME", cfg.DATASET.NAME, DATASET_REGISTRY.registered_names())
    cfg.freeze()
    return cfg


def _merge_file(cfg: CfgNode, file: str) -> None:
    path = next((p for p in (Path(file), HERE / file) if p.is_file()), None)
    if path is None:
        folder = Path(file).parent if Path(file).parent.is_dir() else HERE / Path(file).parent
        present = sorted(p.name for p in folder.glob("*.yaml"))
        raise InputError(f"there is no config file {file}: {nearest(Path(file).name, present)}")
    if path.suffix not in (".yaml", ".yml"):
        raise InputError(f"the config file {path} must be YAML (.yaml), not {path.suffix or 'a file without suffix'}")
    content = load_yaml(path, cfg)
    if not isinstance(content, dict):
        what = "is empty" if content is None else f"holds a {type(content).__name__}"
        raise InputError(f"the config file {path} {what}: keys and values were expected, such as SEED: 1")
    content = command_line.take_texts(cfg, content)
    _merge(cfg, lambda: cfg.merge_from_other_cfg(CfgNode(_with_floats(content, cfg))), str(path))


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


def _merge(cfg: CfgNode, merge, source: str) -> None:
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
    for key in set(pairs[::2]) - set(_all_keys(cfg)):
        raise KeyError(f"Non-existent config key: {key}")
    for i in range(1, len(pairs), 2):
        if re.fullmatch(r"[+-]?\d+", pairs[i]) and isinstance(_value(cfg, pairs[i - 1]), float):
            pairs[i] += ".0"
    cfg.merge_from_list(pairs)


def _value(cfg: CfgNode, key: str) -> object:
    return functools.reduce(lambda node, name: node[name], key.split("."), cfg)


def nearest_key(key: str, cfg: CfgNode) -> str:
    """The known keys that a mistyped one is nearest to."""
    known = list(_all_keys(cfg))
    inside = [k for k in known if k.rpartition(".")[0] == key.rpartition(".")[0]]
    if inside:
        return nearest(key, inside)
    hint, _, _ = nearest(key, known).partition(" (known:")
    return hint if hint.startswith("did") else "see the defaults in trainers/ and the toolkit"


def _all_keys(node: CfgNode, prefix: str = ""):
    for name, value in node.items():
        yield prefix + name
        if isinstance(value, CfgNode):
            yield from _all_keys(value, f"{prefix}{name}.")


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
    cfg.merge_from_list(command_line.take_pairs(cfg, given))


def _check_registered(what: str, name: str, known: list[str]) -> None:
    if name not in known:
        raise InputError(f"{what} {name!r} is not registered: {nearest(name, list(known))}")


def run(args: argparse.Namespace) -> None:
    """Trains, or evaluates with --eval-only."""
    cfg = build_cfg(args)
    _refuse_other_trainer(cfg)
    distributed.start(cfg.USE_CUDA)
    with _log(cfg.OUTPUT_DIR):
        if cfg.SEED >= 0:
            print(f"Setting fixed seed: {cfg.SEED}")
            set_random_seed(cfg.SEED)
        if torch.cuda.is_available() and cfg.USE_CUDA:
            _keep_bits()
        print(f"** Arguments **\n{_listing(args)}\n** Config **\n{cfg}\n** System info **\n{collect_env_info()}\n")
        trainer = build_trainer(cfg)
        if args.eval_only or not getattr(trainer, "trains", True):
            trainer.load_model(args.model_dir, epoch=args.load_epoch)
            trainer.test()
        elif not args.no_train:
            trainer.train()


def _keep_bits() -> None:
    """On a GPU: the same kernels in each process, so that a run which is resumed has the same bits; fp32 means fp32."""
    torch.backends.cudnn.benchmark = False  # times kernels anew in each process
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.enable_cudnn_sdp(False)  # its backward pass adds up in any order


@contextlib.contextmanager
def _log(folder: str):
    """Copies what is printed to the folder's log.txt; only the first of several processes prints.

    What a command prints that is refused in the folder of an earlier run goes to refused.log.
    """
    if not distributed.is_first():
        with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
            yield
        return
    older = set(Path(folder).glob("log.txt-*"))
    log = setup_logger(folder)
    kept = set(Path(folder).glob("log.txt-*")) - older  # what was log.txt
    refused = False
    try:
        yield
    except (ValueError, OSError):
        refused = True
        raise
    finally:
        if hasattr(log, "close"):  # upstream Dassl's logger lasts as long as the process
            log.close()
            if refused and kept:  # log.txt stays that of the run, by which tables read it
                Path(folder, "log.txt").replace(Path(folder, "refused.log"))
                kept.pop().replace(Path(folder, "log.txt"))


def _refuse_other_trainer(cfg: CfgNode) -> None:
    """Raises InputError if the results of another trainer's run in the folder would be overwritten."""
    path = Path(cfg.OUTPUT_DIR) / "results.json"
    try:
        other = json.loads(path.read_text(encoding="utf-8"))["trainer"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return  # there is none, or it is broken: tables say so
    if other != cfg.TRAINER.NAME and not cfg.RESUME:
        raise InputError(
            f"{path} is of another run: TRAINER.NAME is {other!r} there and {cfg.TRAINER.NAME!r} here: choose another "
            "--output-dir"
        )


def _listing(args: argparse.Namespace) -> str:
    return "\n".join(f"{name}: {value}" for name, value in sorted(vars(args).items()))


def main(argv: list[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    try:
        code = command_line.call(lambda: run(parse_args(argv)))
    except Exception:  # a mistake in the program: its traceback is wanted
        if distributed.world_size() > 1:
            traceback.print_exc()
            distributed.leave(1)
        raise
    if code:
        distributed.leave(code)
    distributed.stop()
    return code


if __name__ == "__main__":
    sys.exit(main())
