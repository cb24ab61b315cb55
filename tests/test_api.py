"""The Python API: predictions, learned prompts and STSS on features, each against a second way to the same thing."""

import csv
import io
import json
import math
import os
import runpy
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from benchmark import CLASSES, REPO, Workplace
from conftest import TINY_VIT, make_clip
from dassl.config import get_cfg_default
from dassl.optim import build_lr_scheduler
from forked import forget, fork
from PIL import Image

import tlla
from tlla.clip import load_clip
from tlla.errors import InputError
from tlla.methods import METHODS
from tlla.methods.choice import build_method
from tlla.prompts.classifier import from_templates
from tlla.prompts.learner import PromptLearner
from tlla.prompts.prompted import PromptedCLIP
from tlla.prompts.templates import IMAGENET_7, zeroshot_features
from tlla.training.prompt import _fit_context, _learning_rate, _Step
from tlla.variants import Sam
from tlla.views.make import centre_crop

SMALL = {"n_views": 6, "top_s": 3, "n_perturb": 2}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Workplace(tmp_path_factory.mktemp("work"))
    place.run("CoOp", "coop")
    return place


@pytest.fixture(scope="module")
def model(place):
    return load_clip(str(place.folder / "clip.pt"))


@pytest.fixture(scope="module")
def photos(place):
    return sorted((place.folder / "data/emoji/noto/test").rglob("*.png"))


@pytest.fixture(scope="module")
def train_set(place):
    folder = place.folder / "data/emoji/noto/train"
    paths = sorted(folder.rglob("*.png"))
    return paths, [int(path.parent.name) for path in paths]


def close(found, expected):
    return torch.allclose(found, expected, atol=1e-5)


# Predictor


def test_paths_images_generators_batches_and_threads_give_the_same(model, photos):
    predictor = tlla.Predictor(model, CLASSES, **SMALL)
    whole = predictor.predict(photos).probability
    mixed = [Image.open(path) if i % 2 else str(path) for i, path in enumerate(photos)]
    small = tlla.Predictor(model, CLASSES, batch_views=13, **SMALL)  # batches of 2 images, 13 views encoded at once
    assert close(predictor.predict(mixed).probability, whole)
    assert close(predictor.predict(path for path in photos).probability, whole)
    assert close(small.predict(photos, workers=3).probability, whole)
    assert whole.shape == (15, 3) and close(whole.sum(dim=1), torch.ones(15))


def test_the_position_of_an_image_seeds_its_views(model, photos):
    predictor = tlla.Predictor(model, CLASSES, seed=3, **SMALL)
    found = predictor.predict([photos[0], photos[0]]).probability
    assert not close(found[0], found[1])
    again = tlla.Predictor(model, CLASSES, seed=3, **SMALL).predict([photos[5], photos[0]]).probability
    assert close(again[1], found[1])
    assert not close(tlla.Predictor(model, CLASSES, seed=4, **SMALL).predict(photos[:1]).probability, found[:1])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_is_drawn_from_as_it_is_needed(model, photos, workers):
    drawn = []
    predictor = tlla.Predictor(model, CLASSES, batch_views=12, **SMALL)  # 2 images a batch
    batches = predictor.batches((drawn.append(1) or path for path in photos), workers)
    next(batches)
    assert len(drawn) == (4 if workers else 2)
    batches.close()


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_predicts_unless_it_needs_a_whole_test_set(model, photos, name):
    if METHODS[name].needs_dataset:  # refused before anything is encoded
        says = rf"^{name} needs .* images.*: choose another method, or test it on a dataset"
        with pytest.raises(InputError, match=says):
            tlla.Predictor(model, CLASSES, "no template", method=name)
        return
    predictor = tlla.Predictor(
        model, CLASSES, method=name.lower(), n_views=8, **({"top_s": 2} if name == "STSS" else {})
    )
    found = predictor.predict(photos[:2])
    assert close(found.probability.sum(dim=1), torch.ones(2)) and len(found.labels) == 2
    assert (found.sharpness is not None) == (found.agreement is not None) == (name == "STSS")


