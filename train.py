r"""CoOp's command line: builds the config and the trainer, then trains or evaluates.

    python train.py --trainer SAPT --config-file configs/trainers/SAPT/emoji.yaml \
        --dataset-config-file configs/datasets/emoji.yaml --output-dir output/emoji/SAPT/seed1 --seed 1

Later settings win: defaults, dataset config, trainer config, flags, KEY VALUE pairs. Exit codes: 0 done, 1 the run
failed, 2 the input was wrong, 130 it was stopped; set TLLA_DEBUG=1 to see the traceback of an error.
"""

import argparse
import contextlib
import functools
import os
import re
import sys

if __name__ == "__main__":
    from tlla.startup import before_torch

    before_torch()

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
from tlla.signals import stop_at_sigterm
from trainers import distributed
from trainers.limits import check_limits
from trainers.yaml_files import load_yaml

HERE = Path(__file__).resolve().parent


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """CoOp's flags; a flag that is not given leaves the config as it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="folder of the datasets")
    parser.add_argument("--output-dir", help="folder of the run's results")
    parser.add_argument(
        "--resume",
        help="run from which training goes on, under whatever settings (default: the output folder, under the same)",
    )
    parser.add_argument("--seed", type=int, help="0 or more fixes the randomness; negative: random")
    parser.add_argument("--source-domains", nargs="+", help="source domains")
    parser.add_argument("--target-domains", nargs="+", help="target domains")
    parser.add_argument("--transforms", nargs="+", help="data augmentation")
    parser.add_argument("--config-file", action="append", default=[], help="config of the method; the last wins")
    parser.add_argument("--dataset-config-file", help="config of the dataset")
    parser.add_argument("--trainer", help="SAPT, TLLA, CoOp, CoCoOp, ZeroshotCLIP, TPT, ZERO, Compare ...")
    parser.add_argument(
        "--backbone", help="a CLIP: a name such as ViT-B/16, a file of weights, or open_clip:<name>/<tag>"
    )
    parser.add_argument("--head", help="name of a head (not used by the methods here)")
    parser.add_argument("--eval-only", action="store_true", help="test without training")
    parser.add_argument("--model-dir", default="", help="run whose prompt --eval-only tests")
    parser.add_argument("--load-epoch", type=int, help="epoch of that run (default: the newest)")
    parser.add_argument("--fresh", action="store_true", help="test all images again, also those that a killed test did")
    parser.add_argument("--no-train", action="store_true", help="build everything, then stop")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs, e.g. TRAINER.SAPT.RHO 0.1")
    return parser.parse_args(argv)


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
    _merge(cfg, lambda: _merge_pairs(cfg, args.opts), "the command line")
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
    content = load_yaml(path)
    if not isinstance(content, dict):
        what = "is empty" if content is None else f"holds a {type(content).__name__}"
        raise InputError(f"the config file {path} {what}: keys and values were expected, such as SEED: 1")
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
    pairs = list(pairs)
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
    cfg.merge_from_list(given)


def _check_registered(what: str, name: str, known: list[str]) -> None:
    if name not in known:
        raise InputError(f"{what} {name!r} is not registered: {nearest(name, list(known))}")


def run(args: argparse.Namespace) -> None:
    """Trains, or evaluates with --eval-only."""
    cfg = build_cfg(args)
    distributed.start(cfg.USE_CUDA)
    with _log(cfg.OUTPUT_DIR):
        if cfg.SEED >= 0:
            print(f"Setting fixed seed: {cfg.SEED}")
            set_random_seed(cfg.SEED)
        if torch.cuda.is_available() and cfg.USE_CUDA:
            torch.backends.cudnn.benchmark = True
        print(f"** Arguments **\n{_listing(args)}\n** Config **\n{cfg}\n** System info **\n{collect_env_info()}\n")
        trainer = build_trainer(cfg)
        if args.eval_only or not getattr(trainer, "trains", True):
            trainer.load_model(args.model_dir, epoch=args.load_epoch)
            trainer.test()
        elif not args.no_train:
            trainer.train()


@contextlib.contextmanager
def _log(folder: str):
    """Copies what is printed to the folder's log.txt; only the first of several processes prints."""
    if not distributed.is_first():
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            yield
        return
    log = setup_logger(folder)
    try:
        yield
    finally:
        if hasattr(log, "close"):  # upstream Dassl's logger lasts as long as the process
            log.close()


def _listing(args: argparse.Namespace) -> str:
    return "\n".join(f"{name}: {value}" for name, value in sorted(vars(args).items()))


def one_sentence(error: BaseException) -> str:
    """The message of an error; from a loader's worker process, without the traceback that torch wraps around it."""
    text = str(error).strip() or type(error).__name__
    if "Original Traceback" in text:
        return text.splitlines()[-1].partition(": ")[2]
    return text.replace("\n", "\\n") if isinstance(error, InputError) else text.splitlines()[0]  # names may be odd


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def main(argv: list[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    stop_at_sigterm()
    try:
        run(parse_args(argv))
    except (ValueError, OSError, FloatingPointError) as error:
        if os.environ.get("TLLA_DEBUG"):
            raise
        diverged = isinstance(error, FloatingPointError)
        if not diverged or distributed.is_first():  # all processes see the same loss
            print(f"error: {one_sentence(error)}", file=sys.stderr)
        return 1 if diverged else 2
    except (RuntimeError, MemoryError) as error:
        if _is_out_of_memory(error) and not os.environ.get("TLLA_DEBUG"):
            print(f"error: there is not enough memory ({one_sentence(error)}): use smaller batches", file=sys.stderr)
            return 1
        if distributed.world_size() == 1 or os.environ.get("TLLA_DEBUG"):
            raise
        print(
            f"error: process {distributed.rank()} of {distributed.world_size()} cannot go on, perhaps because another "
            f"one has ended ({one_sentence(error)}); run the same command again to go on",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        return 130
    finally:
        distributed.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
