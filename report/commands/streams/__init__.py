r"""Accuracy of online methods over many orders of the test images: mean, spread, worst, expected tail accuracy, best.

    python -m report streams output/emoji/runs/Compare/seed1/emoji --orders 100 --out output/report/streams
    python -m report streams output/tda --stream shuffled by_class "dirichlet(gamma=0.01)"

RUN is a run of an online method, a Compare, or a folder that holds such runs at any depth. The features of the views
are those that the run has kept (TEST.FEATURES), else they are encoded once and kept in <out>/features. Orders have the
seeds 0, 1, ...; those that an earlier call has computed, stopped or not, are kept in <out>/orders. The tail is the mean
of the worst 10 % of the orders.
"""

import argparse
import json
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from tabulate import tabulate

from report.tables.render import escaped
from report.tables.runs import Run, make_runs
from tlla.arguments import whole
from tlla.errors import InputError
from tlla.files import to_csv, write_text
from tlla.methods import METHODS
from tlla.records.record import Record, read_record, read_records
from tlla.records.store import peek
from tlla.streams import STREAMS, Shuffled, parse_stream

from ...named import add_set_argument
from .orders import Orders, open_online
from .spread import draw

COLUMNS = ("mean", "std", "worst", "tail", "best")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("folders", nargs="+", metavar="RUN", help="folder of a run, or of several at any depth")
    parser.add_argument("--orders", type=int, default=100, metavar="N", help="orders of each stream (default: 100)")
    streams = f"of {', '.join(STREAMS)}, with settings in brackets (default: shuffled)"
    parser.add_argument("--stream", nargs="+", default=[Shuffled.name], metavar="STREAM", help=streams)
    parser.add_argument("--split", choices=("val", "test"), default="test", help="images (default: test)")
    add_set_argument(parser)


def run(args: argparse.Namespace) -> list[Path]:
    """Writes streams.json, streams.csv with every order, streams.md with the table, which it prints, and a picture."""
    seeds = range(whole("--orders", args.orders, 1))
    streams = [parse_stream(text, "--stream") for text in args.stream]
    rows, runs = [], online_runs(args.folders)
    names = Counter((known.method, known.dataset, known.seed) for _, known in runs)
    for record, known in runs:
        opened = open_online(record, args.split, args.out, args.set)
        method = known.method.partition(" (stream ")[0]  # the run's own stream is only one of them
        if names[known.method, known.dataset, known.seed] > 1:  # of other settings
            method += f" ({record.folder})"
        for stream in streams:
            found = opened.correct(stream, seeds)
            rows.append(Orders(method, known.dataset, known.seed, stream, opened.total, found))
    page = markdown(rows, args.split)
    print(f"\n{page}\n")
    write_text(args.out / "streams.json", json.dumps([asdict(row) | row.summary() for row in rows], indent=1) + "\n")
    write_text(args.out / "streams.csv", to_csv(csv_rows(rows)))
    write_text(args.out / "streams.md", page + "\n")
    return [*(args.out / f"streams.{end}" for end in ("json", "csv", "md")), *draw(rows, args.out / "streams")]


def online_runs(folders: list[str]) -> list[tuple[Record, Run]]:
    """The runs of online methods, with what they are in tables; prints what is left out.

    Raises:
        InputError: There is none.
    """
    entries = [folder for folder in folders if "prompt" in (peek(Path(folder)) or {})]  # of a Compare
    records, defects = read_records([folder for folder in folders if folder not in entries])
    records += map(read_record, entries)
    for defect in defects:
        print(f"left out: {defect}", file=sys.stderr)
    pairs = list(zip(records, make_runs(records), strict=True))
    online = [name for name, method in METHODS.items() if method.online and not method.needs_images]
    for record, _ in pairs:
        if (method := METHODS.get(record.method["name"])) and method.online and method.needs_images:
            why = "needs pixels, not features alone: test it again with another seed for another order"
            print(f"left out: {record.folder}: {record.method['name']} {why}", file=sys.stderr)
    found = [(record, known) for record, known in pairs if record.method["name"] in online]
    if not found:
        raise InputError(
            f"there is no complete run of an online method ({', '.join(online)}) in {', '.join(folders)}: name one"
        )
    return found


def markdown(rows: list[Orders], split: str) -> str:
    """The table, with its caption."""
    cells = [
        [escaped(row.method, "markdown"), escaped(row.dataset, "markdown"), row.seed, row.stream_name, row.n_orders]
        + [format(row.summary()[name], ".2f") for name in COLUMNS]
        for row in rows
    ]
    head = ["method", "dataset", "seed", "stream", "orders", *COLUMNS]
    table = tabulate(cells, head, tablefmt="github", disable_numparse=True, colalign=["left"] * 4 + ["right"] * 6)
    totals = " or ".join(dict.fromkeys(f"{row.total:,}" for row in rows))
    tail = "tail: the mean of the worst 10 % of them"
    caption = f"Top-1 accuracy in % of the {totals} {split} images, over orders; {tail}."
    return f"{caption}{composed(rows)}\n\n{table}"


def composed(rows: list[Orders]) -> str:
    """Which streams the true classes have composed; "" if none."""
    names = dict.fromkeys(row.stream_name for row in rows if row.stream.composed_by_labels)
    return f" Composed by labels, as the true classes ordered the images: {', '.join(names)}." if names else ""


def csv_rows(rows: list[Orders]) -> list[list[object]]:
    """One for each order."""
    head = ["method", "dataset", "seed", "stream", "composed_by_labels", "order", "correct", "total", "accuracy"]
    found: list[list[object]] = [head]
    for row in rows:
        first = [row.method, row.dataset, row.seed, row.stream_name, row.stream.composed_by_labels]
        for order, (correct, accuracy) in enumerate(zip(row.correct, row.accuracies, strict=True)):
            found.append([*first, order, correct, row.total, accuracy])
    return found