def test_an_online_method_begins_anew_in_each_call(model, photos):
    predictor = tlla.Predictor(model, CLASSES, method="TDA", n_views=6)
    assert torch.equal(predictor.predict(photos).probability, predictor.predict(photos).probability)


@torch.no_grad()
def test_single_is_clip_s_own_zero_shot(model, photos):
    found = tlla.Predictor(model, CLASSES, "a {}.", "single").predict(photos[:3]).probability
    pixels = torch.stack(
        [torch.from_numpy(np.array(centre_crop(Image.open(p).convert("RGB"), 32))) for p in photos[:3]]
    )
    mean, std = (torch.tensor(x) for x in ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)))
    images = F.normalize(model.encode_image(((pixels / 255 - mean) / std).permute(0, 3, 1, 2)), dim=-1)
    logits = model.logit_scale.exp() * images @ zeroshot_features(model, list(CLASSES), "a {}.").T
    assert close(found, logits.softmax(dim=-1))


def test_a_prompt_is_a_template_an_ensemble_a_file_a_run_or_vectors(model, place, photos):
    def probability(prompt, method="zero"):
        return tlla.Predictor(model, CLASSES, prompt, method, n_views=6).predict(photos[:4]).probability

    run = place.folder / "coop"
    ctx = place.context("coop")
    expected = probability(ctx)
    for same in (run, str(run), run / "prompt_learner", run / "prompt_learner/model.pth.tar-3", tlla.Prompt(ctx)):
        assert torch.equal(probability(same), expected)
    assert not close(probability("a photo of a {}."), expected)
    fixed = from_templates(model, list(CLASSES), IMAGENET_7).text_features
    assert torch.equal(tlla.Predictor(model, CLASSES, "imagenet7", "zero").classifier.text_features, fixed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"class_names": "cat"}, "must be a list"),
        ({"class_names": []}, "is empty"),
        ({"class_names": ["a", " "]}, "with words"),
        ({"class_names": ["a", None]}, "with words"),
        ({"prompt": "a photo"}, "is neither a template"),
        ({"prompt": torch.zeros(4, 3)}, "width 3, but this run"),
        ({"prompt": torch.zeros(9, 4, 64)}, "context for 9 classes"),
        ({"prompt": torch.full((4, 64), math.nan)}, "finite"),
        ({"prompt": torch.zeros(4, 64, dtype=torch.int)}, "floats"),
        ({"prompt": "imagenet7"}, "template without words"),
        ({"method": "STSSS"}, "did you mean 'STSS'"),
        ({"tops": 3}, "did you mean 'top_s'"),
        ({"top_s": 2.5}, "type int"),
        ({"top_s": True}, "type int"),
        ({"vote": "loudest"}, "VOTE must be one of"),
        ({"n_views": 8}, "TOP_S must lie"),
        ({"batch_views": 0}, "batch_views"),
        ({"precision": "int8"}, "precision"),
    ],
)
def test_wrong_arguments_are_named(model, arguments, message):
    with pytest.raises(InputError, match=message):
        tlla.Predictor(**{"model": model, "class_names": CLASSES} | arguments)


def test_an_image_that_is_no_image_is_the_caller_s_mistake(model):
    with pytest.raises(InputError, match="fromarray"):
        tlla.Predictor(model, CLASSES, **SMALL).predict([np.zeros((4, 4, 3))])


def test_settings_are_named_by_field_or_config_key():
    assert build_method("tlla", {"LAMBDA": 2, "top_s": 4}) == METHODS["STSS"](lam=2.0, top_s=4)


# Predictions


