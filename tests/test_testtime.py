"""The trainers of the test-time methods and Compare, through train.py: the harness, not the methods' mathematics."""

import csv
import functools
import importlib
import json
import re
import shutil
import sys

import pytest
import torch
from benchmark import REPO, Workplace
from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY
from forked import fork
from hostile import fails
from kinds import one_of_each_kind
from PIL import Image

import train
from tlla.clip import encode_images, load_clip, normalize
from tlla.methods import METHODS
from tlla.metrics import classwise_gaps, score, summarize
from tlla.prompts.classifier import PromptClassifier, from_templates
from tlla.prompts.learner import PromptLearner
from tlla.prompts.prompted import PromptedCLIP
from tlla.prompts.templates import IMAGENET_7
from tlla.views.make import ViewConfig, make_views

NAMES = ["bird", "land vehicle", "tool"]
ALL = sorted(METHODS)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Data, weights, one CoOp run, and Compare of all methods on a template and on that run."""
    place = Workplace(tmp_path_factory.mktemp("work"))
    place.run("CoOp", "coop")
    prompts = f"['words=an icon of a {{}}.', 'learned={place.folder / 'coop'}']"
    place.run("Compare", "compare", "TRAINER.COMPARE.PROMPTS", prompts)
    return place


def settings_of(name):
    """What the small benchmark's config sets."""
    return {"top_s": 3, "n_perturb": 2} if name == "STSS" else {}


@functools.cache
@torch.no_grad()
def views_of(place):
    """Pixels and features of each test image's views, with own loading."""
    items = json.loads((place.folder / "data/emoji/index.json").read_text())["items"]["noto"]["test"]
    images = (Image.open(place.folder / "data/emoji" / path).convert("RGB") for path, *_ in items)
    pixels = [normalize(make_views(image, i, ViewConfig(32, 6, seed=1))) for i, image in enumerate(images)]
    model = load_clip(str(place.folder / "clip.pt"))
    return [(views[None], encode_images(model, views)[None]) for views in pixels]


@torch.no_grad()
def by_hand(place, name, classifier, order=range(15)):
    """A method's probabilities of images in an order, one image at a time: (N, K)."""
    method = METHODS[name](**settings_of(name))
    method.start(classifier, seed=1)
    method.n_images = 15
    for _, features in views_of(place):
        method.observe(features)
    views = [views_of(place)[i] for i in order]
    if method.in_batches:
        pixels, features = (torch.cat(column) for column in zip(*views, strict=True))
        return method.predict(features, pixels)
    return torch.cat([method.predict(features, pixels if method.needs_images else None) for pixels, features in views])


@functools.cache
def classifier_of(place, prompt):
    """The text side that Compare should have made for "words" or "learned"."""
    model = load_clip(str(place.folder / "clip.pt"))
    if prompt == "words":
        return from_templates(model, NAMES, "an icon of a {}.")
    learner = PromptLearner(model, NAMES, n_ctx=3)
    learner.ctx.data = place.context("coop")
    return PromptClassifier(PromptedCLIP(model, learner))


