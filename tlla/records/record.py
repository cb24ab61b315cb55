"""Finds runs below folders and reads their results.json; a run that cannot be trusted is a defect."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlla.errors import InputError
from tlla.protocols import COMMON

from . import older as old_records
from .store import RESULTS, has_result, read_results

INSIDE_RUNS = ("prompt_learner", "tensorboard", "shards", "tip_adapter")  # folders of a run that hold no other run
KINDS = {"trainer": str, "dataset": str, "backbone": str, "seed": int, "versions": dict, "config": dict, "splits": dict}
ENTRIES: dict[str, dict[str, type | tuple[type, ...]]] = {  # of newer records
    "data": {"name": str, "own": bool},
    "method": {
        "name": str,
        "kind": str,
        "settings": dict,
        "views": (dict, type(None)),
        "deterministic": bool,
        "learns": bool,
    },
    "training": {"name": str, "node": str, "epochs": int},
}
PROTOCOL: Mapping[str, Any] = {"name": COMMON, "source": "", "lacks": "", "set": {}}
CORRUPTION = {"name": str, "severity": int, "source": str}
TRAINED_BY = ("name", "dataset", "said_by")
ECE_BINS = 15
WITH_BINS = ("ece", "adaptive_ece", "classwise_ece")  # metrics that depend on it
SHUFFLED = "shuffled"  # the usual stream, which a record does not name
NODES = {"TRAINER", "DATASET", "OPTIM", "TEST"}  # of its config


@dataclass(frozen=True)
class Defect:
    """A run that is left out, and why."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True)
class Record:
    """One results.json."""

    folder: Path
    content: Mapping[str, Any]

    @property
    def config(self) -> Mapping[str, Any]:
        """The whole config of the run, with the precision in which it was computed, and the step of the training."""
        config = self.content["config"]
        nodes = {
            name: old_records.with_step(name, old_records.with_precision(node, self.content))
            if isinstance(node, Mapping)
            else node
            for name, node in config["TRAINER"].items()
        }
        return {**config, "TRAINER": nodes}

    @property
    def test(self) -> Mapping[str, Any]:
        """Results on the test split; empty if only val was tested."""
        return dict(self.content["splits"].get("test", {}))

    @property
    def trainer(self) -> str:
        """The name of the trainer."""
        return str(self.content["trainer"])

    @property
    def classes(self) -> str:
        """all, base or new."""
        return str(self.config["DATASET"].get("SUBSAMPLE_CLASSES", "all"))

    @property
    def data(self) -> Mapping[str, Any]:
        """The data: name, and own, whether the name may also belong to other data."""
        return dict(self.content.get("data") or old_records.older_data(self.content))

    @property
    def corruption(self) -> str:
        """Of the test images, as `said_of_corruption` has it."""
        return said_of_corruption(self.data)

    def tested_data(self, name: str) -> str:
        """What tables call its data, by their name: with the corruption of the test images, if there is one."""
        return ", ".join(filter(None, (name, self.corruption)))

    @property
    def method(self) -> Mapping[str, Any]:
        """The method of the test: name, kind, settings, views, deterministic, learns, template."""
        found = {"template": "", **(self.content.get("method") or old_records.describe_method(self.content))}
        return {**found, "settings": old_records.with_precision(found["settings"], self.content)}

    @property
    def rule(self) -> Mapping[str, Any]:
        """The selection rule: name, own, whether it is the method's own, used_labels."""
        found = self.content.get("method", {}).get("rule", {})
        used, own = found.get("used_labels") is True, found.get("own") is not False
        return {"name": str(found.get("name", "")), "own": own, "used_labels": used}

    @property
    def protocol(self) -> Mapping[str, Any]:
        """The protocol: name; of the authors' also source, lacks, and set, its values by key."""
        return {**PROTOCOL, **self.content.get("method", {}).get("protocol", {})}

    @property
    def stream(self) -> Mapping[str, Any]:
        """The order of the test's images: name, "" if the method is not online; composed_by_labels."""
        found = self.test.get("stream")
        found = found if isinstance(found, Mapping) else {"name": SHUFFLED} if "order" in self.test else {}
        by_labels = found.get("composed_by_labels") is True
        return {"name": str(found.get("name", "")), "composed_by_labels": by_labels}

    @property
    def read_first(self) -> bool:
        """Whether the method read the whole test set before it predicted."""
        return self.content.get("method", {}).get("read_test_set_first") is True

    @property
    def precision(self) -> str:
        """The precision in which it was tested; "" if that is not known."""
        return str(self.content.get("precision") or old_records.precision_of(self.content))

    @property
    def training(self) -> Mapping[str, Any] | None:
        """Name, config node and epochs of the training; None if the run did not train."""
        own = "method" in self.content
        return self.content.get("training") if own else old_records.describe_training(self.content)