def test_predictions_say_what_was_seen(model, photos, tmp_path):
    paths = [photos[0], tmp_path / "absent.png", photos[9], Image.open(photos[3])]
    found = tlla.Predictor(model, CLASSES, top_k=2, **SMALL).predict(paths)
    p = found.probability
    assert found.index.tolist() == [0, 2, 3] and len(found) == 3
    assert [(e.index, e.name) for e in found.errors] == [(1, str(tmp_path / "absent.png"))]
    assert found.labels == [CLASSES[row.argmax()] for row in p]
    by_hand = [sorted(zip(p[0].tolist(), CLASSES, strict=True), reverse=True)[:2]]
    assert [(v, n) for n, v in found.top[0]] == by_hand[0]
    assert close(found.entropy, torch.tensor([-sum(x * math.log(x) for x in row if x > 0) for row in p.tolist()]))
    assert ((found.agreement * 3).round() == found.agreement * 3).all() and (found.seconds > 0).all()
    found.to_csv(tmp_path / "p.csv")
    found.to_jsonl(tmp_path / "p.jsonl")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "p.csv").read_text())))
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert [int(r["index"]) for r in rows] == [line["index"] for line in lines] == [0, 1, 2, 3]
    assert "no image file" in rows[1]["error"] and "no image file" in lines[1]["error"]
    assert float(rows[2]["probability"]) == pytest.approx(p[1].max().item(), rel=1e-5) == lines[2]["probability"]
    assert [row["prediction_2"] for row in rows] == [found.top[0][1][0], "", found.top[1][1][0], found.top[2][1][0]]
    assert len(found.table().splitlines()) == 5 and found.labels[0] in found.table()


def test_no_images_and_only_bad_ones_give_empty_predictions(model, tmp_path):
    predictor = tlla.Predictor(model, CLASSES, **SMALL)
    none, bad = predictor.predict([]), predictor.predict([tmp_path / "a", tmp_path / "b"])
    assert (len(none), len(none.errors)) == (0, 0) and (len(bad), len(bad.errors)) == (0, 2)
    assert bad.labels == [] and bad.table() == "" and none.probability.shape == (0, 3)
    bad.to_csv(tmp_path / "bad.csv")
    assert len((tmp_path / "bad.csv").read_text().splitlines()) == 3


# STSS on features


def naive_stss(views, text, scale, s, lam):
    """One view at a time, straight from the paper."""

    def entropy(p):
        return -sum(x * math.log(x) for x in p.tolist() if x > 0)

    scored = []
    for view in views:
        p = [(scale * t @ view).softmax(dim=0) for t in text]
        sharpness = max((entropy(q) for q in p[1:]), default=entropy(p[0])) - entropy(p[0])
        scored.append((entropy(p[0]) + lam * sharpness, p[0]))
    chosen = sorted(scored, key=lambda pair: pair[0])[:s]
    return sum(p for _, p in chosen) / s


def test_stss_on_features_is_the_paper_s():
    views, text = F.normalize(torch.randn(3, 20, 16), dim=-1), F.normalize(torch.randn(5, 7, 16), dim=-1)
    found = tlla.stss(views, text, 30.0, top_s=6, lam=0.7)
    assert close(found, torch.stack([naive_stss(v, text, 30.0, 6, 0.7) for v in views]))
    assert close(tlla.stss(views[1], text, 30.0, top_s=6, lam=0.7), found[1])
    assert close(tlla.stss(7 * views, text / 3, 30.0, top_s=6, lam=0.7), found)  # they need not be normalised


def test_features_and_images_lead_to_the_same(model, photos):
    predictor = tlla.Predictor(model, CLASSES, "an icon of a {}.", seed=5, **SMALL)
    (batch,) = predictor.batches(photos[:4])
    text = tlla.perturbed_text_features(model, CLASSES, "an icon of a {}.", n_perturb=2, seed=5)
    assert close(text[0], zeroshot_features(model, list(CLASSES), "an icon of a {}."))
    found = tlla.stss(batch.features, text, 100.0, top_s=3)
    assert torch.allclose(found, batch.predictions.probability, atol=1e-4)
    assert text.shape == (3, 3, 32) and not close(text[1], text[2])


