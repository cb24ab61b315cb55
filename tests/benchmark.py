"""A small stand-in for the embedded benchmark, and train.py on it with a tiny CLIP, in this process or another."""

import csv
import functools
import io
import json
import math
from pathlib import Path

import numpy as np
import torch
import yaml
from conftest import TINY_VIT, make_clip
from PIL import Image

import tlla.clip
import train
from tlla.backbones import Backbone
from tlla.backbones.weights import EMBEDDED, assets_dir
from tlla.prompts.checkpoint import read_checkpoint

_load, _loaded = tlla.clip._load_openai, {}
_tiny: dict[str, tuple[int, int]] = {}  # files that Workplace has written, which hold the same: time and size


def load_once(name: str) -> Backbone:
    """A small CLIP of a file, which most runs of a process share: loaded again if the file or a weight has changed.

    Random numbers are drawn as by a run that loads it.
    """
    path = assets_dir() / EMBEDDED[name] if name in EMBEDDED else Path(name)
    if not path.is_file() or path.stat().st_size > 100e6:
        return _load(name)
    draws, stat = torch.get_rng_state().numpy().tobytes(), path.stat()
    file = (stat.st_mtime_ns, stat.st_size)
    file = "tiny" if _tiny.get(str(path)) == file else (str(path), *file)
    key = (file, tlla.clip.read_state_dict, tlla.clip.build_model)
    model, weights, later = _loaded.pop(key, (None, None, {}))
    if model is None or weights != _weights(model):
        model, later = _load(name), {draws: torch.get_rng_state()}
        weights = _weights(model)
    elif draws not in later:
        tlla.clip.build_model(dict(model.state_dict()))  # draws what loading draws
        later[draws] = torch.get_rng_state()
    torch.set_rng_state(later[draws])
    _loaded[key] = model, weights, later
    if len(_loaded) > 3:
        del _loaded[next(iter(_loaded))]
    return model


def _weights(model: Backbone) -> list[tuple]:
    state = model.state_dict()
    return [(name, weight.dtype, weight._version, float(weight.contiguous().sum())) for name, weight in state.items()]


tlla.clip._load_openai = load_once
Image.init()  # so that no forked worker imports PIL's formats

REPO = Path(train.__file__).resolve().parent
CLASSES = ("bird", "land vehicle", "tool")
COUNTS = {"noto": {"train": 8, "val": 4, "test": 5}, "twemoji": {"test": 5}}


def make_benchmark(root: Path, classes: tuple[str, ...] = CLASSES) -> Path:
    """Writes root/emoji: noisy pictures of one colour a class, with the index that the datasets read."""
    items: dict = {}
    for (style, part, label, i), picture in _pictures(len(classes), json.dumps(COUNTS)).items():
        path = root / "emoji" / style / part / str(label) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture)
        rows = items.setdefault(style, {}).setdefault(part, [])
        rows.append([f"{style}/{part}/{label}/{i}.png", label, f"{classes[label]} {i}"])
    index = {"size": 48, "classes": [{"name": name} for name in classes], "items": items}
    (root / "emoji" / "index.json").write_text(json.dumps(index), encoding="utf-8")
    return root


@functools.cache
def _pictures(n_classes: int, counts: str) -> dict[tuple[str, str, int, int], bytes]:
    """PNGs by style, split, label and number; drawn once."""
    rng, found = np.random.default_rng(0), {}
    for style, parts in json.loads(counts).items():
        for part, label, i in ((part, c, i) for part, n in parts.items() for c in range(n_classes) for i in range(n)):
            pixels = rng.integers(0, 120, (40, 48, 3)) + np.array([120 * (label == c) for c in range(3)])
            Image.fromarray(pixels.astype(np.uint8)).save(buffer := io.BytesIO(), "PNG")
            found[style, part, label, i] = buffer.getvalue()
    return found