def said_of_corruption(data: Mapping[str, Any]) -> str:
    """The corruption of the test images in tables, by a record's entry "data"; "" if there is none.

    >>> said_of_corruption({"corruption": {"name": "frost", "severity": 3, "source": "ours"}})
    'frost 3 (ours)'
    """
    found = data.get("corruption")
    return f"{found['name']} {found['severity']}{' (ours)' * (found['source'] == 'ours')}" if found else ""


def read_records(folders: list[str]) -> tuple[list[Record], list[Defect]]:
    """All complete records in and below folders, without those of Compare itself, and all defects there.

    Raises:
        InputError: a folder does not exist.

    >>> Path("runs/seed1").mkdir(parents=True)
    >>> print(*read_records(["runs"])[1])
    runs/seed1: the folder is empty
    """
    records: dict[Path, Record] = {}
    defects: dict[Path, Defect] = {}
    for folder in folders:
        if not Path(folder).is_dir():
            raise InputError(f"there is no folder {folder}")
        for found in _walk(Path(folder)):
            if isinstance(found, Record):
                records[found.folder.resolve()] = found
            else:
                defects[found.path.resolve()] = found
    for key, record in list(records.items()):
        if reason := _untrustworthy(record, records):
            defects[key] = Defect(record.folder, reason)
    good = [record for key, record in records.items() if key not in defects and "parts" not in record.test]
    return good, list(defects.values())


def _walk(folder: Path, in_run: bool = False) -> Iterator[Record | Defect]:
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    if not entries and not in_run:
        yield Defect(folder, "the folder is empty")
    logs = [path for path in entries if path.name.startswith("log.txt")]
    file = folder / RESULTS
    if file.is_file():
        yield _load(folder, logs)
    elif logs:
        done = any(map(has_result, logs))
        hint = "; its log has a result, which is read without --table" if done else "; it was cut, or goes on still"
        yield Defect(folder, f"there is a log but no results.json{hint}")
    for path in entries:
        if path.is_dir() and path.name not in INSIDE_RUNS:
            yield from _walk(path, in_run or bool(logs) or file.is_file())


def read_record(folder: str | Path) -> Record:
    """The record of a run, whatever split it has tested; InputError names the folder if there is none.

    >>> read_record("runs/seed2")
    Traceback (most recent call last):
    tlla.errors.InputError: runs/seed2: results.json cannot be read: ...: name the folder of a complete run
    """
    try:
        return _checked(Path(folder))
    except InputError as error:
        raise InputError(f"{folder}: {error}: name the folder of a complete run") from error


def read_test(folder: Path) -> Record:
    """The record of a complete test; InputError, which does not name the folder, if there is none.

    >>> read_test(Path("runs/seed2"))
    Traceback (most recent call last):
    tlla.errors.InputError: results.json cannot be read: ...
    """
    record = _checked(folder)
    try:
        test = record.content["splits"]["test"]
        complete = test["total"] > 0 and ("parts" in test or {"correct", "accuracy"} <= test.keys())
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{RESULTS} has no result of the test split") from error
    if not complete or not all(isinstance(test.get(key, 0), (int, float)) for key in ("correct", "accuracy")):
        raise InputError(f"{RESULTS} has no whole result of the test split")
    return record