def test_features_that_do_not_fit_are_named():
    with pytest.raises(InputError, match=r"\(R \+ 1, K, E\)"):
        tlla.stss(torch.ones(4, 8), torch.ones(3, 8))
    with pytest.raises(InputError, match="width 8 and text features of width 9"):
        tlla.stss(torch.ones(4, 8), torch.ones(1, 3, 9))


# Learning a prompt


def feature_batches(n_batches=3):
    generator = torch.Generator().manual_seed(7)
    draw = [torch.randn(8, 32, generator=generator) for _ in range(n_batches)]
    labels = [torch.randint(3, (8,), generator=generator) for _ in range(n_batches)]
    return [(F.normalize(z, dim=-1), y) for z, y in zip(draw, labels, strict=True)]


def prompted_by(model):
    return PromptedCLIP(model, PromptLearner(model, list(CLASSES), ctx_init="a photo of a"))


def by_autograd(model, batches, epochs, lr, rho=0.0):
    """The same training by loss.backward() and torch's own schedule; with rho, davda54/sam's two passes."""
    prompted = prompted_by(model)
    ctx = prompted.prompt_learner.ctx
    optimizer = torch.optim.SGD([ctx], lr=lr, momentum=0.9, weight_decay=5e-4)
    cosine = [lr * (1 + math.cos(math.pi * t / epochs)) / 2 for t in range(epochs)]

    def backward(z, y):
        optimizer.zero_grad()
        F.cross_entropy(100 * z @ prompted.encode_text().T, y).backward()

    for epoch in range(epochs):
        optimizer.param_groups[0]["lr"] = 1e-5 if epoch == 0 else cosine[epoch - 1]
        for z, y in batches:
            backward(z, y)
            if rho:
                start = ctx.detach().clone()
                ctx.data += rho * ctx.grad / ctx.grad.norm()
                backward(z, y)
                ctx.data.copy_(start)
            optimizer.step()
    return ctx.detach()


@pytest.mark.parametrize(("lam", "rho"), [(0.0, 0.0), (1.0, 0.05)])
def test_lambda_0_is_plain_sgd_and_lambda_1_is_sam(model, lam, rho):
    batches, prompted = feature_batches(), prompted_by(model)
    start = prompted.prompt_learner.ctx.detach().clone()
    _fit_context(prompted, lambda epoch: iter(batches), 4, 0.02, _Step(Sam(), rho or 0.05, lam, 0))
    expected = by_autograd(model, batches, 4, 0.02, rho)
    moved = (expected - start).norm()
    assert moved > 1e-3 and (prompted.prompt_learner.ctx - expected).norm() < 1e-3 * moved


@pytest.mark.parametrize("epochs", [1, 2, 50])
def test_the_learning_rate_is_that_of_coop_s_schedule(epochs):
    cfg = get_cfg_default()
    cfg.OPTIM.merge_from_list(["LR", 0.002, "MAX_EPOCH", epochs, "LR_SCHEDULER", "cosine", "WARMUP_EPOCH", 1])
    cfg.OPTIM.merge_from_list(["WARMUP_TYPE", "constant", "WARMUP_CONS_LR", 1e-5])
    schedule = build_lr_scheduler(torch.optim.SGD([torch.zeros(1)], lr=0.002), cfg.OPTIM)
    for epoch in range(epochs):
        assert _learning_rate(epoch, epochs, 0.002) == pytest.approx(schedule.get_last_lr()[0])
        schedule.step()


