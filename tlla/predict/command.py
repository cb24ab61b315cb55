"""Predicts one's own images: python predict.py IMAGES ... --classes NAME ... (or python -m tlla.predict).

    python predict.py photos/ --classes cat dog horse
    python predict.py photos/ --prompt output/SAPT/seed1 --csv predictions.csv --explain views/
    find photos -name '*.jpg' -print0 | python predict.py - -0 --classes-file names.txt --method zero

IMAGES are files, folders with all that is in them, patterns, or - for paths on the standard input. The table goes to
the standard output, everything else to stderr. Files are written at the end, whole or not at all; until then the rows
are in FILE.<fingerprint>.part, from which the same command goes on if it was stopped.
Exit codes: 0 done, 1 some images could not be read, 2 the input was wrong, 130 stopped.
"""

import argparse
import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..backbones import as_backbone
from ..errors import InputError
from ..files import write_bytes
from ..fingerprint import EXTRAS, PACKAGES, files_sha256, source_sha256, versions, weights_sha256
from ..predictor import PRECISIONS, Batch, Predictor
from ..rows import Row, csv_text, json_line, printable, table_text
from ..signals import stop_at_sigterm
from .inputs import build_predictor, read_inputs
from .journal import Journal


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(
        prog="predict.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="+", help="files, folders, patterns, or - (put them before --classes)")
    parser.add_argument("-0", "--null", action="store_true", help="paths on the standard input end with NUL")
    names = parser.add_mutually_exclusive_group()
    names.add_argument("--classes", nargs="+", metavar="NAME", help="the class names (default: the checkpoint's)")
    names.add_argument("--classes-file", metavar="FILE", help="text with one class name a line")
    names.add_argument("--classes-from", metavar="FOLDER", help="the names of its subfolders are the classes")
    parser.add_argument(
        "--prompt", help='template, imagenet7, imagenet80, checkpoint or run (default: "a photo of a {}.")'
    )
    parser.add_argument("--load-epoch", type=int, metavar="N", help="epoch of that run (default: the newest)")
    parser.add_argument("--backbone", help="a CLIP by name or file (default: the checkpoint's, else ViT-B/16)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: a GPU if there is one)")
    parser.add_argument("--precision", default="fp32", choices=PRECISIONS, help="amp: encoders in fp16 on a GPU")
    parser.add_argument("--method", default="tlla", help="tlla (STSS), single, zero, mta, tpt ... (docs/methods.md)")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="the method's settings: top_s=8 lam=0.5"
    )
    parser.add_argument("--views", type=int, default=64, help="views of an image (default: 64)")
    parser.add_argument("--crop-scale", type=float, nargs=2, default=(0.08, 1.0), metavar=("LOW", "HIGH"))
    parser.add_argument("--augmix", action="store_true", help="views also pass AugMix")
    parser.add_argument("--seed", type=int, default=0, help="of views and perturbations (default: 0)")
    parser.add_argument("--batch-views", type=int, default=512, help="views encoded at once; less needs less memory")
    parser.add_argument("--workers", type=int, default=2, help="threads that read images (default: 2)")
    parser.add_argument("--top-k", type=int, default=3, help="classes shown of an image (default: 3)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write one line an image")
    parser.add_argument("--jsonl", type=Path, metavar="FILE", help="write one JSON object an image")
    parser.add_argument("--explain", type=Path, metavar="DIR", help="draw of each image which views voted, and how")
    parser.add_argument("--fresh", action="store_true", help="do not go on from the rows of a stopped run")
    parser.add_argument("--quiet", action="store_true", help="print no table and no progress")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Predicts, prints and writes; returns the exit code."""
    images = read_inputs(args)
    predictor = build_predictor(args)
    fresh = args.fresh or predictor.method.online  # what an online method has learned is not kept
    journal = Journal(args.jsonl or args.csv, _everything(args, predictor, images), predictor.batch_size, fresh)
    if journal.rows:
        done = f"{len(journal.rows):,} of {len(images):,} images"
        _say(f"going on after {done}, which an earlier run has done (--fresh: not)")
    try:
        _predict_all(args, predictor, images, journal)
    except KeyboardInterrupt:
        kept = f"; their rows are in {journal.path}, run the same command again to go on" if journal.path else ""
        _say(f"stopped after {len(journal.rows):,} of {len(images):,} images{kept}")
        if journal.path is None:
            _print_table(args, journal.rows)
        return 130
    _write_files(args, journal.rows)
    journal.remove()
    _print_table(args, journal.rows)
    return _finish(journal.rows)


def _everything(args: argparse.Namespace, predictor: Predictor, images: list[str]) -> dict[str, Any]:
    """All that can change a row, or a drawing, which is made with it."""
    return {
        "images": [images, files_sha256(images)],
        "classes": predictor.class_names,
        "prompt": predictor.classifier.identity(),
        "weights": [as_backbone(predictor.model).name, weights_sha256(predictor.model, exact=True)],
        "method": [type(predictor.method).__name__, dataclasses.asdict(predictor.method)],
        "views": dataclasses.asdict(predictor.views),
        "batch": [predictor.batch_views, predictor.top_k, predictor.amp, predictor.device.type],
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
    from .drawing import png  # here, as matplotlib's fonts are not needed otherwise
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
        print(table.encode("utf-8", "backslashreplace").decode(), flush=True)


def _finish(rows: list[Row]) -> int:
    bad = sum("error" in row for row in rows)
    good = len(rows) - bad
    seconds = sum(row.get("seconds", 0) for row in rows) / max(good, 1)
    _say(f"{good:,} images predicted, {seconds:.3f} s an image" + (f"; {bad:,} could not be read" if bad else ""))
    return 1 if bad else 0


def _say(text: str) -> None:
    print(text.replace("\n", "\\n"), file=sys.stderr)  # a file's name may have any character


def main(argv: list[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    stop_at_sigterm()
    args = parse_args(argv)
    try:
        return run(args)
    except BrokenPipeError:  # of the table's reader, such as head; the files are written
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (InputError, OSError) as error:
        if os.environ.get("TLLA_DEBUG"):
            raise
        _say(f"error: {error}")
        return 2
    except torch.OutOfMemoryError:
        _say(f"error: the GPU's memory is full with {args.batch_views} views at once: lower --batch-views")
        return 2
    except KeyboardInterrupt:
        _say("stopped")
        return 130
