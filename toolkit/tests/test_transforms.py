"""Transforms against values that Dassl 0.6.3 gave, and against CLIP's own preprocessing."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dassl.config import get_cfg_default
from dassl.data.transforms import build_transform
from dassl.data.transforms.transforms import INTERPOLATION_MODES
from dassl.utils import set_random_seed

ROWS = json.loads((Path(__file__).parent / "data/transforms.json").read_text())


def image(height=40, width=50):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def input_cfg(**options):
    cfg = get_cfg_default()
    for key, value in options.items():
        cfg.INPUT[key] = value
    return cfg


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "+".join(row["choices"]))
def test_values(row):
    cfg = input_cfg(SIZE=(32, 24), INTERPOLATION="bicubic", TRANSFORMS=row["choices"], GB_K=3)
    transform = build_transform(cfg, is_train=row["train"])
    set_random_seed(row["seed"])
    tensor = transform(image())
    assert tensor.shape == (3, 32, 24)
    assert tensor.mean().item() == pytest.approx(row["mean"], abs=0.01)
    assert torch.allclose(tensor[:, 5:25:8, 7], torch.tensor(row["pixels"]), atol=0.03)


@pytest.mark.parametrize("size", [(300, 400), (400, 250), (224, 224), (100, 90)])
def test_equals_clip_preprocessing(size):
    clip = pytest.importorskip("clip.clip")
    cfg = input_cfg(
        INTERPOLATION="bicubic",
        TRANSFORMS=("random_resized_crop", "random_flip", "normalize"),
        PIXEL_MEAN=[0.48145466, 0.4578275, 0.40821073],
        PIXEL_STD=[0.26862954, 0.26130258, 0.27577711],
    )
    ours, theirs = build_transform(cfg, is_train=False)(image(*size)), clip._transform(224)(image(*size))
    assert (ours - theirs).abs().max() <= 1e-6


def test_printed_steps(capsys):
    build_transform(input_cfg(TRANSFORMS=("normalize", "random_flip")))
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        "Building transform_train",
        "+ resize to 224x224",
        "+ random flip",
        "+ to torch tensor of range [0, 1]",
    ]
    assert lines[4].startswith("+ normalization (mean=[0.485, 0.456, 0.406]")
    build_transform(input_cfg(), is_train=False)
    assert "+ resize the smaller edge to 224\n+ 224x224 center crop\n" in capsys.readouterr().out


@pytest.mark.parametrize("choice", ["random_crop", "center_crop"])
def test_other_choices_run(choice):
    tensor = build_transform(input_cfg(SIZE=(16, 16)), choices=[choice])(image())
    assert tensor.shape == (3, 16, 16)


def test_errors():
    with pytest.raises(ValueError, match=r"INPUT.TRANSFORMS must be among .*do you mean 'random_flip'"):
        build_transform(input_cfg(TRANSFORMS=["random_flipp"]))
    with pytest.raises(ValueError, match="list of names"):
        build_transform(input_cfg(TRANSFORMS="random_flip"))
    with pytest.raises(ValueError, match=r"INPUT.INTERPOLATION must be among .*do you mean 'bicubic'"):
        build_transform(input_cfg(INTERPOLATION="bicubik"), is_train=False)
    with pytest.raises(ValueError, match=r"INPUT.TRANSFORMS must be among \('random_crop', .*but got 'randaugment'$"):
        build_transform(input_cfg(TRANSFORMS=["randaugment"]))


def test_no_transform_and_modes(capsys):
    assert build_transform(input_cfg(NO_TRANSFORM=True)) is None
    assert set(INTERPOLATION_MODES) == {"bilinear", "bicubic", "nearest"}
