r"""STSS's accuracy against rho', lambda, R, s, V, vote and rule, each varied alone around a run's own settings.

    python -m report settings output/tlla/seed1 output/tlla/seed2 --out output/report/settings
    python -m report settings CoOp=output/coop SAPT=output/sapt --set TRAINER.VIEWS.CROP_SCALE "(0.5, 1.0)"

RUN is a run of TLLA or STSS (Compare's, too), or of CoOp or SAPT, on whose prompt STSS's defaults are tried. The views
are encoded once and kept in <out>/features, by what they depend on. Runs of one name are averaged over datasets, then
give mean and standard deviation over seeds. Curves of the test split are for showing, never for choosing: --split val.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from tabulate import tabulate

from report.tables.render import escaped
from tlla.errors import InputError
from tlla.files import to_csv, write_text
from tlla.rules import parse_rule

from ...named import HELP, add_set_argument, named_runs
from .bank import view_bank
from .panels import LABELS, Curves, draw
from .variations import Setting, StssRun, correct_images, open_stss, variations

KEYS = {
    "rho": "RHO",
    "lam": "LAMBDA",
    "n_perturb": "N_PERTURB",
    "top_s": "TOP_S",
    "n_views": "N_VIEWS",
    "vote": "VOTE",
    "rule": "RULE",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help=HELP)
    parser.add_argument("--split", choices=("val", "test"), default="test", help="images (default: test)")
    add_set_argument(parser)


def run(args: argparse.Namespace) -> list[Path]:
    """Writes settings.csv with every number, settings.md with the means, and the picture."""
    rows: list[dict[str, Any]] = []
    for name, records in named_runs(args.runs).items():
        centre = None
        for record in records:
            opened = open_stss(record, *args.set)
            own = (opened.own, replace(opened.trainer.tester.config, seed=0))
            if centre not in (None, own):
                first = records[0].folder
                raise InputError(f"{opened.folder} has other settings or views than {first}: give it another name")
            centre = own
            rows += measure(name, opened, args.split, args.out / "features")
    curves = Curves(rows)
    write_text(args.out / "settings.csv", to_csv([rows[0], *(row.values() for row in rows)]))
    write_text(args.out / "settings.md", markdown(curves) + "\n")
    return [args.out / "settings.csv", args.out / "settings.md", *draw(curves, args.out / "settings")]


def measure(name: str, opened: StssRun, split: str, folder: Path) -> list[dict[str, Any]]:
    """One row for each setting of a run; says so if the run's own settings do not give what it has recorded."""
    views = view_bank(opened.trainer, split, folder)
    varied = list(variations(opened.own))
    correct = correct_images(opened, views, [setting for _, setting in varied])
    total, recorded = len(views.labels), opened.recorded.get(split, correct[opened.own])
    if correct[opened.own] != recorded:
        print(
            f"{opened.folder}: {correct[opened.own]} of {total} images are correct under the run's own settings, but "
            f"its results.json says {recorded}: it ran with other versions or on another device",
            file=sys.stderr,
        )
    cfg = opened.trainer.cfg
    head = {"name": name, "run": str(opened.folder), "dataset": cfg.DATASET.NAME, "split": split, "seed": cfg.SEED}
    return [
        head
        | {"varied": what, **{key: shown(field, setting) for field, key in KEYS.items()}}
        | {"correct": correct[setting], "total": total, "accuracy": 100 * correct[setting] / total}
        for what, setting in ((KEYS.get(what, what), setting) for what, setting in varied)
    ]


def shown(field: str, setting: Setting) -> Any:
    """A setting's value; of a rule that uses labels, with a note."""
    value = getattr(setting, field)
    return f"{value} ({LABELS})" if field == "rule" and parse_rule(value).uses_labels else value


def markdown(curves: Curves) -> str:
    """Mean and standard deviation of every setting, a column for each name."""
    cells = [
        [what, value, *(str(curves.points[name, what].get(value, "-")) for name in curves.names)]
        for what in dict.fromkeys(what for _, what in curves.points)
        for value in dict.fromkeys(value for name in curves.names for value in curves.points[name, what])
    ]
    names = [escaped(name, "markdown") for name in curves.names]
    return tabulate(cells, ["varied", "value", *names], tablefmt="github", disable_numparse=True)
