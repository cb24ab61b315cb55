"""A finished run of a method that scores views, tested again: refused unless the numbers are the run's own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from report.reopen import check_all_views, open_run, tested_entries
from tlla.errors import InputError
from tlla.fingerprint import versions
from tlla.methods import METHODS
from tlla.methods.stss import STSS
from tlla.records.record import Record, read_record
from tlla.records.store import read_rows
from trainers.base import ClipTrainer

from .scored_views import SPLIT, Views, all_views

TOLERANCE = {True: 1e-4, False: 0.01}  # of a confidence: on the CPU, as the run; with a GPU (fp16 against fp32)


@dataclass(frozen=True)
class Measured:
    """A finished run: its folder, its record, its trainer, its method, and what its views said."""

    folder: Path
    record: Record
    trainer: ClipTrainer
    method: STSS
    views: Views

    @property
    def n_kept(self) -> int:
        """How many views of an image vote."""
        return self.method.n_kept(self.views.view.shape[1])

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
        InputError: the folder holds no complete run of a method that scores views, or the numbers are not the run's.
    """
    record = read_record(folder)
    known = METHODS.get(record.method["name"])
    if not (known and known.scores_views):
        raise InputError(
            f"{folder} is a run of {record.trainer}, but a page shows the views of a method that scores them, such as "
            "TLLA or STSS: name the folder of such a run"
        )
    check_all_views(record)
    if not record.test:
        raise InputError(f"{folder} has no results of the {SPLIT} split, which a page shows: test the run on it")
    rows = read_rows(Path(folder), SPLIT)
    trainer = open_run(record, *(("DATASET.ROOT", root) if root else ()))
    _check_same(
        folder, "list of test images", record.content["split_sha256"], trainer.record.content["split_sha256"], SPLIT
    )
    trainer.set_model_mode("eval")
    trainer.tester.start()
    entry = tested_entries(record, trainer)[0]
    _check_same(folder, "prompt", record.test, entry.facts, "prompt_sha256")
    method = cast(STSS, entry.method)
    measured = Measured(Path(folder), record, trainer, method, all_views(trainer, method))
    _check_predictions(measured, rows)
    return measured


def _check_same(folder: str | Path, what: str, then: dict[str, Any], now: dict[str, Any], key: str) -> None:
    if then.get(key) != now.get(key):
        raise InputError(
            f"the {what} of {folder} is not the one that was tested (sha256 {str(now.get(key))[:12]}, results.json "
            f"says {str(then.get(key))[:12]}): restore it, or test the run again"
        )


def _check_predictions(measured: Measured, rows: list[dict[str, str]]) -> None:
    """Raises InputError for the first image whose numbers are not the run's."""
    views, names = measured.views, measured.trainer.dm.dataset.classnames
    tolerance = TOLERANCE[{measured.record.content["versions"].get("device"), versions()["device"]} == {"cpu"}]
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
