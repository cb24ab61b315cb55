"""What users call, on a GPU: Predictor, train_prompt, predict.py and a report."""

import csv
import json

import pytest
import torch
from gpu import cosine, place_of

import tlla
from report.__main__ import main as report
from tlla.clip import load_clip
from tlla.predict.command import main as predict

pytestmark = pytest.mark.gpu

NAMES = ["bird", "land vehicle", "tool"]
SETTINGS = {"STSS": {"top_s": 4}}  # of the method


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return place_of(tmp_path_factory)


@pytest.fixture(scope="module")
def images(place):
    return sorted((place.folder / "data/emoji/noto/test").rglob("*.png"))[:8]


@pytest.mark.parametrize("method", ("STSS", "TPT", "SAR"))
def test_predictor_in_all_precisions(device, images, method):
    def found(device, half=False, precision="fp32"):
        clip_model = load_clip("EmojiCLIP", device, half=half)
        settings = {"n_views": 8, "precision": precision, **SETTINGS.get(method, {})}
        return tlla.Predictor(clip_model, NAMES, method=method, **settings).predict(images)

    expected = found("cpu").probability
    torch.testing.assert_close(found(device).probability, expected, atol=1e-4, rtol=0)
    for other in (found(device, precision="amp"), found(device, half=True)):
        assert other.probability.dtype == torch.float32 and other.probability.device.type == "cpu"
        assert cosine(other.probability, expected) > 0.99  # where two views score nearly the same, either may vote


def test_train_prompt_learns_what_the_cpu_learns(device, images):
    labels = [int(path.parent.name) for path in images]
    found, expected = (
        tlla.train_prompt(load_clip("EmojiCLIP", where), images, labels, NAMES, epochs=3, batch_size=4, workers=2)
        for where in (device, "cpu")
    )
    start = tlla.train_prompt(load_clip("EmojiCLIP"), images, labels, NAMES, epochs=1, lr=0, batch_size=4).ctx
    assert found.ctx.device.type == "cpu" and found.losses == pytest.approx(expected.losses, abs=1e-4)
    assert (expected.ctx - start).norm() > 1e-4
    assert cosine(found.ctx - start, expected.ctx - start) > 0.999


@pytest.mark.parametrize("precision", ("fp32", "amp"))
def test_predict_py_writes_what_the_cpu_finds(device, images, tmp_path, precision):
    tables = []
    for where, name in (("cpu", "fp32"), (str(device), precision)):
        file = tmp_path / f"{len(tables)}.csv"
        words = [*map(str, images), "--classes", *NAMES, "--backbone", "EmojiCLIP", "--device", where]
        assert predict([*words, "--precision", name, "--views", "8", "--set", "top_s=4", "--csv", str(file)]) == 0
        tables.append(list(csv.DictReader(file.open(encoding="utf-8"))))
    expected, found = tables
    assert len(found) == 8
    for row, other in zip(found, expected, strict=True):
        tolerance = 1e-3 if precision == "fp32" else 0.1  # of two views with nearly the same score, either may vote
        assert float(row["probability"]) == pytest.approx(float(other["probability"]), abs=tolerance)
        assert row["prediction"] == other["prediction"] or float(other["probability"]) < 0.6


def test_a_report_measures_a_run_of_the_gpu_as_the_cpu_does(place, device, tmp_path):
    more = (*place.with_backbone("ViT"), "OPTIM.LR", "0.01")
    place.run("SAPT", "run", *more)
    few, found = ("--rho", "0.5", "--directions", "3", "--ascent", "2"), []
    for use_cuda in ("False", "True"):
        out = tmp_path / use_cuda
        words = (str(place.folder / "run"), *few, "--set", "USE_CUDA", use_cuda, "--out", str(out))
        assert report(["sharpness", *words]) == 0
        found.append(json.loads((out / "sharpness.json").read_text())["runs"][0])
    expected, numbers = ({k: v for k, v in row.items() if isinstance(v, float)} for row in found)
    assert numbers == pytest.approx(expected, rel=1e-2, abs=1e-4) and expected["random_0.5"] != 0
