"""What a run is in a table: its method's label, the settings that make a row, the facts that make rows comparable."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tlla.paper import BENCHMARKS
from tlla.protocols import COMMON
from tlla.records.origins import UNKNOWN, Origin, Origins, with_classes
from tlla.records.record import SHUFFLED, Defect, Record, read_records

NO_SETTINGS = ("SEED", "VIEW_BATCH")  # of a node: the seed, and what changes no result
NO_VERSIONS = ("device", "python")
DATA = ("INPUT.SIZE", "INPUT.INTERPOLATION", "DATASET.CLASSNAMES")
TRAINING = ("OPTIM", "DATASET.NUM_SHOTS", "DATALOADER.TRAIN_X.BATCH_SIZE", "INPUT.TRANSFORMS", "INPUT.RRCROP_SCALE")
TEMPLATE, CHECKPOINT = "template", "checkpoint"  # Compare's names for the prompt of the config, of --model-dir
LABELS = {("STSS", "SAPT"): "TLLA"}  # a method on a prompt that has a name of its own
PUBLISHED = {name for benchmark in BENCHMARKS for name in (benchmark.source, *benchmark.targets)}


@dataclass(frozen=True)
class Run:
    """A tested run."""

    folder: Path
    method: str  # its label: the trainer, and for a method at test time the prompt that it ran on
    data: str  # the dataset, with the corruption of its test images
    classes: str  # all, base or new
    seed: int  # of the run
    seeded: bool  # whether another seed could give another result
    # The dataset that the prompt (or the cache) was trained on, with the classes in brackets if they are not all;
    # "" without training, "?" if not known.
    source: str = ""
    origin: Origin | None = None  # who has trained it
    used_labels: bool = False  # its views were chosen by the true classes
    protocol: Mapping[str, Any] = field(default_factory=dict, repr=False)  # see `Record.protocol`; {} if it is common
    corruption: str = ""  # of the test images, which `data` names as well; "": none
    stream: str = ""  # that the true classes composed; "": none
    read_first: bool = False  # its method read the whole test set before it predicted
    root: str = ""  # folder of the data
    metrics: Mapping[str, float] = field(default_factory=dict, repr=False)  # numbers of the test split by name
    settings: Mapping[str, str] = field(default_factory=dict, repr=False)  # what must agree among the runs of a row
    facts: Mapping[str, str] = field(default_factory=dict, repr=False)  # what must agree among the rows of a column

    @property
    def title(self) -> str:
        """Its row, but for settings: the method, which under its authors' protocol is not the same."""
        return f"{self.method} (authors' protocol)" if self.protocol else self.method

    @property
    def dataset(self) -> str:
        """The column: the dataset, with the classes in brackets if they are not all."""
        return with_classes(self.data, self.classes)


def read_runs(folders: list[str]) -> tuple[list[Run], list[Defect]]:
    """All complete runs in and below some folders, and all that is wrong there. Raises InputError as `read_records`."""
    records, defects = read_records(folders)
    return make_runs(records), defects


def make_runs(records: Sequence[Record]) -> list[Run]:
    """Records as runs, in their order."""
    origins = Origins(records)
    found = [origins.of(record) for record in records]
    names = DataNames([*records, *(origin.record for origin in found if origin and origin.record)])
    return [_make_run(record, origin, names) for record, origin in zip(records, found, strict=True)]


class DataNames:
    """The names of datasets in tables. Of one's own data of the same name, each with its split's hash."""

    def __init__(self, records: Iterable[Record]):
        self._splits: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._taken = set(PUBLISHED)
        for record in records:
            if record.data["own"]:
                self._splits[record.data["name"], record.classes].add(_split_hash(record))
            else:
                self._taken.add(record.data["name"])

    def of(self, record: Record) -> str:
        """Of a record that was given to begin with."""
        name: str = record.data["name"]
        if record.data["own"] and (name in self._taken or len(self._splits[name, record.classes]) > 1):
            return f"{name} [{_split_hash(record)[:6]}]"
        return name


def _split_hash(record: Record) -> str:
    return str((record.content.get("split_sha256") or {}).get("test"))


def _make_run(record: Record, origin: Origin | None, names: DataNames) -> Run:
    source = origin.data if origin else ""
    if origin and origin.record:
        source = with_classes(names.of(origin.record), origin.record.classes)
    return Run(
        folder=record.folder,
        method=label(record, origin),
        data=record.tested_data(names.of(record)),
        classes=record.classes,
        seed=record.content["seed"],
        seeded=bool(source) or not record.method["deterministic"],
        source=source,
        origin=origin,
        used_labels=record.rule["used_labels"],
        protocol={} if record.protocol["name"] == COMMON else record.protocol,
        corruption=record.corruption,
        stream=record.stream["name"] if record.stream["composed_by_labels"] else "",
        read_first=record.read_first,
        root=str(record.config["DATASET"].get("ROOT", "")),
        metrics={name: float(v) for name, v in record.test.items() if isinstance(v, (int, float))},
        settings=_data_settings(record) | _method_settings(record, origin) | _training_settings(record, origin),
        facts=_facts(record),
    )


