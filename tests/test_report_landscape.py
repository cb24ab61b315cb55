"""python -m report landscape, sharpness and curves on small runs, against numbers that are computed another way."""

import json
import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from benchmark import CLASSES, Workplace
from conftest import TINY_VIT, make_clip
from PIL import Image

from report.__main__ import main
from report.commands.sharpness import markdown
from report.prompt_runs import open_prompt
from report.reopen import open_run
from tlla.clip import normalize
from tlla.landscape.planes import filter_normalised_plane
from tlla.prompts.learner import PromptLearner
from tlla.prompts.prompted import PromptedCLIP
from tlla.records.record import read_record
from tlla.sharpness import random_directions
from tlla.views.make import ViewConfig, centre_crop, make_views

KEEP = ("TRAIN.CHECKPOINT_FREQ", "1")
FEW = ("DATASET.NUM_SHOTS", "2")
WORDS = ("TRAINER.SAPT.CTX_INIT", "an icon of")
VIEWS = {"N_VIEWS": 6, "N_PERTURB": 2}  # Workplace's


class Oracle:
    """Losses of contexts, without the code under test: its own CLIP, its own images, one context at a time."""

    def __init__(self, place):
        clip = make_clip(TINY_VIT)
        clip.logit_scale.data.fill_(math.log(100))
        self.place = place
        self.model = PromptedCLIP(clip, PromptLearner(clip, list(CLASSES), n_ctx=3))
        self.items = json.loads((place.folder / "data" / "emoji" / "index.json").read_text())["items"]["noto"]

    def read(self, row):
        return Image.open(self.place.folder / "data" / "emoji" / row[0]).convert("RGB")

    def images(self, part, numbers=slice(None)):
        rows = self.items[part][numbers]
        pixels = [torch.from_numpy(np.array(centre_crop(self.read(row), 32))).permute(2, 0, 1) for row in rows]
        return self.model.encode_image(normalize(torch.stack(pixels))), torch.tensor([row[1] for row in rows])

    def views(self, index):
        config = ViewConfig(32, VIEWS["N_VIEWS"], (0.08, 1.0), seed=1)
        return self.model.encode_image(normalize(make_views(self.read(self.items["test"][index]), index, config)))

    def logits(self, ctx, features):
        return 100 * features @ self.model.encode_text(ctx).t()

    def loss(self, ctx, images):
        return F.cross_entropy(self.logits(ctx, images[0]), images[1])

    def entropy(self, ctx, features):
        probability = self.logits(ctx, features).softmax(dim=-1)
        return -(probability * probability.log()).sum(dim=-1)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Workplace(tmp_path_factory.mktemp("landscape"))
    place.run("CoOp", "coop", *KEEP)
    place.run("SAPT", "sapt", *KEEP, *WORDS)
    place.run("SAPT", "sapt2", *KEEP, *WORDS, "SEED", "2")
    place.run("CoOp", "few", *FEW)
    place.run("ZeroshotCLIP", "zeroshot")
    return place


@pytest.fixture(scope="module")
def oracle(place):
    return Oracle(place)


def report(place, tmp_path, *arguments):
    """Runs a command, NAME:run standing for the run's folder; returns its JSON file."""
    words = [f"{w.split(':')[0]}={place.folder / w.split(':')[1]}" if ":" in w else w for w in arguments]
    assert main([words[0], "--out", str(tmp_path), *words[1:]]) == 0
    return json.loads((tmp_path / f"{words[0]}.json").read_text())


def refusal(place, tmp_path, capsys, *arguments):
    """The message of a command that must exit with 2 and write nothing."""
    words = [f"{w.split(':')[0]}={place.folder / w.split(':')[1]}" if ":" in w else w for w in arguments]
    assert main([words[0], "--out", str(tmp_path / "none"), *words[1:]]) == 2
    assert not (tmp_path / "none").exists()
    return capsys.readouterr().err