def test_training_learns_and_a_seed_fixes_it(model, train_set):
    settings = {"lr": 1e-4, "batch_size": 8, "crop_scale": (0.9, 1.0)}
    first = tlla.train_prompt(model, *train_set, CLASSES, epochs=6, **settings)
    changes = ({}, {"workers": 2}, {"seed": 1})
    short, again, other = (tlla.train_prompt(model, *train_set, CLASSES, epochs=2, **settings, **x) for x in changes)
    assert torch.equal(short.ctx, again.ctx) and not torch.equal(short.ctx, other.ctx)
    assert first.losses[-1] < first.losses[0] and len(first.losses) == 6
    start = prompted_by(model).prompt_learner.ctx
    assert start.shape == first.ctx.shape and (first.ctx - start).norm() > 0.01
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_saved_prompt_is_a_run_for_everybody(model, place, train_set, photos, tmp_path):
    prompt = tlla.train_prompt(model, *train_set, CLASSES, epochs=1, ctx_init="", n_ctx=3)
    path = prompt.save(tmp_path / "mine")
    assert path == tmp_path / "mine/prompt_learner/model.pth.tar-1"
    kept = torch.load(path, weights_only=True)  # as TPT and CoOp read it
    assert torch.equal(kept["state_dict"]["ctx"], prompt.ctx) and kept["epoch"] == 1
    assert tlla.Prompt.load(path).epochs == 1 and torch.equal(tlla.Prompt.load(path).ctx, prompt.ctx)
    record = place.run("TLLA", "mine_tested", "--eval-only", "--model-dir", str(tmp_path / "mine"))
    predictor = tlla.Predictor(model, CLASSES, tmp_path / "mine", seed=1, **SMALL)
    found = predictor.predict(photos)
    labels = [int(path.parent.name) for path in photos]
    right = sum(found.class_names[label] == name for label, name in zip(labels, found.labels, strict=True))
    assert record["splits"]["test"]["correct"] == right
    direct = tlla.Predictor(model, CLASSES, prompt, seed=1, **SMALL).predict(photos)
    assert torch.equal(direct.probability, found.probability)


def test_the_prompt_that_was_saved_last_is_the_folders(model, train_set, tmp_path):
    longer = tlla.train_prompt(model, *train_set, CLASSES, epochs=2, seed=2)
    shorter = tlla.train_prompt(model, *train_set, CLASSES, epochs=1)
    for prompt in (longer, shorter):
        prompt.save(tmp_path)
        assert torch.equal(tlla.Predictor(model, CLASSES, tmp_path, "single").classifier.ctx, prompt.ctx)


def test_a_template_is_no_initial_context(model, train_set):
    with pytest.raises(InputError, match="CTX_INIT must consist of words"):
        tlla.train_prompt(model, *train_set, CLASSES, epochs=1, ctx_init="an icon of a {}.")


def test_a_folder_is_no_image(model):
    with pytest.raises(InputError, match="images is the folder"):
        tlla.Predictor(model, CLASSES, "a {}.", "single").predict(".")


def test_train_py_resumes_from_a_saved_prompt(place, model, train_set, tmp_path):
    """train.py resumes from such a folder as from any run without an optimizer's state."""
    tlla.train_prompt(model, *train_set, CLASSES, epochs=1, ctx_init="", n_ctx=3).save(place.folder / "onwards")
    place.run("SAPT", "onwards")
    assert (place.folder / "onwards/prompt_learner/model.pth.tar-3").is_file()


@pytest.mark.parametrize("position", ["front", "middle"])
def test_the_place_of_the_class_name_is_kept(model, train_set, tmp_path, position):
    prompt = tlla.train_prompt(model, *train_set, CLASSES, epochs=1, class_token_position=position)
    path = prompt.save(tmp_path)
    classifier = tlla.Predictor(model, CLASSES, path, "single").classifier
    learner = PromptLearner(model, list(CLASSES), n_ctx=4, class_token_position=position)
    learner.ctx.data.copy_(prompt.ctx)
    assert torch.equal(classifier.text_features, PromptedCLIP(model, learner).encode_text())
    with pytest.raises(InputError, match="CLASS_TOKEN_POSITION"):
        tlla.Prompt.load(path).put_into(PromptLearner(model, list(CLASSES), n_ctx=4))


