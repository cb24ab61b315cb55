"""Looks after the datasets: what there is, what is missing, how to get it.

    python -m datasets list [--root R]
    python -m datasets explain OxfordPets
    python -m datasets check OxfordPets --root R [--deep]
    python -m datasets download OxfordPets --root R [--split-only]
    python -m datasets fewshot OxfordPets --root R --shots 16 --seed 1
    python -m datasets example FOLDER [--cloth]

Exit codes: 0 all is well, 1 a fault was found or a download failed, 2 wrong usage.
"""

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
from .care.document import describe, document, table, text_table
from .care.download import download
from .care.example import make_example
from .care.transfer import DownloadError
from .catalog import CATALOG


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    summary, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}",
        description=f"{summary}\n\n{rest}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("list", help="a table of the datasets")
    add.add_argument("--root", help="data root: also says which datasets are there")
    add.add_argument("--markdown", action="store_true", help="writes DATASETS.md's text instead")
    add = commands.add_parser("explain", help="licence, numbers, expected tree and how to get a dataset")
    add.add_argument("name")
    add = _with_pairs(_with_root(commands.add_parser("check", help="compares the folder with the split")))
    add.add_argument("--deep", action="store_true", help="also decodes every image")
    add = _with_root(commands.add_parser("download", help="gets what a program can get"))
    add.add_argument("--split-only", action="store_true", help="only CoOp's split file")
    add = _with_pairs(_with_root(commands.add_parser("fewshot", help="draws, stores and shows a few-shot split")))
    add.add_argument("--shots", type=int, default=16)
    add.add_argument("--seed", type=int, default=1)
    add = commands.add_parser("example", help="a folder of images to try ImageFolder on")
    add.add_argument("folder")
    add.add_argument("--cloth", action="store_true", help="three kinds of cloth, which EmojiCLIP does not know")
    return parser.parse_args(argv)


def _with_root(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("name")
    parser.add_argument("--root", required=True, help="folder of the datasets (ImageFolder: the folder itself)")
    return parser


def _with_pairs(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument(
        "--opts", nargs="+", default=[], metavar="KEY VALUE", help="config pairs, e.g. DATASET.SPLIT_FILE my.csv"
    )
    return parser


def find_name(name: str, known: list[str]) -> str:
    """The registered name, whatever its case.

    Raises:
        InputError: it is not known.
    """
    names = {k.lower(): k for k in known}
    if name.lower() not in names:
        raise InputError(f"there is no dataset {name!r}: {nearest(name, known)}")
    return names[name.lower()]


def build_cfg(name: str, args: argparse.Namespace) -> CfgNode:
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
    print(document() if args.markdown else text_table(*table(args.root)), end="" if args.markdown else "\n")
    return 0


def run_explain(args: argparse.Namespace) -> int:
    """Prints what is known about a dataset."""
    print(describe(find_name(args.name, list(CATALOG))))
    return 0


def run_check(args: argparse.Namespace) -> int:
    """Prints the findings; 1 if one is a fault."""
    name = find_name(args.name, [*CATALOG, "ImageFolder"])
    faults = 0
    for finding in check(name, build_cfg(name, args).DATASET, args.deep):
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
    cfg = build_cfg(name, args)
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
    command_line.start(__file__)
    sys.exit(main())