def close(actual, expected):
    torch.testing.assert_close(torch.as_tensor(actual), torch.as_tensor(expected).detach(), atol=2e-4, rtol=2e-4)


@pytest.fixture(scope="module")
def landscape(place, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    options = ("--images", "0", "--image", "7", "--span", "0.5", "--steps", "3", "--direction-seed", "5")
    return folder, report(place, folder, "landscape", "CoOp:coop", "SAPT:sapt", *options)


def test_surfaces_equal_a_loop_over_the_plane(place, oracle, landscape):
    _, found = landscape
    assert found["axis"] == [-0.5, 0.0, 0.5]
    images = oracle.images("train")
    for entry, folder in zip(found["runs"], ("coop", "sapt"), strict=True):
        ctx = place.context(folder)
        d1, d2 = filter_normalised_plane(ctx, 5)
        assert entry["prompt_norm"] == pytest.approx(ctx.norm().item())
        for i, alpha in enumerate((-0.5, 0, 0.5)):
            for j, beta in enumerate((-0.5, 0, 0.5)):
                moved = ctx + alpha * d1 + beta * d2
                close(entry["training_loss"][i][j], oracle.loss(moved, images))
                for view, surface in zip(found["views"], entry["entropy_of_views"], strict=True):
                    close(surface[i][j], oracle.entropy(moved, oracle.views(7)[[view["number"]]])[0])


def test_the_views_are_those_of_the_lowest_and_the_highest_score(place, oracle, landscape):
    _, found = landscape
    features = oracle.views(7)
    scores = {}
    for name, folder in (("CoOp", "coop"), ("SAPT", "sapt")):
        ctx = place.context(folder)
        plain = oracle.entropy(ctx, features)
        moved = [oracle.entropy(ctx + eps, features) for eps in random_directions(ctx.shape, 2, 0.5, seed=1)]
        scores[name] = plain + (torch.stack(moved).amax(dim=0) - plain)
    mean = (scores["CoOp"] + scores["SAPT"]) / 2
    assert [view["number"] for view in found["views"]] == [int(mean.argmin()), int(mean.argmax())]
    assert [view["kind"] for view in found["views"]] == ["low", "high"]
    for view in found["views"]:
        assert (view["index"], view["classname"]) == (7, CLASSES[1])
        close([view["scores"][name] for name in scores], [own[view["number"]].item() for own in scores.values()])


def test_pictures_are_written_as_svg_and_png(landscape):
    folder, _ = landscape
    names = {"landscape.json", *(f"{n}.{s}" for n in ("landscape", "landscape_views") for s in ("svg", "png"))}
    assert {path.name for path in folder.iterdir()} == names
    text = (folder / "landscape_views.svg").read_text()
    assert text.startswith("<?xml") and len(text) > 10_000
    with Image.open(folder / "landscape.png") as picture:
        assert picture.width > 600 and len(set(picture.convert("L").tobytes())) > 50


def test_sharpness_equals_its_definitions(place, oracle, tmp_path):
    options = ("--images", "0", "--rho", "0.3", "--directions", "5", "--ascent", "4")
    found = report(place, tmp_path, "sharpness", "CoOp:coop", "SAPT:sapt", "SAPT:sapt2", *options)
    assert [row["name"] for row in found["runs"]] == ["CoOp", "SAPT", "SAPT"]
    images = oracle.images("train")
    for row, folder in zip(found["runs"], ("coop", "sapt", "sapt2"), strict=True):
        ctx = place.context(folder).requires_grad_(True)
        loss = oracle.loss(ctx, images)
        (grad,) = torch.autograd.grad(loss, ctx)
        close(row["loss"], loss)
        close(row["gradient_norm"], grad.norm())
        close(row["first_order_0.3"], oracle.loss(ctx + 0.3 * grad / grad.norm(), images) - loss)
        moved = [oracle.loss(ctx + eps, images) - loss for eps in random_directions(ctx.shape, 5, 0.3, seed=0)]
        close(row["random_0.3"], max(moved))
        assert row["worst_0.3"] >= max(row["first_order_0.3"], 0) - 1e-5
        assert row["eigenvalue_converged"]
        assert row["top_eigenvalue"] >= curvature(lambda p: oracle.loss(p, images), ctx, grad) - 1e-3
    for key in ("loss", "worst_0.3", "top_eigenvalue"):
        values = [row[key] for row in found["runs"][1:]]
        assert found["names"]["SAPT"][key]["mean"] == pytest.approx(np.mean(values))
        assert found["names"]["SAPT"][key]["std"] == pytest.approx(np.std(values, ddof=1))
    assert found["names"]["SAPT"]["seeds"] == [1, 2] and found["names"]["CoOp"]["loss"]["std"] is None
    table = (tmp_path / "sharpness.md").read_text()
    assert f"{found['names']['CoOp']['loss']['mean']:.3g}" in table and "±" in table


def curvature(loss, ctx, direction):
    """u'Hu along a direction by central differences: no larger than the largest eigenvalue."""
    u, h = direction / direction.norm(), 0.05
    with torch.no_grad():
        return ((loss(ctx + h * u) - 2 * loss(ctx) + loss(ctx - h * u)) / h**2).item()


def test_words_are_shown_beside_the_prompts_that_started_from_them(place, oracle, tmp_path):
    found = report(place, tmp_path, "sharpness", "SAPT:sapt", "--rho", "0.1", "--directions", "2", "--ascent", "1")
    assert [row["name"] for row in found["runs"]] == ['"an icon of"', "SAPT"]
    clip = oracle.model.clip
    words = PromptLearner(clip, list(CLASSES), ctx_init="an icon of").ctx.detach()
    close(found["runs"][0]["loss"], oracle.loss(words, oracle.images("train")))


def test_an_eigenvalue_that_did_not_converge_is_named(place, tmp_path):
    found = report(place, tmp_path, "sharpness", "CoOp:coop", "--directions", "1", "--ascent", "1", "--iterations", "1")
    assert not found["runs"][0]["eigenvalue_converged"]
    assert "did not converge and is a lower bound: CoOp seed 1." in (tmp_path / "sharpness.md").read_text()
    assert "did not converge" not in markdown([found["runs"][0] | {"eigenvalue_converged": True}])


def test_fewer_images_are_evenly_spaced(place, oracle):
    found = open_prompt("CoOp", read_record(place.folder / "coop")).training_images(6)
    features, labels = oracle.images("train", slice(None, None, 4))
    assert found.labels.tolist() == labels.tolist() == [0, 0, 1, 1, 2, 2]
    close(found.features, features)


def test_curves_measure_each_epoch(loose, place, oracle, tmp_path):
    runs = ("CoOp:coop", "SAPT:sapt", "SAPT:sapt2")
    found = report(place, tmp_path, "curves", *runs, "--rho", "0.2", "--images", "0", "--directions", "5")
    images = oracle.images("train")
    for row, folder in zip(found["runs"], ("coop", "sapt", "sapt2"), strict=True):
        assert [point["epoch"] for point in row["epochs"]] == [1, 2, 3]
        for point in row["epochs"]:
            ctx = place.context(folder, point["epoch"]).requires_grad_(True)
            loss = oracle.loss(ctx, images)
            (grad,) = torch.autograd.grad(loss, ctx)
            close(point["loss"], loss)
            close(point["first_order"], oracle.loss(ctx + 0.2 * grad / grad.norm(), images) - loss)
            moved = [oracle.loss(ctx + eps, images) - loss for eps in random_directions(ctx.shape, 5, 0.2, seed=0)]
            close(point["random"], max(moved))
        recorded = json.loads((place.folder / folder / "results.json").read_text())["splits"]["test"]["accuracy"]
        assert row["epochs"][-1]["accuracy"] == pytest.approx(recorded)
    assert len({point["loss"] for point in found["runs"][0]["epochs"]}) == 3
    assert (tmp_path / "curves.png").stat().st_size > 10_000 and (tmp_path / "curves.svg").is_file()


def test_curves_can_show_val(undrawn, place, oracle, tmp_path):
    found = report(place, tmp_path, "curves", "CoOp:coop", "--split", "val", "--directions", "1")
    features, labels = oracle.images("val")
    hits = oracle.logits(place.context("coop"), features).argmax(dim=-1) == labels
    assert found["runs"][0]["epochs"][-1]["accuracy"] == pytest.approx(100 * hits.float().mean().item())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("curves", "CoOp:few"), "train with TRAIN.CHECKPOINT_FREQ 1"),
        (("curves", "CoOp:coop", "--rho", "0"), "must be greater than 0"),
        (("landscape", "SAPT:sapt", "SAPT:sapt2"), "2 runs are named SAPT"),
        (("landscape", "CoOp:few", "SAPT:sapt"), "trained on other images"),
        (("landscape", "SAPT:sapt", "--image", "15"), "--image must lie between 0 and 14, but got 15"),
        (("landscape", "SAPT:sapt", "--steps", "4"), "steps must be odd"),
        (("landscape", "SAPT:sapt", "--set", "TRAINER.TLLA.N_VIEWS", "1"), "N_VIEWS must be at least 2"),
        (("sharpness", "SAPT:sapt", "SAPT:few", "--images", "-1"), "--images must be at least 0"),
        (("sharpness", "SAPT:sapt", "SAPT:few"), "both seed 1 of SAPT"),
        (("sharpness", "SAPT:sapt", "--rho", "-1"), "RHO"),
        (("sharpness", "SAPT:sapt", "--directions", "0"), "--directions must be greater than 0"),
        (("sharpness", "CLIP:zeroshot"), "a run of ZeroshotCLIP: name one that learned context vectors"),
    ],
)
def test_what_cannot_be_shown_is_refused(place, tmp_path, capsys, arguments, message):
    assert message in refusal(place, tmp_path, capsys, *arguments)