def _checked(folder: Path) -> Record:
    content = read_results(folder)
    if wrong := wrong_entry(content):
        raise InputError(f"{RESULTS} is not complete, or not of train.py: {wrong}")
    return Record(folder, content)


def wrong_entry(content: Any) -> str:
    """What in a record is missing or of another kind than train.py writes, its splits apart; "" if all is well.

    >>> wrong_entry({"trainer": "SAPT"})
    'its dataset is missing'
    """
    if not isinstance(content, dict):
        return f"it holds a {type(content).__name__}"
    for key, kind in KINDS.items():
        if type(content.get(key)) is not kind:
            return f"its {key} is {type(content[key]).__name__ if key in content else 'missing'}"
    if lacks := sorted(key for key in NODES if not isinstance(content["config"].get(key), dict)):
        return f"its config has no {lacks[0]}"
    for key, kinds in ENTRIES.items():
        entry = content.get(key, {})
        if not isinstance(entry, dict) or any(not isinstance(entry.get(k), v) for k, v in kinds.items() if entry):
            return f"its entry {key} is of another kind"
    loaded, sha256 = content.get("loaded_from", {"path": "a/b/c"}), content.get("split_sha256") or {}
    path = loaded.get("path") if isinstance(loaded, dict) else None
    if not isinstance(path, str) or len(Path(path).parents) < 2:
        return "its loaded_from names no file of a run"
    said = loaded.get("trained_by") or dict.fromkeys(TRAINED_BY, "")
    if not isinstance(said, dict) or not all(isinstance(said.get(key), str) for key in TRAINED_BY):
        return "its loaded_from does not say who has trained"
    found = content.get("data", {}).get("corruption", {})
    if not isinstance(found, dict) or any(not isinstance(found.get(k), v) for k, v in CORRUPTION.items() if found):
        return "its corruption is of another kind"
    if not isinstance(content.get("method", {}).get("rule", {}), dict):
        return "its rule is of another kind"
    protocol = content.get("method", {}).get("protocol", {})
    if not isinstance(protocol, dict) or any(not isinstance(protocol.get(k, v), type(v)) for k, v in PROTOCOL.items()):
        return "its protocol is of another kind"
    if not isinstance(content.get("prompt", ""), str) or not isinstance(sha256, dict):
        return "its prompt or its split_sha256 is of another kind"
    return ""


def _load(folder: Path, logs: list[Path]) -> Record | Defect:
    try:
        record = read_test(folder)
    except InputError as error:
        return Defect(folder, str(error))
    newest = max(logs, key=lambda path: (path.stat().st_mtime, path.name == "log.txt"), default=None)
    if newest and not has_result(newest):
        return Defect(
            folder, f"{newest.name} ends without a result: a later run in this folder was cut or goes on still"
        )
    return record


def _untrustworthy(record: Record, records: Mapping[Path, Record]) -> str:
    """Why a record that was read does not count; "" if it does."""
    if "parts" in record.test:
        missing = [part for part in record.test["parts"] if record.folder.joinpath(*part).resolve() not in records]
        return f"its parts {missing} are missing or cannot be read" if missing else ""
    if "prompt" in record.content:
        part = [record.content["prompt"], record.folder.resolve().name]
        top = record.folder.parents[1 if part[0] else 0].resolve()
        if top in records and part not in records[top].test.get("parts", ()):
            return "the newest Compare in this folder has no such part: it is of an earlier one"
        if top not in records and (top / "log.txt").is_file():
            return "it is a part of a Compare that has not finished"
    bad = [name for name, value in record.test.items() if isinstance(value, float) and not math.isfinite(value)]
    if bad:
        return f"{', '.join(bad)} {'is' if len(bad) == 1 else 'are'} NaN or infinite"
    accuracy = 100 * record.test["correct"] / record.test["total"]
    if abs(accuracy - record.test["accuracy"]) > 0.01:
        return f"its accuracy {record.test['accuracy']} is not that of its {record.test['correct']} correct images"
    return ""
