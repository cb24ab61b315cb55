"""The embedded benchmark's source under ImageNet-C's corruptions: docs/corruptions.md's picture and tables.

Hand-written prompt, no training. One view of each picture and DeYO under all fifteen at severity 3 and under one at all
severities; 64 views under a few. DeYO has its authors' settings for batch norms; without a step it only uses the
statistics of the batch. Complete runs are skipped.

    python -m scripts.emoji.corruption_study --output output/emoji
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from tabulate import tabulate

from report.style import plt, save
from sweeps.job import Job
from tlla.command_line import call
from tlla.corruptions import Corruption
from tlla.corruptions.fifteen import FIFTEEN, OURS
from tlla.files import write_text
from tlla.records.record import said_of_corruption

from .assets import FOLDER, benchmark_index
from .figures import FIGURES
from .study import WORDS, job, run, tested

SEVERITY, GRADED = 3, "gaussian_noise"  # of all corruptions; the one that is drawn in all severities
WITH_VIEWS = ("", "gaussian_noise", "defocus_blur", "fog", "jpeg_compression")  # "": none
BATCH_NORMS = ("TRAINER.DEYO.LR", "0.00025", "TRAINER.DEYO.PLPD", "0.3")
COLUMNS = {  # heading -> folder of the runs, method
    "one view": ("one_view", "SingleView"),
    "its batch's statistics": ("statistics", "DeYO"),
    "DeYO": ("one_view", "DeYO"),
    "mean of 64 views": ("views", "MeanViews"),
    "STSS": ("views", "STSS"),
}
RUNS = {  # folder -> methods, settings
    "one_view": (("SingleView", "DeYO"), BATCH_NORMS),
    "statistics": (("DeYO",), ("TRAINER.DEYO.LR", "0.0")),
    "views": (("MeanViews", "STSS"), ()),
}


def corruption_plan(output: Path, seed: int) -> dict[tuple[str, int, str], Job]:
    """The runs by corruption, severity and folder."""
    wanted = [(name, SEVERITY * bool(name)) for name in ("", *FIFTEEN)]
    graded = [(GRADED, severity) for severity in range(1, 6) if severity != SEVERITY]
    keys = [(*which, folder) for folder in ("one_view", "statistics") for which in wanted + graded]
    keys += [(name, SEVERITY * bool(name), "views") for name in WITH_VIEWS]
    return {key: _job(output, seed, *key) for key in keys}


def _job(output: Path, seed: int, name: str, severity: int, folder: str) -> Job:
    methods, opts = RUNS[folder]
    if name:
        opts = (*opts, "DATASET.CORRUPTION", name, "DATASET.SEVERITY", str(severity))
    own = ("TRAINER.COMPARE.METHODS", repr(list(methods)), *opts)
    where = f"corrupted/{folder}/{name or 'none'}{severity or ''}"
    return job("Compare", output, seed, "emoji", where, prompts=((WORDS, None),), opts=own)


def accuracies(jobs: dict[tuple[str, int, str], Job]) -> str:
    """A row for each corruption and severity; "-" where nothing was tested."""
    found = {(*key, t.method): t.test["accuracy"] for key, one in jobs.items() for t in tested([one])}
    labels = {key[:2]: said_of_corruption(one.result()["data"]) or "none" for key, one in jobs.items()}
    rows = []
    for which in sorted(labels, key=lambda which: (["", *FIFTEEN].index(which[0]), which[1])):
        values = [found.get((*which, *where)) for where in COLUMNS.values()]
        rows.append([labels[which], *("-" if value is None else f"{value:.1f}" for value in values)])
    return tabulate(rows, ["top-1 accuracy, %", *COLUMNS], tablefmt="github", disable_numparse=True)


def corruptions_sheet(path: Path) -> None:
    """The fifteen at severity 3, of a test emoji of the source."""
    item = next(i for i in benchmark_index()["items"]["noto"]["test"] if "/fruit/" in i[0])
    image = Image.open(FOLDER / item[0]).convert("RGB")
    figure, axes = plt.subplots(3, 5, figsize=(6.4, 4.2))
    for ax, name in zip(axes.flat, FIFTEEN, strict=True):
        ax.imshow(np.asarray(Corruption(name, SEVERITY).draw(image, 1, 0)), interpolation="nearest")
        ax.set(xticks=[], yticks=[])
        ax.set_title(name.replace("_", " ") + " (ours)" * (name in OURS), fontsize=7)
        ax.grid(False)
    save(figure, path)[0].unlink()  # an SVG of pictures has no use
    Image.open(path.with_suffix(".png")).convert("RGB").save(path.with_suffix(".png"), optimize=True)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("output/emoji"), help="folder of the runs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--figures", type=Path, default=FIGURES, help="folder of the picture")
    args = parser.parse_args(argv)
    corruptions_sheet(args.figures / "corruptions")
    jobs = corruption_plan(args.output, args.seed)
    good = run(list(jobs.values()))
    table = accuracies({key: one for key, one in jobs.items() if one.result()})
    print(table)
    write_text(args.output / "corruptions.md", table + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(call(main))
