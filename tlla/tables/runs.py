"""What a run is in a table: its method's label, the settings that make a row, the facts that make rows comparable."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tlla.errors import InputError

from .records import Defect, Record, load_record, read_records

PROMPTS = ("CoOp", "CoCoOp", "SAPT")  # trainers that test the prompt itself, whoever has trained it
WITHOUT_VIEWS = (*PROMPTS, "ZeroshotCLIP", "TipAdapter", "TipAdapterF", "SingleView")
VIEWS = ("N_VIEWS", "AUGMIX", "CROP_SCALE")
NODES = {"ZeroshotCLIP": "ZSCLIP"}  # where a trainer's own settings are, if not in TRAINER.<NAME>
NO_SETTINGS = ("SEED", "VIEW_BATCH")  # of a node: the seed, and what changes no result
NO_VERSIONS = ("device", "python")
DATA = ("INPUT.SIZE", "INPUT.INTERPOLATION", "DATASET.CLASSNAMES")
TRAINING = ("OPTIM", "DATASET.NUM_SHOTS", "DATALOADER.TRAIN_X.BATCH_SIZE", "INPUT.TRANSFORMS", "INPUT.RRCROP_SCALE")
ENSEMBLES = ("imagenet7", "imagenet80")
TEMPLATE, CHECKPOINT = (
    ("", "template"),
    "checkpoint",
)  # Compare's names for the one prompt of the config, of --model-dir


@dataclass(frozen=True)
class Run:
    """A tested run.

    Attributes:
        method: Its label: the trainer, and for a method at test time the prompt that it ran on.
        dataset: With the classes in brackets if they are not all.
        source: The dataset that the prompt (or the cache) was trained on; "" without training, "?" if not found.
        metrics: Numbers of the test split by name.
        settings: Key -> value: what must agree among the runs of a row.
        facts: What -> value: what must agree among the rows of a column.
    """

    folder: Path
    method: str
    dataset: str
    seed: int
    source: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict, repr=False)
    settings: Mapping[str, str] = field(default_factory=dict, repr=False)
    facts: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def seeded(self) -> bool:
        """Whether another seed could give another result."""
        return bool(self.source) or self.method not in ("ZeroshotCLIP", "SingleView")


def read_runs(folders: list[str]) -> tuple[list[Run], list[Defect]]:
    """All complete runs in and below some folders, and all that is wrong there. Raises InputError as `read_records`."""
    records, defects = read_records(folders)
    origins = Origins(records)
    return [make_run(record, origins.of(record)) for record in records], defects


class Origins:
    """Finds the run that has trained a record's prompt: by its path, else by the prompt's hash."""

    def __init__(self, records: list[Record]):
        self.by_folder = {record.folder.resolve(): record for record in records}
        self.by_prompt: dict[str, list[Record]] = {}
        for record in filter(_has_trained, records):
            self.by_prompt.setdefault(record.test.get("prompt_sha256", ""), []).append(record)

    def of(self, record: Record) -> Record | None:
        """The record itself if it has trained; None if nothing was trained, or if the run is not found."""
        folder = loaded_folder(record)
        if folder is None:
            return record if _has_trained(record) else None
        same_prompt = self.by_prompt.get(record.test.get("prompt_sha256", ""), [])
        found = self.by_folder.get(folder.resolve()) or _read(folder)
        return found or (same_prompt[0] if len(same_prompt) == 1 else None)


def _has_trained(record: Record) -> bool:
    return "train_seconds" in record.content and "loaded_from" not in record.content


def _read(folder: Path) -> Record | None:
    try:
        return load_record(folder)
    except InputError:
        return None


def loaded_folder(record: Record) -> Path | None:
    """The run whose prompt was tested; None if the record's own run has trained it, or if it is a template."""
    if "loaded_from" in record.content:
        return Path(record.content["loaded_from"]["path"]).parents[1]
    source = prompt_entry(record)
    return Path(source) if source and "{}" not in source and source not in ENSEMBLES else None


def prompt_entry(record: Record) -> str:
    """Of a part of Compare: the source of its prompt, as TRAINER.COMPARE.PROMPTS has it."""
    entries = record.config["TRAINER"].get("COMPARE", {}).get("PROMPTS", ()) if "prompt" in record.content else ()
    pairs = (entry.partition("=")[::2] for entry in entries)
    return next((source for name, source in pairs if name == record.content["prompt"]), "")