def label(record: Record, origin: Origin | None) -> str:
    """Trainer, or method+prompt: TPT on a CoOp run is TPT+CoOp, STSS on SAPT is TLLA, a prompt is its trainer.

    A selection rule that is not the method's own is in brackets, and a stream that is not shuffled.
    """
    rule, stream = record.rule, record.stream
    note = "" if rule["own"] else f" (rule {rule['name']}{', used labels' * rule['used_labels']})"
    if stream["name"] not in ("", SHUFFLED):
        note += f" (stream {stream['name']}{', composed by labels' * stream['composed_by_labels']})"
    return _label(record, origin) + note


def _label(record: Record, origin: Origin | None) -> str:
    method, prompt = record.method, record.content.get("prompt", CHECKPOINT)
    if origin is None:
        untrained = "+initial prompt" if method["learns"] else ""
        return str(method["name"]) + (f"+{prompt}" if prompt not in ("", TEMPLATE, CHECKPOINT) else untrained)
    name: str = origin.name if prompt in ("", TEMPLATE, CHECKPOINT) else prompt
    if name == method["name"] or (method["kind"] == "prompt" and name != UNKNOWN):
        return name
    return LABELS.get((method["name"], name), f"{method['name']}+{name}")


def _data_settings(record: Record) -> dict[str, str]:
    found = {"backbone": record.content["backbone"], **_versions(record)}
    for key in DATA:
        found |= leaves(record.config, key)
    return found


def _method_settings(record: Record, origin: Origin | None) -> dict[str, str]:
    """Of the test: the method's own, its views, its template; without those that the authors' protocol has set."""
    method = record.method
    found = {"PREC": record.precision, **method["settings"], **(method["views"] or {})}
    if origin is None and not method["learns"] and "TEMPLATE" not in found:
        found["TEMPLATE"] = method["template"]
    without = {*NO_SETTINGS, *(key.rpartition(".")[2] for key in record.protocol["set"])}
    return {key: str(value) for key, value in found.items() if key not in without}


def _training_settings(record: Record, origin: Origin | None) -> dict[str, str]:
    if origin is None:
        return {}
    if origin.record is None or origin.record.training is None:
        known = {"": "of an unknown run", "results.json": "of a run that is gone"}
        return {"prompt": known.get(origin.said_by, f"without results.json, {origin.name}'s by {origin.said_by}")}
    config = origin.record.config
    found = {"prompt": "with results.json"}
    for key in (*TRAINING, f"TRAINER.{origin.record.training['node']}"):
        found |= {f"training {k}": v for k, v in leaves(config, key).items()}
    epoch, last = record.content.get("loaded_from", {}).get("epoch"), origin.record.training["epochs"]
    chosen = config["TEST"].get("FINAL_MODEL") == "best_val"  # another epoch for each seed
    return found | {"epoch": "deployed" if chosen or epoch in (None, last) else str(epoch)}


def _versions(record: Record) -> dict[str, str]:
    return {name: str(v) for name, v in record.content["versions"].items() if name not in NO_VERSIONS}


def _facts(record: Record) -> dict[str, str]:
    facts = {
        "number of images": str(record.test["total"]),
        "split hash": _split_hash(record)[:12],
        "backbone": record.content["backbone"],
        "versions": ", ".join(f"{name} {version}" for name, version in sorted(_versions(record).items())),
    }
    if record.data["own"] and "classes_sha256" in record.data:
        facts["hash of the class names"] = str(record.data["classes_sha256"])[:12]
    if record.stream["name"]:
        facts["stream"] = record.stream["name"]
    if (views := record.method["views"]) and record.protocol["name"] == COMMON:
        # With a margin the views are the same; not all are seen.
        facts["views"] = ", ".join(f"{key} {value}" for key, value in views.items() if key != "MARGIN")
    return facts


def leaves(tree: Mapping[str, Any], key: str) -> dict[str, str]:
    """The values of a config at and below a key, without seeds and what changes no result; {} without such a key."""
    node: Any = tree
    for name in key.split("."):
        if not isinstance(node, Mapping) or name not in node:
            return {}
        node = node[name]
    if not isinstance(node, Mapping):
        return {key: str(node)}
    found: dict[str, str] = {}
    for name in node:
        if name not in NO_SETTINGS:
            found |= leaves(tree, f"{key}.{name}")
    return found
