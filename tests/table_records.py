"""Records of runs for tables, written by hand, and the rows of a csv report."""

import csv
import io
import json
from pathlib import Path

from logs import result

from tlla import paper

KINDS = {"ZeroshotCLIP": "template", "CoOp": "prompt", "SAPT": "prompt"}  # of newer records; else "views"
TRAINED = {"CoOp": ("CoOp", "COOP"), "SAPT": ("SAPT", "SAPT"), "TLLA": ("SAPT", "SAPT")}


def says_itself(content: dict) -> dict:
    """What records have said themselves since the tables guess nothing."""
    trainer, nodes = content["trainer"], content["config"]["TRAINER"]
    kind = KINDS.get(trainer, "views")
    views = {key: nodes["VIEWS"][key] for key in ("N_VIEWS", "AUGMIX", "CROP_SCALE")} if kind == "views" else None
    content["method"] = {
        "name": "STSS" if trainer == "TLLA" else trainer,
        "kind": kind,
        "settings": {"TOP_S": 16} if trainer in ("STSS", "TLLA") else {},
        "views": views,
        "deterministic": trainer == "ZeroshotCLIP",
        "learns": trainer in TRAINED,
    }
    content["data"] = {"name": content["dataset"], "own": False}
    if "train_seconds" in content:
        content["training"] = {**dict(zip(("name", "node"), TRAINED[trainer], strict=True)), "epochs": 50}
    return content


def record(folder: Path, trainer: str, dataset: str, seed: int, accuracy: float, total: int = 1000, **more) -> dict:
    """Writes the results.json of a run: its training, or with `prompt_of` a test of another run's prompt.

    It is as earlier versions wrote it, with `new` as they are now.
    """
    prompt_of, new = more.pop("prompt_of", None), more.pop("new", False)
    test = {"correct": round(accuracy * total / 100), "total": total, "accuracy": accuracy, "ece": 1.0, "nll": 0.5}
    nodes = {"COOP": {"N_CTX": 4}, "SAPT": {"RHO": 0.05}, "ZSCLIP": {}, "STSS": {"TOP_S": 16}, "ZERO": {"TOP": 0.3}}
    views = {"N_VIEWS": 64, "AUGMIX": False, "CROP_SCALE": [0.08, 1.0], "SEED": -1}
    content = {
        "trainer": trainer,
        "dataset": dataset,
        "backbone": "ViT-B/16",
        "seed": seed,
        "splits": {"test": test},
        "split_sha256": {"test": f"hash of {dataset}"},
        "versions": {"torch": "2.4.0", "device": "cpu"},
        "config": {
            "TRAINER": {**nodes, "TLLA": {"TOP_S": 16, **views}, "VIEWS": dict(views), "PROMPT": {"TEMPLATE": ""}},
            "OPTIM": {"LR": 0.002, "MAX_EPOCH": 50},
            "DATASET": {"NUM_SHOTS": 16, "SUBSAMPLE_CLASSES": "all"},
            "TEST": {"FINAL_MODEL": "last_step"},
        },
    }
    if prompt_of:
        content["loaded_from"] = {"path": str(prompt_of / "prompt_learner/model.pth.tar-50"), "epoch": 50}
    elif trainer in ("CoOp", "SAPT", "TLLA"):
        content["train_seconds"] = 1.0
    if new:
        says_itself(content)
    for path, value in more.items():
        *nodes, leaf = path.split("__")
        node = content
        for name in nodes:
            node = node[name]
        node[leaf] = value
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(content))
    (folder / "log.txt").write_text(result(accuracy))
    return content


CELLS = {  # of the ImageNet table: accuracies of three seeds
    "CoOp": [(71.5, 71.0, 72.0), (49.0, 50.0, 51.0), (64.0, 64.2, 64.4), (75.0, 75.5, 76.0), (48.0, 47.0, 49.0)],
    "SAPT": [(70.5, 70.7, 70.9), (51.0, 51.0, 51.0), (64.1, 64.6, 64.7), (77.0, 77.5, 78.0), (49.0, 49.5, 49.1)],
    "TLLA": [(74.5, 74.7, 74.9), (65.0, 66.0, 67.0), (67.1, 67.2, 67.3), (81.0, 81.5, 82.0), (51.0, 52.0, 53.0)],
}


def write_runs(root: Path, new: bool) -> Path:
    """The paper's domain generalisation with three seeds, and zero-shot CLIP with one; as old or as new records."""
    more = {"new": new}
    for method, rows in CELLS.items():
        for dataset, accuracies in zip(paper.IMAGENET.columns, rows, strict=True):
            for seed, accuracy in enumerate(accuracies, start=1):
                source = root / "ImageNet" / ("CoOp" if method == "CoOp" else "SAPT") / f"seed{seed}"
                own = {} if method != "TLLA" and dataset == "ImageNet" else {"prompt_of": source}
                record(root / dataset / method / f"seed{seed}", method, dataset, seed, accuracy, **own, **more)
    for dataset, accuracy in zip(paper.IMAGENET.columns, (68.3, 49.9, 61.9, 77.6, 48.2), strict=True):
        record(root / dataset / "CLIP" / "seed1", "ZeroshotCLIP", dataset, 1, accuracy, **more)
    return root


def rows_of(out: str) -> dict[str, list[str]]:
    """Of a csv report: (method, dataset) -> its row."""
    return {(row["method"], row["dataset"]): row for row in csv.DictReader(io.StringIO(out))}


def read(folder: Path) -> dict:
    """A results.json."""
    return json.loads((folder / "results.json").read_text())


def change(folder: Path, edit) -> None:
    """Edits a results.json."""
    content = read(folder)
    edit(content)
    (folder / "results.json").write_text(json.dumps(content))
