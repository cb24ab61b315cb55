"""CoOp's command line: builds the config and the trainer, then trains or evaluates. See python train.py --help."""

import argparse
import contextlib
import os
import sys
import traceback

from tlla import command_line
from tlla.train_flags import parse_args

if __name__ == "__main__":
    command_line.start(__file__)
    parse_args()  # here first, as --help and a wrong flag need no torch

from pathlib import Path

from dassl.engine import build_trainer
from dassl.utils import collect_env_info, set_random_seed, setup_logger
from yacs.config import CfgNode

import datasets
import trainers
from tlla.errors import InputError
from tlla.precision import keep_bits
from tlla.records.store import RESULTS, peek
from trainers.config.merge import merge
from trainers.harness import distributed

HERE = Path(__file__).resolve().parent


def build_cfg(args: argparse.Namespace) -> CfgNode:
    """The frozen config of a run; InputError for a file, a key or a value that is not known."""
    return merge(args, (trainers.add_configs, datasets.add_configs), HERE)


def run(args: argparse.Namespace) -> None:
    """Trains, or evaluates with --eval-only."""
    cfg = build_cfg(args)
    _refuse_other_trainer(cfg)
    distributed.join_processes(cfg.USE_CUDA)
    with _log(cfg.OUTPUT_DIR):
        if cfg.SEED >= 0:
            print(f"Setting fixed seed: {cfg.SEED}")
            set_random_seed(cfg.SEED)
        keep_bits()
        print(f"** Arguments **\n{_listing(args)}\n** Config **\n{cfg}\n** System info **\n{collect_env_info()}\n")
        trainer = build_trainer(cfg)
        if args.eval_only or not getattr(trainer, "learned", True):
            trainer.load_model(args.model_dir, epoch=args.load_epoch)
            trainer.test()
        elif not args.no_train:
            trainer.train()


@contextlib.contextmanager
def _log(folder: str):
    """Copies what is printed to the folder's log.txt; only the first of several processes prints.

    What a refused command has printed goes to refused.log: tables read log.txt as that of a run. A run that has begun
    has its results there, or folders of checkpoints, shards or tensorboard.
    """
    if not distributed.is_first():
        with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
            yield
        return
    place = Path(folder)
    older = set(place.glob("log.txt-*"))
    log = setup_logger(folder)
    kept = set(place.glob("log.txt-*")) - older  # what was log.txt
    refused = False
    try:
        yield
    except (ValueError, OSError):
        refused = True
        raise
    finally:
        if hasattr(log, "close"):  # upstream Dassl's logger lasts as long as the process
            log.close()
            if refused and (kept or not any(path.is_dir() or path.name == RESULTS for path in place.iterdir())):
                (place / "log.txt").replace(place / "refused.log")
                for path in kept:
                    path.replace(place / "log.txt")


def _refuse_other_trainer(cfg: CfgNode) -> None:
    """Raises InputError if the results of another trainer's run in the folder would be overwritten."""
    folder = Path(cfg.OUTPUT_DIR)
    other = (peek(folder) or {}).get("trainer")  # tables say so of a broken record
    if other not in (None, cfg.TRAINER.NAME) and not cfg.RESUME:
        raise InputError(
            f"{folder / RESULTS} is of another run: TRAINER.NAME is {other!r} there and {cfg.TRAINER.NAME!r} here: "
            "choose another --output-dir"
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
