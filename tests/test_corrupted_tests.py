"""DATASET.CORRUPTION through train.py: which images are corrupted, and who says so."""

import json

import pytest
import torch
from benchmark import Workplace
from hostile import fails
from test_testtime import NAMES

import parse_test_res
import tlla.clip
from tlla.clip import encode_images, load_clip, normalize
from tlla.corruptions import Corruption
from tlla.prompts.checkpoint import read_checkpoint
from tlla.prompts.classifier import from_templates
from tlla.views.make import ViewConfig, make_views
from tlla.views.read_image import read_image

NOISE = ("DATASET.CORRUPTION", "gaussian_noise", "DATASET.SEVERITY", "3")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Workplace(tmp_path_factory.mktemp("corrupted"))
    place.run("ZeroshotCLIP", "clean")
    place.run("ZeroshotCLIP", "noise", *NOISE)
    return place


def confidences(place, name):
    return torch.tensor([float(row["confidence"]) for row in place.rows(name)])


@torch.no_grad()
def test_every_test_image_is_corrupted_by_its_place_and_the_seed(place):
    model = load_clip(str(place.folder / "clip.pt"))
    classifier = from_templates(model, NAMES, "an icon of a {}.")
    items = json.loads((place.folder / "data/emoji/index.json").read_text())["items"]["noto"]["test"]
    found = []
    for index, (path, *_) in enumerate(items):
        drawn = Corruption("gaussian_noise", 3).draw(read_image(place.folder / "data/emoji" / path), 1, index)
        view = normalize(make_views(drawn, index, ViewConfig(32, 1)))
        found.append(classifier.logits(encode_images(model, view)[None]).softmax(dim=-1).max())
    torch.testing.assert_close(confidences(place, "noise"), torch.stack(found), atol=1e-4, rtol=0)
    assert (confidences(place, "clean") - confidences(place, "noise")).abs().max() > 0.05


def test_batches_workers_views_and_order_change_no_picture(place):
    place.run("ZeroshotCLIP", "small", *NOISE, "DATALOADER.TEST.BATCH_SIZE", "2", "DATALOADER.NUM_WORKERS", "1")
    methods = ("TRAINER.COMPARE.METHODS", "['SingleView', 'TDA']")  # TDA's order is everyone's
    place.run("Compare", "views", *NOISE, *methods, "TRAINER.VIEWS.VIEW_BATCH", "12")
    for name in ("small", "views/template/SingleView"):
        torch.testing.assert_close(confidences(place, name), confidences(place, "noise"), atol=1e-4, rtol=0)
    table = (place.folder / "views/table.md").read_text()
    assert "The test images are corrupted: gaussian_noise 3." in table


def test_records_and_tables_keep_corrupted_images_apart(place, capsys):
    place.run("ZeroshotCLIP", "worse", *NOISE[:3], "5")
    noise, clean = (json.loads((place.folder / name / "results.json").read_text()) for name in ("noise", "clean"))
    assert noise["data"]["corruption"] == {"name": "gaussian_noise", "severity": 3, "source": "definition"}
    assert "corruption" not in clean["data"]
    assert (noise["method"]["deterministic"], clean["method"]["deterministic"]) == (False, True)
    capsys.readouterr()
    folders = [str(place.folder / name) for name in ("clean", "noise", "worse")]
    assert parse_test_res.main([*folders, "--table"]) == 0
    tables = capsys.readouterr().out.split("\n\n")
    heads = [text.splitlines()[0] for text in tables if "ZeroshotCLIP" in text]
    assert len(heads) == 2 and heads[0].split()[1] == "Emoji"
    assert all(name in heads[1] for name in ("Emoji, gaussian_noise 3", "Emoji, gaussian_noise 5", "average"))
    assert any(text.startswith("Without training, with corrupted test images: accuracy") for text in tables)


def test_kept_features_are_of_one_corruption(place):
    keep = ("TEST.FEATURES", str(place.folder / "features"))
    for more in ((), NOISE):
        place.run("SingleView", "kept", *keep, *more)
    assert len(list((place.folder / "features").glob("*.npy"))) == 2


def test_a_training_does_not_depend_on_it(place):
    trained = ("OPTIM.MAX_EPOCH", "1")
    place.run("CoOp", "coop", *trained, *NOISE)
    record = place.run("CoOp", "coop", *trained)  # goes on from the epoch that is there
    assert "corruption" not in record["data"] and "resumed" not in record
    file = place.folder / "coop/prompt_learner/model.pth.tar-1"
    assert read_checkpoint(file).trainer["training"]["dataset"] == "Emoji"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (NOISE[2:], "DATASET.SEVERITY is 3, but there is no DATASET.CORRUPTION"),
        (NOISE[:2], "DATASET.CORRUPTION gaussian_noise needs a DATASET.SEVERITY of 1 to 5, but got 0"),
        ((*NOISE, "TEST.SPLIT", "val"), "DATASET.CORRUPTION gaussian_noise is of test images, but TEST.SPLIT is val"),
        (("DATASET.CORRUPTION", "rain", "DATASET.SEVERITY", "1"), "DATASET.CORRUPTION must be one of"),
    ],
)
def test_what_is_no_corruption_is_refused_before_a_weight_is_read(place, capfd, monkeypatch, more, message):
    monkeypatch.setattr(tlla.clip, "_load_openai", None)
    assert message in fails(capfd, place.argv("ZeroshotCLIP", "wrong", *more))