def test_a_prompt_of_another_clip_is_refused(model, train_set):
    prompt = tlla.train_prompt(model, *train_set, CLASSES, epochs=1)
    with pytest.raises(InputError, match="other weights"):
        tlla.Predictor(make_clip(TINY_VIT, seed=1), CLASSES, prompt)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [0]}, "equally many"),
        ({"images": [], "labels": []}, "at least 1"),
        ({"labels": [3] * 24}, "from 0 to 2"),
        ({"labels": [0.5] * 24}, "whole numbers"),
        ({"rho": -1}, "RHO"),
        ({"lam": math.nan}, "LAMBDA"),
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"class_token_position": "back"}, "CLASS_TOKEN_POSITION"),
        ({"images": ["absent.png"] * 24}, "no image file"),
    ],
)
def test_wrong_training_input_is_named(model, train_set, change, message):
    images, labels = train_set
    with pytest.raises(InputError, match=message):
        tlla.train_prompt(model, **{"images": images, "labels": labels, "class_names": CLASSES} | change)


def test_a_training_that_diverges_says_so(model):
    z, y = feature_batches(1)[0]
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        _fit_context(prompted_by(model), lambda epoch: iter([(z * math.inf, y)]), 1, 0.02, _Step(Sam(), 0.05, 1.0, 0))


# The package


class NoPackageResources:
    """Finds no pkg_resources, which setuptools has no longer."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "pkg_resources":
            raise ModuleNotFoundError("No module named 'pkg_resources'")


FORK = """
from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY
cfg = get_cfg_default()
extend_cfg(cfg)
assert (cfg.TRAINER.SAPT.RHO, cfg.DATASET.SPLIT_FILE) == (0.05, "")
assert {"SAPT", "TLLA"} <= set(TRAINER_REGISTRY.registered_names())
assert {"Emoji", "ImageFolder", "OxfordPets"} <= set(DATASET_REGISTRY.registered_names())
"""


def test_an_import_needs_little_accepts_a_forks_lines_and_predicts_from_anywhere(place, photos, tmp_path):
    """`import tlla` needs neither torch nor, with what predicts, the toolkit and pkg_resources."""
    command = [sys.executable, "-c", "import sys, tlla; assert 'torch' not in sys.modules"]
    subprocess.run(command, cwd=REPO, check=True)
    text = (REPO / "docs/upstream_dassl.md").read_text(encoding="utf-8")
    lines = text.partition("```python\n")[2].partition("```")[0]
    names = "\n".join(map(str, photos[:3])).encode()

    def run(argv):
        forget("clip", "pkg_resources", "dassl", "yacs", "matplotlib")
        os.chdir(place.folder)
        sys.meta_path.insert(0, NoPackageResources())
        warnings.simplefilter("error", UserWarning)
        import tlla

        assert tlla.Predictor and tlla.train_prompt and not {"dassl", "yacs", "matplotlib"} & set(sys.modules)
        from tlla.backbones.openai_package import clip

        assert clip.tokenize("a cat").shape == (1, 77) and "pkg_resources" not in sys.modules
        warnings.simplefilter("ignore")
        exec(lines + FORK, {})
        sys.argv, sys.stdin = ["predict", *argv], io.TextIOWrapper(io.BytesIO(names))
        runpy.run_module("tlla.predict", run_name="__main__")

    words = ["-", "--method", "single", "--backbone", place.folder / "clip.pt", "--classes", *CLASSES]
    child = fork(run, words, out=tmp_path / "out")
    assert child.wait() == 0 and len((tmp_path / "out").read_text().splitlines()) == 5, child.error
    assert "3 images predicted" in child.error
    readme = (REPO / "README.md").read_text(encoding="utf-8")
    assert all(f"`{line}`" in readme for line in ("import tlla.trainers", "import tlla.datasets"))


def test_every_public_name_is_there_and_documented():
    for name in tlla.__all__:
        assert name in dir(tlla) and (name == "__version__" or getattr(tlla, name).__doc__)
    with pytest.raises(AttributeError, match="no attribute 'Predicter'"):
        _ = tlla.Predicter
