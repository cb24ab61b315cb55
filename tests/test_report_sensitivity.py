"""python -m report sensitivity, against features and entropies that are computed another way."""

import json
import math

import pytest
import torch
from benchmark import CLASSES
from conftest import TINY_VIT, make_clip
from PIL import Image

from report.__main__ import main
from tlla.clip import encode_images, normalize
from tlla.features import perturbed_text_features
from tlla.selection import entropy
from tlla.views.make import ViewConfig, make_views

TEMPLATE = "an icon of {}."


def sensitivity(place, *more: str) -> list[dict]:
    """The rows of a call on the tiny CLIP."""
    out = place.folder / "report"
    argv = ("--backbone", str(place.folder / "clip.pt"), "--classes", *CLASSES, "--out", str(out))
    assert main(["sensitivity", TEMPLATE, *argv, *more]) == 0
    return json.loads((out / "sensitivity.json").read_text())["rows"]


def test_features_and_entropies_move_as_they_do_by_hand(place):
    image = place.folder / "data/emoji/noto/val/0/0.png"
    few = ("--rho", "0.5", "8", "--perturbations", "3", "--views", "4", "--seed", "2")
    rows = sensitivity(place, *few, "--images", str(image))
    model = make_clip(TINY_VIT)
    model.logit_scale.data.fill_(math.log(100))
    views = make_views(Image.open(image).convert("RGB"), 0, ViewConfig(32, 4, seed=2))
    features = encode_images(model, normalize(views))
    for row, rho in zip(rows, (0.5, 8.0), strict=True):
        text = perturbed_text_features(model, list(CLASSES), TEMPLATE, 3, rho, 2)
        cosine = torch.nn.functional.cosine_similarity(text[1:], text[:1], dim=-1)
        rises = entropy(100 * features @ text.mT) - entropy(100 * features @ text[0].T)
        assert row["rho'"] == rho and row["cosine"] == pytest.approx(cosine.mean().item(), abs=1e-5)
        assert row["lowest"] == pytest.approx(cosine.min().item(), abs=1e-5)
        assert row["sharpness"] == pytest.approx(rises[1:].amax(0).mean().item(), abs=1e-4)
        assert row["sharpness / entropy"] == pytest.approx(row["sharpness"] / row["entropy"])
    assert rows[1]["cosine"] < rows[0]["cosine"] < 1


def test_relative_radii_are_norms_of_the_context(place):
    (row,) = sensitivity(place, "--rho", "1", "--relative")
    assert row["rho' / norm"] == pytest.approx(1) and "entropy" not in row
    assert (place.folder / "report/sensitivity.md").read_text().startswith("| prompt")


def test_a_prompt_without_a_context_is_refused(place, capsys):
    argv = ("--backbone", str(place.folder / "clip.pt"), "--classes", *CLASSES)
    assert main(["sensitivity", "{}.", *argv]) == 2
    assert "has no context vectors to perturb" in capsys.readouterr().err
    assert main(["sensitivity", TEMPLATE, *argv, "--perturbations", "0"]) == 2
