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


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}",
        description=__doc__,
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
