"""One self-contained HTML page of a finished run that scores views (TLLA, STSS): tables, and a gallery of test images.

All test images are tested again, which takes as long as the run's test did; the command refuses to write a page whose
numbers are not the run's. Several runs share a page and are chosen there.
"""

import argparse
from pathlib import Path
from typing import Any

from tlla.errors import InputError
from tlla.files import write_text

from .facts import main_facts, version_facts, vote_words
from .gallery import gallery
from .html import page
from .measure import Measured, measure
from .summary import run_tables


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


def run_data(measured: Measured, limit: int) -> dict[str, Any]:
    """All that the page shows of a run, as plain values: facts, tables, and at most `limit` images with their views."""
    return {
        "trainer": measured.record.trainer,
        "method": measured.record.method["name"],
        "dataset": measured.record.content["dataset"],
        "facts": main_facts(measured),
        "versions": version_facts(measured),
        "kept": measured.n_kept,
        "vote": vote_words(measured),
        "augmix": measured.trainer.tester.config.augmix,
        **run_tables(measured),
        "images": gallery(measured, limit),
    }