def test_a_run_without_training_images_is_refused(place, tmp_path, capsys, monkeypatch):
    def without(record, *opts):
        opened = open_run(record, *opts)
        opened.dm.dataset.train_x = []
        return opened

    monkeypatch.setattr("report.prompt_runs.open_run", without)
    assert "which has no training images" in refusal(place, tmp_path, capsys, "sharpness", "CoOp:coop")


def test_a_run_of_a_drawn_seed_is_opened_with_it(place):
    record = place.run("TLLA", "drawn", "--seed", "-1", *FEW, "OPTIM.MAX_EPOCH", "1")
    file = place.folder / "drawn/results.json"
    seed = record["seed"]
    for views, config in ((seed, record["config"]), (0, record["config"] | {"SEED": -1})):  # the second as of old
        file.write_text(json.dumps({**record, "config": config}))
        trainer = open_run(read_record(place.folder / "drawn"))
        assert (trainer.cfg.SEED, trainer.run_seed, trainer.tester.config.seed) == (seed, seed, views)
        assert trainer.record.content["split_sha256"] == record["split_sha256"]


def test_a_prompt_or_images_that_the_results_are_not_of_are_refused(place, tmp_path, capsys):
    record = place.run("CoOp", "later", "OPTIM.MAX_EPOCH", "1")
    file = place.folder / "later/results.json"
    place.run("CoOp", "later", "OPTIM.MAX_EPOCH", "2")
    for name, old, message in (
        ("splits", record["splits"], "the newest prompt of .* is not the one that it has tested"),
        ("split_sha256", {**record["split_sha256"], "train_x": "other"}, "training images of .* is not the one"),
    ):
        newest = file.read_text()
        file.write_text(json.dumps({**json.loads(newest), name: old}))
        assert re.search(message, refusal(place, tmp_path, capsys, "sharpness", "CoOp:later"))
        file.write_text(newest)
