"""python -m datasets: what each command does. Its flags are read first, by the package itself."""

import argparse
import sys
from collections import Counter

from dassl.config import get_cfg_default
from dassl.data.datasets import build_dataset
from yacs.config import CfgNode

from tlla import command_line
from tlla.errors import InputError, nearest

from . import add_configs
from .care.check import check
from .care.document import dataset_table, describe, document, text_table
from .care.download import download
from .care.example import make_example
from .care.transfer import DownloadError
from .catalog import CATALOG
from .flags import parse_args


def find_name(name: str, known: list[str]) -> str:
    """The registered name, whatever its case. InputError if it is not known."""
    names = {k.lower(): k for k in known}
    if name.lower() not in names:
        raise InputError(f"there is no dataset {name!r}: {nearest(name, known)}")
    return names[name.lower()]


def dataset_cfg(name: str, args: argparse.Namespace) -> CfgNode:
    """The config that train.py would give a dataset."""
    cfg = get_cfg_default()
    add_configs(cfg)
    cfg.DATASET.NAME, cfg.DATASET.ROOT = name, args.root
    try:
        cfg.merge_from_list(command_line.take_pairs(cfg, args.opts))
    except InputError:
        raise
    except (AssertionError, KeyError, ValueError) as error:
        raise InputError(f"{' '.join(args.opts)} are no pairs of config keys and values ({error})") from error
    return cfg


def run_list(args: argparse.Namespace) -> int:
    """Prints the table, or DATASETS.md."""
    print(document() if args.markdown else text_table(*dataset_table(args.root)), end="" if args.markdown else "\n")
    return 0


def run_explain(args: argparse.Namespace) -> int:
    """Prints what is known about a dataset."""
    print(describe(find_name(args.name, list(CATALOG))))
    return 0


def run_check(args: argparse.Namespace) -> int:
    """Prints the findings; 1 if one is a fault."""
    name = find_name(args.name, [*CATALOG, "ImageFolder"])
    faults = 0
    for finding in check(name, dataset_cfg(name, args).DATASET, args.deep):
        print(("FAULT  " if finding.fault else "  ok   ") + finding.text, flush=True)
        faults += finding.fault
    print(f"{name}: {faults or 'no'} fault{'s' * (faults != 1)}")
    return 1 if faults else 0


def run_download(args: argparse.Namespace) -> int:
    """Downloads and unpacks."""
    name = find_name(args.name, list(CATALOG))
    try:
        download(name, args.root, args.split_only)
    except DownloadError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def run_fewshot(args: argparse.Namespace) -> int:
    """Draws as a training run does, and prints the number of images of each class."""
    name = find_name(args.name, [*CATALOG, "ImageFolder"])
    if args.shots < 1:
        raise InputError(f"--shots must be 1 or more, but got {args.shots}")
    cfg = dataset_cfg(name, args)
    cfg.DATASET.NUM_SHOTS, cfg.SEED = args.shots, args.seed
    dataset = build_dataset(cfg)
    parts = {"train": dataset.train_x, "val": dataset.val or [], "test": dataset.test}
    counts = [Counter(item.label for item in items) for items in parts.values()]
    rows = [[label, name, *(count[label] for count in counts)] for label, name in dataset.lab2cname.items()]
    print(text_table(rows, ["label", "class", *parts]))
    return 0


def run_example(args: argparse.Namespace) -> int:
    """Makes the example folder."""
    counts = make_example(args.folder, cloth=args.cloth)
    print(f"{args.folder}: {', '.join(f'{count} {part}' for part, count in counts.items())} images")
    return 0


def run(args: argparse.Namespace) -> int:
    """Runs a command; returns the exit code."""
    return globals()[f"run_{args.command}"](args)


def main(argv: list[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    return command_line.call(lambda: run(parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