@functools.cache
def _weights_file() -> bytes:
    """The tiny CLIP with real CLIP's logit scale; at the initial 14 random features tell nothing apart."""
    state = make_clip(TINY_VIT).state_dict()
    state["logit_scale"].fill_(math.log(100))
    torch.save(state, buffer := io.BytesIO())
    return buffer.getvalue()


def write_config(path: Path, clip_file: Path, epochs: int = 3) -> Path:
    """A method config for the tiny CLIP, in the shape of CoOp's YAML files."""
    config = {
        "DATALOADER": {"TRAIN_X": {"BATCH_SIZE": 8}, "TEST": {"BATCH_SIZE": 7}, "NUM_WORKERS": 0},
        "INPUT": {
            "SIZE": "(32, 32)",
            "INTERPOLATION": "bicubic",
            "PIXEL_MEAN": [0.48145466, 0.4578275, 0.40821073],
            "PIXEL_STD": [0.26862954, 0.26130258, 0.27577711],
            "TRANSFORMS": ["random_resized_crop", "random_flip", "normalize"],
        },
        "OPTIM": {
            "NAME": "sgd",
            "LR": 0.1,
            "MAX_EPOCH": epochs,
            "LR_SCHEDULER": "cosine",
            "WARMUP_EPOCH": 1,
            "WARMUP_TYPE": "constant",
            "WARMUP_CONS_LR": 1e-5,
        },
        "MODEL": {"BACKBONE": {"NAME": str(clip_file)}},
        "TRAINER": {
            "SAPT": {"N_CTX": 3},
            "COOP": {"N_CTX": 3},
            "COCOOP": {"N_CTX": 3},
            "FPP": {"N_CTX": 3, "STEPS": 2},
            "TIPADAPTER": {"AUGMENT_EPOCH": 2, "SEARCH_STEP": [20, 5]},
            "TIPADAPTERF": {"AUGMENT_EPOCH": 2, "SEARCH_STEP": [20, 5]},
            "TLLA": {"N_VIEWS": 6, "TOP_S": 3, "N_PERTURB": 2},
            "STSS": {"TOP_S": 3, "N_PERTURB": 2},
            "VIEWS": {"N_VIEWS": 6},
        },
    }
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


class Workplace:
    """A folder with data, weights and a config, and the command line on them."""

    def __init__(self, folder: Path, classes: tuple[str, ...] = CLASSES):
        self.folder = folder
        make_benchmark(folder / "data", classes)
        file = folder / "clip.pt"
        file.write_bytes(_weights_file())
        _tiny[str(file)] = (file.stat().st_mtime_ns, file.stat().st_size)
        self.config = write_config(folder / "method.yaml", file)

    def argv(self, trainer: str, output: str, *more: str, dataset: str = "emoji") -> list[str]:
        """The arguments of one run; `output` is a name inside the folder; `more` are flags, then KEY VALUE pairs."""
        return [
            *("--trainer", trainer, "--output-dir", str(self.folder / output), "--root", str(self.folder / "data")),
            *("--config-file", str(self.config), "--dataset-config-file", f"configs/datasets/{dataset}.yaml"),
            *("--seed", "1", *more),
        ]

    def run(self, trainer: str, output: str, *more: str, dataset: str = "emoji") -> dict:
        """Runs in this process, expects success, returns results.json."""
        assert train.main(self.argv(trainer, output, *more, dataset=dataset)) == 0
        return json.loads((self.folder / output / "results.json").read_text())

    def predictions(self, output: str, split: str = "test") -> str:
        """Per-image predictions of a run, as text."""
        return (self.folder / output / f"predictions_{split}.csv").read_text()

    def rows(self, output: str) -> list[dict[str, str]]:
        """Those of the test images."""
        return list(csv.DictReader(io.StringIO(self.predictions(output))))

    def context(self, output: str, epoch: int = 3) -> torch.Tensor:
        """Context vectors that a run saved."""
        path = self.folder / output / "prompt_learner" / f"model.pth.tar-{epoch}"
        return read_checkpoint(path).state["ctx"]