def make_run(record: Record, origin: Record | None) -> Run:
    """A record as a run; `origin` is the run that has trained its prompt."""
    classes = record.config["DATASET"].get("SUBSAMPLE_CLASSES", "all")
    unknown = trained_by(record, "dataset") if loaded_folder(record) else ""
    return Run(
        folder=record.folder,
        method=label(record, origin),
        dataset=record.content["dataset"] + (f" ({classes})" if classes != "all" else ""),
        seed=record.content["seed"],
        source=origin.content["dataset"] if origin else unknown,
        metrics={name: float(v) for name, v in record.test.items() if isinstance(v, (int, float))},
        settings=_data_settings(record) | _method_settings(record) | _training_settings(record, origin),
        facts=_facts(record),
    )


def label(record: Record, origin: Record | None) -> str:
    """Trainer, or method+prompt: TPT on a CoOp run is TPT+CoOp, STSS on SAPT is TLLA, a prompt is its trainer."""
    trainer, prompt = record.trainer, record.content.get("prompt", CHECKPOINT)
    if prompt in TEMPLATE:
        return trainer
    if prompt == CHECKPOINT:
        if loaded_folder(record) is None or (origin and origin.trainer == trainer):
            return trainer
        prompt = {"TLLA": "SAPT"}.get(origin.trainer, origin.trainer) if origin else trained_by(record, "name")
        if trainer in PROMPTS:
            return prompt if prompt != "?" else trainer
    method = {"TLLA": "STSS"}.get(trainer, trainer)
    return "TLLA" if (method, prompt) == ("STSS", "SAPT") else f"{method}+{prompt}"


def trained_by(record: Record, key: str) -> str:
    """What was said of a prompt that no run here has trained: name (of its trainer) or dataset; "?" if nothing was."""
    return str(record.content.get("loaded_from", {}).get("trained_by", {}).get(key) or "?")


def _data_settings(record: Record) -> dict[str, str]:
    found = {"backbone": record.content["backbone"], **_versions(record)}
    for key in DATA:
        found |= leaves(record.config, key)
    return found


def _method_settings(record: Record) -> dict[str, str]:
    """Of the test: the method's own node, its views, its template."""
    trainer = record.trainer
    if trainer in PROMPTS:
        return {}
    node = NODES.get(trainer, trainer.upper())
    found = _short(record, node)
    if trainer == "TLLA":  # the paper's name of SAPT's training with STSS's test
        return {key: value for key, value in found.items() if key in (*VIEWS, *_short(record, "STSS"))}
    if trainer not in WITHOUT_VIEWS:
        found |= _short(record, "VIEWS")
    if loaded_folder(record) is None and "train_seconds" not in record.content:
        found |= {"TEMPLATE": prompt_entry(record) or _short(record, "PROMPT").get("TEMPLATE", "")}
    return found


def _short(record: Record, node: str) -> dict[str, str]:
    """A trainer's node, its keys without the node's name."""
    return {key.removeprefix(f"{node}."): value for key, value in leaves(record.config["TRAINER"], node).items()}


def _training_settings(record: Record, origin: Record | None) -> dict[str, str]:
    if origin is None:
        return {}
    name = {"TLLA": "SAPT"}.get(origin.trainer, origin.trainer)
    found: dict[str, str] = {}
    for key in (*TRAINING, f"TRAINER.{NODES.get(name, name.upper())}"):
        found |= {f"training {k}": v for k, v in leaves(origin.config, key).items()}
    epoch, last = record.content.get("loaded_from", {}).get("epoch"), origin.config["OPTIM"]["MAX_EPOCH"]
    chosen = origin.config["TEST"].get("FINAL_MODEL") == "best_val"  # another epoch for each seed
    only = origin.trainer == "TipAdapter"  # nothing is trained: all is in epoch 1
    return found | {"epoch": "deployed" if chosen or only or epoch in (None, last) else str(epoch)}


def _versions(record: Record) -> dict[str, str]:
    return {name: str(v) for name, v in record.content["versions"].items() if name not in NO_VERSIONS}


def _facts(record: Record) -> dict[str, str]:
    facts = {
        "number of images": str(record.test["total"]),
        "split hash": str((record.content.get("split_sha256") or {}).get("test"))[:12],
        "backbone": record.content["backbone"],
        "versions": ", ".join(f"{name} {version}" for name, version in sorted(_versions(record).items())),
    }
    if record.trainer not in WITHOUT_VIEWS:
        node = record.config["TRAINER"].get("TLLA" if record.trainer == "TLLA" else "VIEWS", {})
        facts["views"] = ", ".join(f"{key} {node[key]}" for key in VIEWS if key in node)
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
