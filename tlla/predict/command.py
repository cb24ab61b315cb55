"""What predict.py does with its arguments."""

import argparse
import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .. import command_line
from ..backbones import as_backbone
from ..files import write_bytes
from ..fingerprint import EXTRAS, PACKAGES, files_sha256, source_sha256, versions, weights_sha256
from ..precision import keep_bits
from .flags import parse_args
from .inputs import build_predictor, read_inputs
from .journal import Journal
from .predictor import Batch, Predictor
from .rows import Row, csv_text, json_line, printable, table_text


def run(args: argparse.Namespace) -> int:
    """Predicts, prints and writes; returns the exit code.

    >>> run(parse_args(["fruit.png", "--classes", "fruit", "bird", "--backbone", "EmojiCLIP", "--method", "single"]))
    file       prediction       %  2.           entropy
    ---------  ------------  ----  ---------  ---------
    fruit.png  fruit         81.9  bird 18.1      0.473
    0
    """
    keep_bits()
    images = read_inputs(args)
    predictor = build_predictor(args)
    fresh = args.fresh or predictor.method.online  # an online method's state is not saved
    journal = Journal(args.jsonl or args.csv, _everything(args, predictor, images), predictor.batch_size, fresh)
    if journal.rows:
        done = f"{len(journal.rows):,} of {len(images):,} images"
        _say(f"resuming after {done}, predicted by an earlier run (--fresh starts again)")
    try:
        _predict_all(args, predictor, images, journal)
    except KeyboardInterrupt:
        kept = f"; their rows are in {journal.path}, run the same command again to resume" if journal.path else ""
        _say(f"stopped after {len(journal.rows):,} of {len(images):,} images{kept}")
        if journal.path is None:
            _print_table(args, journal.rows)
        return 130
    _write_files(args, journal.rows)
    journal.remove()
    _print_table(args, journal.rows)
    return _finish(journal.rows)


def _everything(args: argparse.Namespace, predictor: Predictor, images: list[str]) -> dict[str, Any]:
    """Everything that can change a row or its drawing."""
    return {
        "images": [images, files_sha256(images)],
        "classes": predictor.class_names,
        "prompt": predictor.classifier.identity(),
        "weights": [as_backbone(predictor.model).name, weights_sha256(predictor.model, exact=True)],
        "method": [type(predictor.method).__name__, dataclasses.asdict(predictor.method)],
        "views": dataclasses.asdict(predictor.views),
        "batch": [predictor.batch_views, predictor.margin, predictor.top_k, predictor.precision, predictor.device.type],
        "drawings": str(args.explain or ""),
        "versions": versions((*PACKAGES, *EXTRAS)),
        "source": source_sha256(Path(__file__).parents[1]),
    }


def _predict_all(args: argparse.Namespace, predictor: Predictor, images: list[str], journal: Journal) -> None:
    start = len(journal.rows)
    off = True if args.quiet else None  # None: off unless stderr is a terminal
    with tqdm(total=len(images), initial=start, unit="img", disable=off) as bar:
        for batch in predictor.batches(images[start:], args.workers, start, thumbnails=bool(args.explain)):
            if args.explain:
                _draw(batch, predictor, args.explain)
            journal.append(list(batch.predictions.rows()))
            for error in batch.predictions.errors:
                with bar.external_write_mode(file=sys.stderr):
                    _say(f"image {error.index}: {printable(error.reason)}")
            bar.update(len(batch.predictions) + len(batch.predictions.errors))


def _draw(batch: Batch, predictor: Predictor, folder: Path) -> None:
    from .drawing import png  # imported here, as only drawings need matplotlib's fonts
    from .explain import draw, looks

    for index, look in looks(batch, predictor.views):
        write_bytes(folder / f"{index:05d}_{Path(look.name).stem[:100]}.png", png(draw(look)))


def _write_files(args: argparse.Namespace, rows: list[Row]) -> None:
    if args.csv:
        write_bytes(args.csv, csv_text(rows).encode("utf-8", "surrogateescape"))
    if args.jsonl:
        write_bytes(args.jsonl, "".join(map(json_line, rows)).encode())


def _print_table(args: argparse.Namespace, rows: list[Row]) -> None:
    table = table_text(rows)
    if table and not args.quiet:
        try:
            print(table, flush=True)
        except BrokenPipeError:  # the reader has closed the pipe, as head does; the files are written
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _finish(rows: list[Row]) -> int:
    bad = sum("error" in row for row in rows)
    good = len(rows) - bad
    seconds = sum(row.get("seconds", 0) for row in rows) / max(good, 1)
    _say(f"{good:,} images predicted, {seconds:.3f} s per image" + (f"; {bad:,} could not be read" if bad else ""))
    return 1 if bad else 0


def _say(text: str) -> None:
    print(text.replace("\n", "\\n"), file=sys.stderr)  # a file name may have any character


def main(argv: list[str] | None = None) -> int:
    """Runs the command line and returns its exit code.

    >>> main(["fruit.png", "--classes", "cat", "cat"])  # prints that --classes names a class twice
    2
    """
    return command_line.call(lambda: run(parse_args(argv)), stopped="stopped")