@pytest.mark.parametrize("prompt", ("words", "learned"))
@pytest.mark.parametrize("name", ALL)
def test_a_trainer_predicts_what_its_method_says(place, name, prompt):
    order = torch.randperm(15, generator=torch.Generator().manual_seed(1)).tolist()
    # Compare has online methods in it, so that all methods saw the images in that order; only these depend on it.
    order = order if METHODS[name].online else order[4::-1]
    expected = by_hand(place, name, classifier_of(place, prompt), order)
    rows = place.rows(f"compare/{prompt}/{name}")
    assert [int(row["index"]) for row in rows] == list(range(15))
    assert [int(rows[i]["prediction"]) for i in order] == expected.argmax(dim=1).tolist()
    confidence = torch.tensor([float(rows[i]["confidence"]) for i in order])
    torch.testing.assert_close(confidence, expected.amax(dim=1), atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", one_of_each_kind(ALL))
def test_a_method_alone_gives_what_it_gives_in_compare_whatever_the_batch_size(place, name):
    alone = place.run(name, f"alone_{name}", "--model-dir", str(place.folder / "coop"), "TRAINER.VIEWS.VIEW_BATCH", "5")
    together = json.loads((place.folder / f"compare/learned/{name}/results.json").read_text())
    assert alone["trainer"] == together["trainer"] == name
    predicted = [[row["prediction"] for row in place.rows(f)] for f in (f"alone_{name}", f"compare/learned/{name}")]
    assert predicted[0] == predicted[1]
    for key in ("prompt_sha256", "total"):
        assert alone["splits"]["test"][key] == together["splits"]["test"][key]
    assert ("order" in alone["splits"]["test"]) == METHODS[name].online
    assert alone["splits"]["test"]["nll"] == pytest.approx(together["splits"]["test"]["nll"], abs=1e-3)
    assert alone["loaded_from"]["epoch"] == 3


def test_views_made_on_the_device_are_those_made_before_to_a_grey_level(place):
    place.run("MeanViews", "here")
    place.run("MeanViews", "there", "TRAINER.VIEWS.ON_DEVICE", "True", "TRAINER.VIEWS.VIEW_BATCH", "18")
    found = [torch.tensor([float(row["confidence"]) for row in place.rows(name)]) for name in ("here", "there")]
    torch.testing.assert_close(*found, atol=0.02, rtol=0)


def test_compare_leaves_a_table_of_every_method_and_prompt(place):
    rows = list(csv.DictReader((place.folder / "compare/table.csv").open()))
    marks = {"ADTE": "ADTE (read the test set first)"}
    expected = [(p, marks.get(m, m)) for p in ("words", "learned") for m in METHODS]
    assert [(row["prompt"], row["method"]) for row in rows] == expected
    single = next(r for r in rows if r["method"] == "SingleView")
    record = json.loads((place.folder / "compare/words/SingleView/results.json").read_text())["splits"]["test"]
    assert float(single["accuracy"]) == record["accuracy"] and float(single["ece"]) == record["ece"]
    assert all(float(row["seconds_per_image"]) > float(row["method_seconds_per_image"]) > 0 for row in rows)
    table = (place.folder / "compare/table.md").read_text()
    assert "| ECE % (15 bins) " in table.splitlines()[0]
    assert all(re.search(rf"\| words +\| {name} ", table) for name in METHODS)


def test_the_measures_of_confidence_are_those_of_all_probabilities(place):
    label = torch.tensor([int(row["label"]) for row in place.rows("compare/words/MeanViews")])
    probability = by_hand(place, "MeanViews", classifier_of(place, "words"))
    expected = summarize(score(probability, label), classwise_gaps(probability, label))
    record = json.loads((place.folder / "compare/words/MeanViews/results.json").read_text())["splits"]["test"]
    assert {name: record[name] for name in expected} == pytest.approx(expected, abs=0.01)


def test_the_vote_of_tlla_tells_how_often_it_was_unanimous_and_which_keys_it_does_not_read(place, capsys):
    other = ("TRAINER.VIEWS.N_VIEWS", "2", "TRAINER.STSS.N_PERTURB", "1")
    results = place.run("TLLA", "tlla", "--eval-only", "--model-dir", str(place.folder / "coop"), *other)
    said = [line for line in capsys.readouterr().out.splitlines() if "does not read" in line]
    assert said == [f"Note: TLLA does not read {key}, but TRAINER.TLLA.{key.split('.')[-1]}" for key in other[::2]]
    rows = place.rows("tlla")
    unanimous = [float(row["unanimous"]) for row in rows]
    assert results["splits"]["test"]["unanimous"] == pytest.approx(sum(unanimous) / 15)
    assert all((float(row["agreement"]) == 1) == (u == 1) for row, u in zip(rows, unanimous, strict=True))


def test_an_ensemble_serves_methods_that_need_no_prompt(place):
    results = place.run("ZERO", "ensemble", "TRAINER.PROMPT.TEMPLATE", "imagenet7")
    model = load_clip(str(place.folder / "clip.pt"))
    expected = by_hand(place, "ZERO", from_templates(model, NAMES, IMAGENET_7)).argmax(dim=1)
    assert [int(row["prediction"]) for row in place.rows("ensemble")] == expected.tolist()
    assert results["splits"]["test"]["total"] == 15


def test_per_class_results_are_recorded_on_request(place):
    results = place.run("SingleView", "per_class", "TEST.PER_CLASS_RESULT", "True")["splits"]["test"]
    rows = place.rows("per_class")
    for label, entry in enumerate(results["per_class"]):
        own = [row for row in rows if row["label"] == str(label)]
        hits = sum(row["prediction"] == row["label"] for row in own)
        assert entry == {"class": NAMES[label], "total": 5, "accuracy": 100 * hits / 5}


@pytest.mark.parametrize(
    ("trainer", "more", "parts"),
    [
        ("TPT", ("TRAINER.PROMPT.TEMPLATE", "imagenet7"), ("context vectors", "a photo of a {}.")),
        ("STSS", ("TRAINER.PROMPT.TEMPLATE", "{} texture."), ("context vectors", "a photo of a {}.")),
        ("ZERO", ("TRAINER.PROMPT.TEMPLATE", "imagenet8"), ("'imagenet8'", "did you mean 'imagenet80'")),
        ("ZERO", ("TRAINER.VIEWS.N_VIEWS", "0"), ("TRAINER.VIEWS.N_VIEWS must be at least 1",)),
        (
            "ZERO",
            ("TRAINER.VIEWS.ON_DEVICE", "True", "TRAINER.VIEWS.AUGMIX", "True"),
            ("TRAINER.VIEWS.ON_DEVICE", "no AugMix"),
        ),
        ("ZERO", ("TRAINER.PROMPT.CLASS_TOKEN_POSITION", "back"), ("CLASS_TOKEN_POSITION must be one of", "'back'")),
        ("ZERO", ("TRAINER.PROMPT.PREC", "int8"), ("TRAINER.PROMPT.PREC must be one of", "'int8'")),
        ("STSS", ("TRAINER.STSS.TOP_S", "7"), ("TRAINER.STSS.TOP_S must lie between 1 and the number of views, 6",)),
        ("EntropyMean", ("TRAINER.ENTROPYMEAN.TOP", "0.0"), ("TRAINER.ENTROPYMEAN.TOP must lie in (0, 1]",)),
        ("Compare", ("TRAINER.COMPARE.METHODS", "['TTP']"), ("'TTP'", "did you mean 'TPT'")),
        ("Compare", ("TRAINER.COMPARE.PROMPTS", "['an icon']"), ("'an icon'", "name=source")),
        ("Compare", ("TRAINER.COMPARE.PROMPTS", "['CoOp=nowhere']"), ("'CoOp=nowhere'", "no folder nowhere")),
        ("ZERO", ("--model-dir", "elsewhere"), ("no checkpoint", "elsewhere")),
    ],
)
def test_wrong_settings_are_named(place, capfd, trainer, more, parts):
    message = fails(capfd, place.argv(trainer, "wrong", *more))
    for part in parts:
        assert part in message


def test_the_examples_of_new_methods_work_as_written(place, tmp_path):
    text = (REPO / "CONTRIBUTING.md").read_text()
    for folder in ("tlla", "trainers", "datasets", "configs"):
        shutil.copytree(REPO / folder, tmp_path / folder)  # with its bytecode, else it is compiled for a second
    shutil.copy(REPO / "train.py", tmp_path)
    names = []
    for path, code in re.findall(r"```python\n# ((?:tlla/methods|trainers)/\w+\.py)\n(.*?)```", text, re.S):
        (tmp_path / path).write_text(code)
        names.append(re.search(r"^class (\w+)", code, re.M)[1])
    assert len(names) == 2

    def from_there(argv):
        for module in [m for m in sys.modules if m.partition(".")[0] in ("train", "tlla", "trainers", "datasets")]:
            del sys.modules[module]
        TRAINER_REGISTRY._obj_map.clear()
        DATASET_REGISTRY._obj_map.clear()
        sys.path.insert(0, str(tmp_path))
        copy = importlib.import_module("train")
        assert copy.HERE == tmp_path
        return any(copy.main(place.argv(name, f"new_{name}", "OPTIM.MAX_EPOCH", "1")) for name in names)

    child = fork(from_there)
    assert child.wait() == 0, child.error
    for name in names:
        results = json.loads((place.folder / f"new_{name}/results.json").read_text())
        assert results["trainer"] == name and results["splits"]["test"]["total"] == 15


def test_every_method_has_a_trainer_and_a_node_with_its_defaults():
    cfg = get_cfg_default()
    train.trainers.add_configs(cfg)
    for name, method in METHODS.items():
        assert name in TRAINER_REGISTRY.registered_names()
        built = method()  # the defaults are settings that work
        assert {k.lower() for k in cfg.TRAINER[name.upper()]} >= {f for f in vars(built) if f != "lam"}
