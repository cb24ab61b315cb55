"""Which training produced a prompt, according to its run's record or folder."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tlla.errors import InputError
from tlla.paper import BENCHMARKS

from .older import PROMPTS, training_of
from .record import Record, read_test, wrong_entry
from .store import RESULTS, peek

UNKNOWN = "?"
BY_USER = "TRAINER.PROMPT"  # the key that names a prompt
ENSEMBLES = ("imagenet7", "imagenet80")
BEGINNING = 100_000  # characters of a log that hold its arguments and its config


@dataclass(frozen=True)
class Origin:
    """Origin of a prompt or a cache.

    Attributes:
        name: Name of its training; "?" if unknown.
        data: Dataset of the training; "?" if unknown.
        record: Record of the run that trained it; None if it is not found.
        said_by: Without a record: the file or folder from which name and data are known; may be empty.
        folder: Folder of the run, as in the record of the test.
    """

    name: str
    data: str
    record: Record | None
    said_by: str = ""
    folder: str = ""


class Origins:
    """Finds the runs that trained what some records tested, by their folders or else by the prompt's hash."""

    def __init__(self, records: Sequence[Record]):
        self.by_folder = {record.folder.resolve(): record for record in records}
        self.by_prompt: dict[str | None, list[Record]] = {}
        for record in records:
            if record.training and "prompt_sha256" in record.test:
                self.by_prompt.setdefault(record.test["prompt_sha256"], []).append(record)

    def of(self, record: Record) -> Origin | None:
        """The origin of what a record tested; None if it was not learned, or is the prompt before any training."""
        folder = _loaded_folder(record)
        if folder is None:
            return _origin(record, str(record.folder)) if record.training else None
        said = record.content.get("loaded_from", {}).get("trained_by")
        same_prompt = self.by_prompt.get(record.test.get("prompt_sha256"), [])
        found = self.by_folder.get(folder.resolve()) or _read(folder)
        if not found or not found.training:
            found = same_prompt[0] if len(same_prompt) == 1 else None
        if found:
            origin = _origin(found, str(folder))
            return replace(origin, name=said["name"]) if said and said["said_by"] == BY_USER else origin
        said = said or trained_by(folder)
        return Origin(said["name"], said["dataset"], None, said["said_by"], str(folder))


def _origin(record: Record, folder: str) -> Origin:
    return Origin(record.training["name"] if record.training else UNKNOWN, record.data["name"], record, folder=folder)


def _read(folder: Path) -> Record | None:
    try:
        return read_test(folder)
    except InputError:
        return None


def _loaded_folder(record: Record) -> Path | None:
    """Folder of the run whose prompt was tested; None if the record's own run trained it, or if it is a template."""
    if "loaded_from" in record.content:
        return Path(record.content["loaded_from"]["path"]).parents[1]
    if "method" in record.content:  # not of an earlier version, in which parts of Compare do not say it
        return None
    source = record.method["template"] if "prompt" in record.content else ""
    return Path(source) if source and "{}" not in source and source not in ENSEMBLES else None


def trained_by(folder: Path) -> dict[str, str]:
    """The training of a run, from its results.json, else its log.txt, else CoOp's folder names.

    Returns:
        name: name of the training; dataset, with the classes in brackets if they are not all; and said_by: which of
        the three sources. "?" for what is unknown.

    >>> trained_by(Path("output/base2new/train_base/imagenet/shots_16/CoOp/vit_b16_c4_ep10_batch1/seed1"))
    {'name': 'CoOp', 'dataset': 'ImageNet (base)', 'said_by': "the folder's name"}
    """
    return _by_record(folder) or _by_log(folder) or _by_path(folder) or _said(UNKNOWN, UNKNOWN, "")


def _said(name: str, dataset: str, by: str) -> dict[str, str]:
    return {"name": name, "dataset": dataset, "said_by": by}


def with_classes(dataset: str, classes: str) -> str:
    """Name of a dataset with its subset of classes.

    >>> with_classes("ImageNet", "base"), with_classes("ImageNet", "all")
    ('ImageNet (base)', 'ImageNet')
    """
    return f"{dataset} ({classes})" if classes != "all" else dataset


def _by_record(folder: Path) -> dict[str, str] | None:
    content = peek(folder)
    if content is None or wrong_entry(content):
        return None
    record = Record(folder, content)
    if record.training:
        return _said(record.training["name"], with_classes(record.data["name"], record.classes), RESULTS)
    said: dict[str, str] | None = content.get("loaded_from", {}).get("trained_by")  # tested into the folder of the run
    return said if said and _loaded_folder(record) == folder else None


def _by_log(folder: Path) -> dict[str, str] | None:
    """Dassl's scripts print their arguments and their config first."""
    path = folder / "log.txt"
    if not path.is_file():
        return None
    with path.open(encoding="utf-8", errors="replace") as file:
        text = file.read(BEGINNING)
    trainer = re.search(r"^trainer: (\S+)$", text, re.MULTILINE)
    if not trainer:
        return None
    node = re.search(r"^DATASET:\n((?:  .*\n)*)", text, re.MULTILINE)
    keys = dict(re.findall(r"^  (NAME|SUBSAMPLE_CLASSES): (\S+)$", node[1] if node else "", re.MULTILINE))
    return _said(
        training_of(trainer[1]),
        with_classes(keys.get("NAME", UNKNOWN), keys.get("SUBSAMPLE_CLASSES", "all")),
        "log.txt",
    )


def _by_path(folder: Path) -> dict[str, str] | None:
    """<dataset>/<Trainer>/<cfg>/<prompt>/seed1, or train_base/<dataset>/<shots>/<Trainer>/<cfg>/seed1, as in CoOp."""
    parts = ("", "", *folder.parts)  # a trainer's folder is one of the last four
    place = next((i for i in reversed(range(max(2, len(parts) - 4), len(parts))) if parts[i] in PROMPTS), None)
    if place is None:
        return None
    known = {name.lower(): name for benchmark in BENCHMARKS for name in (benchmark.source, *benchmark.targets)}
    above = [part.replace("_", "").lower() for part in (parts[place - 1], parts[place - 2])]
    dataset = next((known[name] for name in above if name in known), UNKNOWN)
    classes = "base" if "train_base" in parts else "all"
    return _said(parts[place], with_classes(dataset, classes), "the folder's name")
