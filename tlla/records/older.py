"""Entries that records of earlier versions lack, inferred from their config; newer records hold them.

New trainers are not listed here: see `ClipTrainer.describe_method`.
"""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

PROMPTS = ("CoOp", "CoCoOp", "SAPT")
CACHES = ("TipAdapter", "TipAdapterF")
DETERMINISTIC = ("ZeroshotCLIP", "SingleView")
NODES = {"ZeroshotCLIP": "ZSCLIP"}  # where a trainer's own settings are, if not in TRAINER.<NAME>
VIEWS = ("N_VIEWS", "AUGMIX", "CROP_SCALE", "ON_DEVICE")
STEP = {"RHO": 0.0, "LAMBDA": 1.0, "VARIANT": "sam"}  # of trainings before their nodes had these keys
STEP_NODES = ("SAPT", "COCOOP")
OF_FOLDERS = ("ImageFolder",)  # dataset classes that stand for many datasets


def older_data(content: Mapping[str, Any]) -> dict[str, Any]:
    """The entry "data"; for a folder of images its name, with that of a split file.

    >>> older_data({"dataset": "ImageFolder", "config": {"DATASET": {"ROOT": "data/pets"}}})
    {'name': 'pets', 'own': True}
    """
    name, node = content["dataset"], content["config"]["DATASET"]
    if name not in OF_FOLDERS:
        return {"name": name, "own": False}
    names = (PurePath(str(node.get("ROOT", ""))).name or name, PurePath(str(node.get("SPLIT_FILE", ""))).stem)
    return {"name": "/".join(filter(None, names)), "own": True}


def describe_method(content: Mapping[str, Any]) -> dict[str, Any]:
    """The entry "method", see `Record.method`.

    >>> trainers = {"ZERO": {"TOP": 0.3}, "VIEWS": {"N_VIEWS": 64}}
    >>> describe_method({"trainer": "ZERO", "config": {"TRAINER": trainers, "DATASET": {}}})["views"]
    {'N_VIEWS': 64}
    """
    trainer = content["trainer"]
    kind = "prompt" if trainer in PROMPTS else "cache" if trainer in CACHES else "views"
    without_views = kind != "views" or trainer in DETERMINISTIC
    own = _node(content, NODES.get(trainer, trainer.upper()))
    if trainer == "TLLA":  # its node has STSS's settings and the views
        views, own = own, {key: own[key] for key in _node(content, "STSS") if key in own}
    else:
        views = _node(content, "VIEWS")
    own = own | {"TEMPLATE": own.get("TEMPLATE") or _own_template(content)} if "TEMPLATE" in own else own
    entries = _node(content, "COMPARE").get("PROMPTS", ()) if "prompt" in content else ()
    prompts = dict(entry.partition("=")[::2] for entry in entries)
    template = prompts.get(content.get("prompt", "")) or _node(content, "PROMPT").get("TEMPLATE", "")
    return {
        "name": "STSS" if trainer == "TLLA" else trainer,
        "kind": kind,
        "settings": {} if kind == "prompt" else own,
        "views": None if without_views else {key: views[key] for key in VIEWS if key in views},
        "deterministic": trainer in DETERMINISTIC,
        "learns": trainer in (*PROMPTS, *CACHES, "TLLA"),
        "template": template or _own_template(content),
    }


def describe_training(content: Mapping[str, Any]) -> dict[str, Any] | None:
    """The entry "training"; None if the run did not train.

    >>> config = {"OPTIM": {"MAX_EPOCH": 50}}
    >>> describe_training({"trainer": "TLLA", "train_seconds": 60.0, "config": config})
    {'name': 'SAPT', 'node': 'SAPT', 'epochs': 50}
    """
    if "train_seconds" not in content or "loaded_from" in content:
        return None
    name = training_of(content["trainer"])
    epochs = 1 if name == "TipAdapter" else content["config"]["OPTIM"].get("MAX_EPOCH")
    return {"name": name, "node": NODES.get(name, name.upper()), "epochs": epochs}


def with_precision(node: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """A method's node with the precision in which it was computed, not the one that was wanted, as PREC.

    >>> with_precision({"PREC": "amp"}, {"versions": {"device": "cpu"}})
    {'PREC': 'fp32'}
    """
    if "PREC" not in node:
        return dict(node)
    wanted = content.get("precision") if node["PREC"] == "auto" else node["PREC"]
    in_fp32 = wanted in ("fp16", "amp") and content["versions"].get("device") == "cpu"
    return {**node, "PREC": "fp32" if in_fp32 else wanted}


def with_step(name: str, node: Mapping[str, Any]) -> dict[str, Any]:
    """TRAINER.<name>; of a sharpness-aware training with what its step was where it does not say so.

    >>> with_step("SAPT", {"RHO": 0.05, "LAMBDA": 1.0})["VARIANT"], with_step("COOP", {})
    ('sam', {})
    """
    return (STEP if name in STEP_NODES else {}) | dict(node)


def precision_of(content: Mapping[str, Any]) -> str:
    """The entry "precision".

    >>> trainers = {"PROMPT": {"PREC": "amp"}}
    >>> precision_of({"trainer": "ZERO", "versions": {"device": "cpu"}, "config": {"TRAINER": trainers}})
    'fp32'
    """
    name = training_of(content["trainer"])
    node = _node(content, NODES.get(name, name.upper()))
    return str(with_precision(node if "PREC" in node else _node(content, "PROMPT"), content).get("PREC", ""))


def training_of(trainer: str) -> str:
    """The name of a trainer's training.

    >>> training_of("TLLA"), training_of("CoOp")
    ('SAPT', 'CoOp')
    """
    return "SAPT" if trainer == "TLLA" else trainer


def _node(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    node = content["config"]["TRAINER"].get(name)
    return (
        {key: value for key, value in node.items() if key not in ("SEED", "RULE")} if isinstance(node, Mapping) else {}
    )


def _own_template(content: Mapping[str, Any]) -> str:
    return str(content["config"]["DATASET"].get("TEMPLATE", ""))
