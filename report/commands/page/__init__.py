"""One self-contained HTML page of a finished run that scores views (TLLA, STSS): tables, and a gallery of test images.

All test images are tested again, which takes as long as the run's test did; the command refuses to write a page whose
numbers are not the run's. Several runs share a page and are chosen there.
"""

import argparse
from pathlib import Path

from report.commands.page.data import run_data
from report.commands.page.html import page
from report.commands.page.measure import measure
from tlla.errors import InputError
from tlla.files import write_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The runs, and how much of them to show."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a finished run of TLLA, STSS ...")
    parser.add_argument("--images", type=int, default=200, metavar="N", help="images a run in the gallery (200)")
    parser.add_argument("--root", default="", help="where the data lies now, if not where the runs found it")


def run(args: argparse.Namespace) -> list[Path]:
    """Writes index.html and returns its path."""
    if args.images < 1:
        raise InputError(f"--images must be at least 1, but got {args.images}")
    # One after another: a run's trainer and views are let go before the next run is opened.
    runs = [run_data(measure(folder, args.root), args.images) for folder in args.runs]
    path = args.out / "index.html"
    write_text(path, page(runs))
    return [path]
