"""Tip-Adapter and Tip-Adapter-F: cache, search and steps against naive implementations; what may be chosen by what."""

import json
import math
import re
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from benchmark import Workplace
from dassl.engine import TRAINER_REGISTRY
from hostile import fails
from PIL import Image

import tlla.training.cache_model
import train
from tlla.clip import load_clip, normalize
from tlla.prompts.checkpoint import read_checkpoint
from tlla.prompts.templates import zeroshot_features
from tlla.training.cache_model import Cache, _cache_logits, make_keys, search, search_grid
from tlla.views.make import ViewConfig, make_views

CLASSES = ["bird", "land vehicle", "tool"]
ADAMW = ("OPTIM.NAME", "adamw", "OPTIM.LR", "0.01", "OPTIM.WEIGHT_DECAY", "0.01", "OPTIM.WARMUP_EPOCH", "-1")
BEST = ("TEST.FINAL_MODEL", "best_val")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Data, weights and one run of each trainer, shared by the tests that only read them."""
    place = Workplace(tmp_path_factory.mktemp("work"))
    place.results = place.run("TipAdapter", "tip")
    place.results_f = place.run("TipAdapterF", "tip_f", *ADAMW)
    return place


def saved(place, output, name="model.pth.tar-3"):
    return read_checkpoint(place.folder / output / "tip_adapter" / name).state


def predicted(place, output):
    return [int(row["prediction"]) for row in place.rows(output)]


def encode(place, part, stretched=False):
    """Features, not normalised, and labels of one part, from files, by hand.

    `stretched` is what the training transform does when nothing is random in it.
    """
    model = load_clip(str(place.folder / "clip.pt"))
    items = json.loads((place.folder / "data/emoji/index.json").read_text())["items"]["noto"][part]
    images = [Image.open(place.folder / "data/emoji" / path).convert("RGB") for path, _, _ in items]
    if stretched:
        images = [image.resize((32, 32), Image.Resampling.BICUBIC) for image in images]
    pixels = normalize(torch.stack([make_views(image, 0, ViewConfig(32, 1))[0] for image in images]))
    with torch.no_grad():
        return model.encode_image(pixels), [label for _, label, _ in items], model


def naive_logits(features, keys, key_labels, text, scale, beta, alpha):
    rows = []
    for z in features:
        row = [scale * float(z @ t) for t in text]
        for key, label in zip(keys, key_labels, strict=True):
            row[label] += alpha * math.exp(-beta * (1 - float(z @ key)))
        rows.append(row)
    return torch.tensor(rows)


@pytest.fixture
def tip_adapter_f():
    """The registered class, of whichever name the trainers were imported under last."""
    return TRAINER_REGISTRY.get("TipAdapterF")


@pytest.fixture
def problem():
    """Features around three centres, noisy enough for errors: val features and labels, keys and labels, text."""
    centres = F.normalize(torch.randn(3, 8), dim=-1)
    labels, key_labels = torch.arange(41) % 3, torch.arange(10) % 3
    features = F.normalize(centres[labels] + 0.5 * torch.randn(41, 8), dim=-1)
    keys = F.normalize(centres[key_labels] + 0.3 * torch.randn(10, 8), dim=-1)
    text = F.normalize(centres + 0.6 * torch.randn(3, 8), dim=-1)
    return features, labels, keys, key_labels, text


@pytest.mark.parametrize(("beta", "alpha"), ((1.0, 1.17), (5.5, 3.0), (0.0, 2.0), (3.0, 0.0)))
def test_logits_equal_a_loop_over_images_and_keys(problem, beta, alpha):
    features, _, keys, key_labels, text = problem
    cache = Cache(2, 8, CLASSES, beta, alpha)
    cache.fill(keys, key_labels)
    expected = naive_logits(features, keys, key_labels.tolist(), text, 10.0, beta, alpha)
    torch.testing.assert_close(cache(features, 10 * features @ text.t()), expected, atol=1e-5, rtol=1e-5)


def test_keys_are_normalised_after_the_mean_over_passes():
    passes = [torch.randn(5, 8) * 3 for _ in range(4)]
    keys = make_keys(iter(passes))
    for i in range(5):
        mean = sum(p[i] for p in passes) / 4
        torch.testing.assert_close(keys[i], mean / mean.norm())


@pytest.mark.parametrize("chunk", (1024, 7))
def test_the_search_takes_the_first_of_the_best_points(problem, monkeypatch, chunk):
    monkeypatch.setattr(tlla.training.cache_model, "SEARCH_CHUNK", chunk)
    features, labels, keys, key_labels, text = problem
    betas, alphas = search_grid(12.0, 9), search_grid(20.0, 7)
    assert betas[0] == alphas[0] == 0.1 and betas[-1] == pytest.approx(12 - 11.9 / 9) and len(alphas) == 7
    best = (0.0, 0.0, -1.0)
    for beta in betas:
        for alpha in alphas:
            logits = naive_logits(features, keys, key_labels.tolist(), text, 5.0, beta, alpha)
            accuracy = 100 * sum(int(row.argmax()) == int(y) for row, y in zip(logits, labels, strict=True)) / 41
            if accuracy > best[2]:
                best = (beta, alpha, accuracy)
    values = F.one_hot(key_labels, 3).float()
    choice = search(features, labels, 5 * features @ text.t(), keys, values, betas, alphas)
    assert choice == pytest.approx(best)
    assert best[:2] != (0.1, 0.1) and best[2] < 100  # the search had something to find
    even = search(features, labels, 1e6 * features @ text.t(), keys, values, betas, alphas)
    assert (even.beta, even.alpha) == (0.1, 0.1)  # all points are equal


def test_the_cache_holds_the_training_images_and_the_test_follows_the_formula(place):
    plain = ("INPUT.TRANSFORMS", '("normalize",)', "TRAINER.TIPADAPTER.SEARCH", "False")
    strength = ("TRAINER.TIPADAPTER.BETA", "4.0", "TRAINER.TIPADAPTER.ALPHA", "30.0")
    place.run("TipAdapter", "plain", *plain, *strength)
    state = saved(place, "plain", "model.pth.tar-1")
    features, labels, model = encode(place, "train", stretched=True)
    torch.testing.assert_close(state["keys"], F.normalize(features, dim=-1), atol=1e-5, rtol=1e-4)
    assert state["labels"].tolist() == labels and (state["beta"], state["alpha"]) == (4.0, 30.0)
    test, _, _ = encode(place, "test")
    text = zeroshot_features(model, CLASSES, "an icon of a {}.")
    logits = naive_logits(F.normalize(test, dim=-1), state["keys"], labels, text, 100.0, 4.0, 30.0)
    assert predicted(place, "plain") == logits.argmax(dim=1).tolist()
    place.run("ZeroshotCLIP", "zeroshot")
    assert predicted(place, "plain") != predicted(place, "zeroshot")  # the cache has a say


def test_augmented_passes_differ_and_do_not_depend_on_workers_or_batches(place):
    keys = {"as it is": saved(place, "tip", "model.pth.tar-1")["keys"]}
    for name, more in (
        ("workers", ("DATALOADER.NUM_WORKERS", "2")),
        ("batch", ("DATALOADER.TEST.BATCH_SIZE", "24")),
        ("one pass", ("TRAINER.TIPADAPTER.AUGMENT_EPOCH", "1")),
        ("seed", ("--seed", "2")),
    ):
        place.run("TipAdapter", name, *more)
        keys[name] = saved(place, name, "model.pth.tar-1")["keys"]
    assert torch.equal(keys["workers"], keys["as it is"])
    torch.testing.assert_close(keys["batch"], keys["as it is"], atol=1e-5, rtol=1e-4)
    for other in (keys["one pass"], keys["seed"], F.normalize(encode(place, "train", stretched=True)[0], dim=-1)):
        assert not torch.allclose(keys["as it is"], other, atol=1e-4)


def test_a_cache_of_weight_0_is_zero_shot_clip(place):
    off = ("TRAINER.TIPADAPTER.SEARCH", "False", "TRAINER.TIPADAPTER.ALPHA", "0.0")
    place.run("TipAdapter", "off", *off)
    place.run("ZeroshotCLIP", "zeroshot")
    assert place.predictions("off") == place.predictions("zeroshot")


@pytest.mark.parametrize("output", ("tip", "tip_f"))
def test_eval_only_repeats_the_test_with_either_trainer(place, output):
    load = ("--eval-only", "--model-dir", str(place.folder / output))
    test = (place.results if output == "tip" else place.results_f)["splits"]["test"]
    for trainer in ("TipAdapter", "TipAdapterF"):
        # Other settings and another number of training images: all that matters is in the checkpoint.
        more = ("DATASET.NUM_SHOTS", "2", f"TRAINER.{trainer.upper()}.ALPHA", "9.0")
        again = place.run(trainer, f"{output}_{trainer}", *load, *more)["splits"]["test"]
        assert place.predictions(f"{output}_{trainer}") == place.predictions(output)
        for key in ("accuracy", "beta", "alpha", "cache_sha256", "prompt_sha256"):
            assert again[key] == test[key]


def test_the_search_is_on_val_and_what_it_found_is_saved_and_tested(place):
    state = saved(place, "tip", "model.pth.tar-1")
    test = place.results["splits"]["test"]
    assert (test["beta"], test["alpha"]) == (state["beta"].item(), state["alpha"].item())
    features, labels, model = encode(place, "val")
    features, labels = F.normalize(features, dim=-1), torch.tensor(labels)
    text = zeroshot_features(model, CLASSES, "an icon of a {}.")
    values = F.one_hot(state["labels"], 3).float()
    choice = search(
        features, labels, 100 * features @ text.t(), state["keys"], values, search_grid(7.0, 20), search_grid(3.0, 5)
    )
    assert (state["beta"].item(), state["alpha"].item()) == pytest.approx((choice.beta, choice.alpha))


@pytest.mark.parametrize("trainer", ("TipAdapter", "TipAdapterF"))
def test_test_images_decide_nothing(tmp_path, place, trainer):
    other = Workplace(tmp_path)
    rng = np.random.default_rng(1)
    for path in (tmp_path / "data/emoji/noto/test").rglob("*.png"):
        Image.fromarray(rng.integers(0, 255, (40, 48, 3)).astype(np.uint8)).save(path)
    more = (*ADAMW, *BEST) if trainer == "TipAdapterF" else ()
    name = "model-best.pth.tar" if more else "model.pth.tar-1"
    states = []
    for workplace in (place, other):
        workplace.run(trainer, f"decide_{trainer}", *more)
        states.append(saved(workplace, f"decide_{trainer}", name))
    assert place.predictions(f"decide_{trainer}") != other.predictions(f"decide_{trainer}")
    for key in ("keys", "labels", "beta", "alpha"):
        assert torch.equal(states[0][key], states[1][key]), key


def test_training_by_rate_0_is_tip_adapter(place):
    place.run("TipAdapterF", "rate0", *ADAMW, "OPTIM.LR", "0.0")
    assert torch.equal(saved(place, "rate0")["keys"], saved(place, "tip", "model.pth.tar-1")["keys"])
    assert place.predictions("rate0") == place.predictions("tip")


def test_steps_are_adamw_with_a_cosine_by_steps(place):
    """Three epochs of three batches, in explicit arithmetic; the first six steps are compared."""
    cfg = train.build_cfg(train.parse_args(place.argv("TipAdapterF", "built", *ADAMW)))
    trainer = train.build_trainer(cfg)
    keys = F.normalize(torch.randn(24, 32), dim=-1)
    labels = torch.arange(24) % 3
    trainer.cache.fill(keys, labels)
    m, v = torch.zeros_like(keys), torch.zeros_like(keys)
    trainer.num_batches = 3
    for epoch in range(2):
        trainer.before_epoch()
        for i, batch in enumerate(trainer.train_loader_x):
            trainer.batch_idx = i
            summary = trainer.forward_backward(batch)
            t = 3 * epoch + i
            lr = 0.01 * (1 + math.cos(math.pi * t / 9)) / 2
            z = trainer.encode_image(batch["img"])
            leaf = keys.clone().requires_grad_()
            logits = 100 * z @ trainer.text_features.t() + 1.17 * torch.exp(-(1 - z @ leaf.t())) @ torch.eye(3)[labels]
            loss = F.cross_entropy(logits, batch["label"])
            (g,) = torch.autograd.grad(loss, leaf)
            assert summary["loss"] == pytest.approx(loss.item(), rel=1e-4)
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            step = (m / (1 - 0.9 ** (t + 1))) / ((v / (1 - 0.999 ** (t + 1))).sqrt() + 1e-4)
            keys = keys - lr * 0.01 * keys - lr * step
            torch.testing.assert_close(trainer.cache.keys.data, keys, atol=2e-6, rtol=1e-4)


def test_an_optimizer_without_eps_and_a_warm_up_by_epochs_work(place):
    cfg = train.build_cfg(train.parse_args(place.argv("TipAdapterF", "sgd")))  # sgd, one epoch of warm-up
    trainer = train.build_trainer(cfg)
    rates = []
    for _ in range(9):
        rates.append(trainer.get_current_lr())
        trainer.update_lr()
    assert rates[:3] == [1e-5] * 3 and rates[3] == 0.1 and rates[4] < 0.1


def test_training_moves_the_keys_and_lowers_the_loss(place):
    text = (place.folder / "tip_f/log.txt").read_text()
    losses = [float(x) for x in re.findall(r" loss (\S+) ", text)]
    place.run("TipAdapterF", "longer", *ADAMW, "OPTIM.MAX_EPOCH", "10")
    longer = [float(x) for x in re.findall(r" loss (\S+) ", (place.folder / "longer/log.txt").read_text())]
    assert len(losses) == 9 and sum(longer[-3:]) < 0.9 * sum(losses[:3])
    assert not torch.equal(saved(place, "tip_f")["keys"], saved(place, "tip", "model.pth.tar-1")["keys"])


def test_the_epoch_that_is_best_on_val_is_tested_with_a_search_of_its_own(place, monkeypatch, tip_adapter_f):
    test = tip_adapter_f.test
    by_epoch = iter((30.0, 60.0, 40.0))
    strengths = []

    def judge(trainer, split=None):
        real = test(trainer, split)
        strengths.append((split, trainer.cache.beta.item(), trainer.cache.alpha.item()))
        return next(by_epoch) if split == "val" else real

    monkeypatch.setattr(tip_adapter_f, "test", judge)
    results = place.run("TipAdapterF", "chosen", *ADAMW, *BEST, "TRAIN.CHECKPOINT_FREQ", "1")
    best, second = saved(place, "chosen", "model-best.pth.tar"), saved(place, "chosen", "model.pth.tar-2")
    assert torch.equal(best["keys"], second["keys"])
    assert not torch.equal(best["keys"], saved(place, "chosen")["keys"])
    assert results["loaded_from"]["epoch"] == 2
    assert strengths[:3] == [("val", 1.0, pytest.approx(1.17))] * 3
    assert strengths[3] == (None, best["beta"].item(), best["alpha"].item())
    assert (second["beta"], second["alpha"]) == (1.0, pytest.approx(1.17))  # the search is for what is tested
    loaded = place.run("TipAdapterF", "chosen_again", "--eval-only", "--model-dir", str(place.folder / "chosen"), *BEST)
    assert loaded["splits"]["test"]["beta"] == best["beta"].item()
    assert place.predictions("chosen_again") == place.predictions("chosen")


@pytest.fixture
def shared(place):
    """Builds a trainer whose dataset has the same images in two parts."""

    def build(trainer, part, *more):
        cfg = train.build_cfg(train.parse_args(place.argv(trainer, f"shared_{trainer}_{part}", *more)))
        built = train.build_trainer(cfg)
        setattr(built.dm.dataset, part, list(built.dm.dataset.test))
        return built

    return build


def test_val_images_that_are_test_images_choose_nothing(place, shared, capsys):
    trainer = shared("TipAdapter", "val")
    trainer.train()
    assert (trainer.cache.beta, trainer.cache.alpha) == (1.0, pytest.approx(1.17))
    assert "val images of Emoji are test images: BETA 1.0 and ALPHA 1.17 are kept" in capsys.readouterr().out
    trainer = shared("TipAdapterF", "val", *ADAMW, *BEST)
    trainer.train()
    assert "the last epoch is tested" in capsys.readouterr().out
    folder = place.folder / "shared_TipAdapterF_val/tip_adapter"
    assert not (folder / "model-best.pth.tar").exists()
    assert torch.equal(read_checkpoint(folder / "model.pth.tar-3").state["keys"], trainer.cache.keys.data)


@pytest.mark.parametrize("trainer", ("TipAdapter", "TipAdapterF"))
def test_a_cache_of_test_images_is_refused(shared, trainer):
    with pytest.raises(ValueError, match="Emoji has its test images as training images.*--eval-only"):
        shared(trainer, "train_x", *ADAMW).train()


def test_a_stopped_run_resumes_to_the_same_weights(place, monkeypatch, tip_adapter_f):
    after_epoch = tip_adapter_f.after_epoch
    more = (*ADAMW, *BEST)

    def stop(trainer):
        after_epoch(trainer)
        if trainer.epoch == 1:
            raise KeyboardInterrupt

    place.run("TipAdapterF", "whole", *more)
    with monkeypatch.context() as patch:
        patch.setattr(tip_adapter_f, "after_epoch", stop)
        assert train.main(place.argv("TipAdapterF", "stopped", *more)) == 130
    monkeypatch.setattr(tip_adapter_f, "fill_cache", None)  # a cache that is trained further is not filled anew
    place.run("TipAdapterF", "stopped", *more)
    for name in ("model.pth.tar-3", "model-best.pth.tar"):
        states = [saved(place, run, name) for run in ("whole", "stopped")]
        assert all(torch.equal(states[0][key], states[1][key]) for key in ("keys", "labels", "beta", "alpha"))
    assert place.predictions("whole") == place.predictions("stopped")


def test_a_finished_run_that_resumes_trains_as_before_its_search(place, monkeypatch, tip_adapter_f):
    place.run("TipAdapterF", "goes_on", *ADAMW)
    assert saved(place, "goes_on")["beta"] != 1.0
    place.run("TipAdapterF", "goes_on", *ADAMW, "TRAINER.TIPADAPTERF.SEARCH", "False")  # no epoch is left to train
    assert saved(place, "goes_on")["beta"] == 1.0
    place.run("TipAdapterF", "goes_on", *ADAMW)
    assert saved(place, "goes_on")["beta"] != 1.0
    seen = []
    step = tip_adapter_f.forward_backward
    monkeypatch.setattr(
        tip_adapter_f, "forward_backward", lambda t, b: seen.append((t.epoch, t.cache.beta.item())) or step(t, b)
    )
    place.run("TipAdapterF", "goes_on", *ADAMW, "OPTIM.MAX_EPOCH", "4")
    assert seen == [(3, 1.0)] * 3


def test_a_diverging_run_stops(place, capfd):
    more = (*ADAMW, "OPTIM.NAME", "sgd", "OPTIM.LR", "1e38")
    assert "infinite or NaN" in fails(capfd, place.argv("TipAdapterF", "diverges", *more), code=1)


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("BETA", "-1.0", "BETA must be a finite number >= 0, but got -1.0"),
        ("ALPHA", "float('inf')", "ALPHA"),
        ("AUGMENT_EPOCH", "0", "AUGMENT_EPOCH must be at least 1"),
        ("SEARCH_SCALE", "(7.0,)", "SEARCH_SCALE must be two numbers >= 0.1"),
        ("SEARCH_SCALE", "(7.0, 0.0)", "SEARCH_SCALE must be two numbers >= 0.1"),
        ("SEARCH_STEP", "(0, 20)", "SEARCH_STEP must be two numbers >= 1"),
        ("SEARCH_STEP", "(2.5, 20)", "SEARCH_STEP must be two whole numbers"),
        ("PREC", "int8", "PREC must be one of"),
        ("TEMPLATE", "an icon", "no {}"),
    ],
)
def test_wrong_settings_are_named(place, capfd, key, value, part):
    trainer = "TipAdapter" if key.startswith("SEARCH") else "TipAdapterF"  # which share them
    node = trainer.upper()
    message = fails(capfd, place.argv(trainer, "wrong", f"TRAINER.{node}.{key}", value))
    assert part in message and (key == "TEMPLATE" or f"TRAINER.{node}.{key}" in message)


def test_eps_must_be_above_0(place, capfd):
    assert "EPS must be a number > 0" in fails(
        capfd, place.argv("TipAdapterF", "wrong", "TRAINER.TIPADAPTERF.EPS", "0.0")
    )


def test_a_wrong_checkpoint_is_explained(place, capfd, tmp_path):
    load = ("--eval-only", "--model-dir")
    assert "--model-dir" in fails(capfd, place.argv("TipAdapter", "x", "--eval-only"))
    assert "no checkpoint" in fails(capfd, place.argv("TipAdapter", "x", *load, str(tmp_path)))
    place.run("CoOp", "coop")
    shutil.copytree(place.folder / "coop/prompt_learner", tmp_path / "coop/tip_adapter")
    message = fails(capfd, place.argv("TipAdapter", "x", *load, str(tmp_path / "coop")))
    assert "holds ['ctx'], expected a cache of Tip-Adapter: ['keys', 'labels'" in message
    place.run("TipAdapter", "base", "DATASET.SUBSAMPLE_CLASSES", "base")
    message = fails(capfd, place.argv("TipAdapter", "x", *load, str(place.folder / "base")))
    assert "is for 2 classes (bird, land vehicle), but this run has 3 (tool, bird, land vehicle)" in message


def test_a_target_with_some_of_the_classes_is_tested_with_their_images(place, capsys):
    load = ("--eval-only", "--model-dir", str(place.folder / "tip"))
    found = place.run("TipAdapter", "some", *load, "DATASET.SUBSAMPLE_CLASSES", "new")["splits"]["test"]
    assert "Of the 24 images of the cache, the 8 of this run's classes are used" in capsys.readouterr().out
    whole = place.results["splits"]["test"]
    assert all(found[key] == whole[key] for key in ("cache_sha256", "beta", "alpha"))  # it is the same cache


def test_the_images_of_a_class_are_found_by_its_id_where_names_repeat(tiny_clip, tmp_path):
    """As ImageNet has two classes "missile", of which ImageNet-R has the first."""
    names, ids, labels = ["missile", "dog", "missile"], ["n1", "n2", "n3"], torch.tensor([2, 0, 1, 0])
    cache = Cache(4, 32, names, 1.0, 1.17, ids)
    cache.fill(F.normalize(torch.randn(4, 32), dim=-1), labels)
    torch.save({"state_dict": cache.state_dict()}, tmp_path / "m")
    checkpoint = read_checkpoint(tmp_path / "m")
    z = F.normalize(torch.randn(5, 32), dim=-1)
    some = Cache(0, 32, ["dog", "missile"], 1.0, 1.17, ["n2", "n1"])
    with pytest.warns(UserWarning, match="for which CLIP"):
        tlla.training.cache_model.load_cache(checkpoint, some, tiny_clip)
        torch.testing.assert_close(some(z, torch.zeros(5, 2)), cache(z, torch.zeros(5, 3))[:, [1, 0]])
        for names, ids, part in (
            (["dog", "cat"], ["n2", "n4"], r"for 3 classes \(n1, n3, n2\), but this run has 2 \(n4, n2\)"),
            (["dog", "cat"], [], r"for 3 classes \(missile, missile, dog\), but this run has 2 \(cat, dog\)"),
            (["dog", "missile"], [], "more than one class named 'missile', and no ids: make it anew"),
        ):
            with pytest.raises(ValueError, match=part):
                tlla.training.cache_model.load_cache(checkpoint, Cache(0, 32, names, 1.0, 1.17, ids), tiny_clip)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"keys": torch.zeros(24, 512)}, r"keys of shape \(24, 512\).*needs \(N, 32\)"),
        ({"labels": torch.zeros(23)}, r"labels of shape \(23,\)"),
        ({"keys": torch.full((24, 32), float("nan"))}, "not finite"),
        ({"labels": torch.full((24,), 3)}, "not numbers of its 3 classes"),
        ({"_extra_state": {}}, "does not name the classes"),
        ({"alpha": 1.0}, "something else than tensors"),
        ({"more": torch.zeros(1)}, "holds .*'more'.* expected a cache"),
    ],
)
def test_a_cache_that_does_not_fit_is_refused_and_changes_nothing(tiny_clip, tmp_path, change, part):
    cache = Cache(24, 32, CLASSES, 1.0, 1.17)
    state = cache.state_dict() | {"keys": torch.ones(24, 32)} | change
    torch.save({"state_dict": state}, tmp_path / "m")
    with pytest.raises(ValueError, match=part):
        tlla.training.cache_model.load_cache(read_checkpoint(tmp_path / "m"), cache, tiny_clip)
    assert cache.keys.abs().max() == 0


def test_a_resumed_run_needs_the_same_training_images(place, capfd):
    shutil.copytree(place.folder / "tip_f", place.folder / "fewer")
    message = fails(capfd, place.argv("TipAdapterF", "fewer", *ADAMW, "DATASET.NUM_SHOTS", "2"))
    assert "DATASET.NUM_SHOTS is -1 there and 2 here" in message


def test_beta_0_ignores_the_image():
    affinity, values = torch.randn(4, 6).clamp(-1, 1), F.one_hot(torch.tensor([0, 0, 1, 1, 1, 2]), 3).float()
    assert torch.equal(_cache_logits(affinity, values, 0.0), torch.tensor([[2.0, 3.0, 1.0]]).expand(4, 3))
