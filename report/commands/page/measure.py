"""A finished run of TLLA or STSS, tested again: refused unless the numbers are the run's own."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from report.reopen import open_run, read_record
from tlla.errors import InputError
from tlla.fingerprint import versions
from tlla.methods.stss import STSS
from trainers.testtime import ViewTest

from .scored_views import SPLIT, Views, all_views

TRAINERS = ("TLLA", "STSS")
TOLERANCE = {True: 1e-4, False: 0.01}  # of a confidence: on the CPU, as the run; with a GPU (fp16 against fp32)


@dataclass(frozen=True)
class Measured:
    """A finished run: its folder, its record, its trainer, its method, and what its views said."""

    folder: Path
    record: dict[str, Any]
    trainer: ViewTest
    method: STSS
    views: Views

    @property
    def items(self) -> list[Any]:
        """The tested images, in the order of `views`."""
        items = self.trainer.dm.dataset.test
        return [items[i] for i in self.views.index.tolist()]


def measure(folder: str | Path, root: str = "") -> Measured:
    """Tests all images of a finished run again.

    Args:
        folder: The run's output folder.
        root: Where the data lies now; empty: where the run found it.

    Raises:
        InputError: the folder holds no complete run of TLLA or STSS, or the numbers are not the run's.
    """
    record = read_record(folder)
    if record["trainer"] not in TRAINERS:
        raise InputError(
            f"{folder} is a run of {record['trainer']}, but a page shows the views of {' or '.join(TRAINERS)}: "
            "name the folder of such a run"
        )
    if SPLIT not in record["splits"]:
        raise InputError(f"{folder} has no results of the {SPLIT} split, which a page shows: test the run on it")
    rows = _read_predictions(Path(folder))
    trainer = open_run(folder, *(("DATASET.ROOT", root) if root else ()))
    _check_same(folder, "list of test images", record["split_sha256"], trainer.record.content["split_sha256"], SPLIT)
    trainer.set_model_mode("eval")
    trainer.before_test()
    (part,) = trainer.parts()
    _check_same(folder, "prompt", record["splits"][SPLIT], part.entries, "prompt_sha256")
    method = cast(STSS, part.method)
    measured = Measured(Path(folder), record, trainer, method, all_views(trainer, method))
    _check_predictions(measured, rows)
    return measured


def _read_predictions(folder: Path) -> list[dict[str, str]]:
    path = folder / f"predictions_{SPLIT}.csv"
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    except OSError as error:
        raise InputError(
            f"{folder} has no {path.name} ({error.strerror}): name the folder of a complete run"
        ) from error
    missing = {"index", "label", "prediction", "confidence"} - set(rows[0] if rows else ())
    if missing:
        raise InputError(f"{path} lacks the columns {', '.join(sorted(missing))}: test the run again")
    return rows


def _check_same(folder: str | Path, what: str, then: dict[str, Any], now: dict[str, Any], key: str) -> None:
    if then.get(key) != now.get(key):
        raise InputError(
            f"the {what} of {folder} is not the one that was tested (sha256 {str(now.get(key))[:12]}, results.json "
            f"says {str(then.get(key))[:12]}): restore it, or test the run again"
        )


def _check_predictions(measured: Measured, rows: list[dict[str, str]]) -> None:
    """Raises InputError for the first image whose numbers are not the run's."""
    views, names = measured.views, measured.trainer.dm.dataset.classnames
    tolerance = TOLERANCE[{measured.record.get("versions", {}).get("device"), versions()["device"]} == {"cpu"}]
    tested = [int(row["index"]) for row in rows]
    if tested != views.index.tolist():
        raise InputError(
            f"{measured.folder} tested {len(tested)} images, but {len(views.index)} can be read now: restore the "
            "images, or test the run again"
        )
    now = zip(views.label.tolist(), views.prediction.tolist(), views.confidence.tolist(), strict=True)
    for item, row, (label, prediction, confidence) in zip(measured.items, rows, now, strict=True):
        same = (int(row["label"]), int(row["prediction"])) == (label, prediction)
        if not same or abs(float(row["confidence"]) - confidence) > tolerance:
            raise InputError(
                f"image {row['index']}, {item.impath}, is now {names[prediction]!r} with confidence {confidence:.3f}, "
                f"but {measured.folder} found class {row['prediction']} with {float(row['confidence']):.3f}: the "
                "image, the weights or a library (Pillow, torch) has changed, so test the run again"
            )
