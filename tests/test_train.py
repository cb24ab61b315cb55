"""The registered trainers through train.py: what they compute, print and leave behind."""

import csv
import io
import json
import re

import pytest
import torch
import torch.nn.functional as F
from benchmark import REPO, Workplace
from dassl.engine import TRAINER_REGISTRY
from PIL import Image

import tlla.trainers
import train
import trainers
from tlla.clip import load_clip, normalize
from tlla.fingerprint import tensor_sha256
from tlla.prompts.learner import PromptLearner
from tlla.prompts.prompted import PromptedCLIP
from tlla.prompts.templates import zeroshot_features
from tlla.selection import score_views, select_and_vote
from tlla.sharpness import random_directions
from tlla.views.make import ViewConfig, centre_crop, make_views


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Data, weights and one trained run of SAPT and of CoOp, shared by the tests that only read them."""
    place = Workplace(tmp_path_factory.mktemp("work"))
    place.results = place.run("SAPT", "sapt")
    place.run("CoOp", "coop")
    return place


def test_zeroshot_equals_plain_clip(place):
    place.run("ZeroshotCLIP", "zeroshot")
    model = load_clip(str(place.folder / "clip.pt"))
    items = json.loads((place.folder / "data/emoji/index.json").read_text())["items"]["noto"]["test"]
    images = [Image.open(place.folder / "data/emoji" / path).convert("RGB") for path, _, _ in items]
    pixels = normalize(torch.stack([make_views(image, 0, ViewConfig(32, 1))[0] for image in images]))
    text = zeroshot_features(model, ["bird", "land vehicle", "tool"], "an icon of a {}.")
    expected = (F.normalize(model.encode_image(pixels), dim=-1) @ text.t()).argmax(dim=1).tolist()
    rows = list(csv.DictReader(io.StringIO(place.predictions("zeroshot"))))
    assert [int(row["prediction"]) for row in rows] == expected
    assert [int(row["label"]) for row in rows] == [label for _, label, _ in items]


def test_training_moves_the_prompt_and_lowers_the_loss(place):
    losses = [float(x) for x in re.findall(r" loss (\S+) ", (place.folder / "sapt/log.txt").read_text())]
    place.run("SAPT", "sapt_long", "OPTIM.MAX_EPOCH", "6")
    longer = [float(x) for x in re.findall(r" loss (\S+) ", (place.folder / "sapt_long/log.txt").read_text())]
    assert sum(longer[-3:]) < 0.9 * sum(losses[:3])


def test_sapt_with_lambda_0_is_coop_bit_for_bit(place):
    place.run("SAPT", "sapt0", "TRAINER.SAPT.LAMBDA", "0.0")
    assert torch.equal(place.context("coop"), place.context("sapt0"))
    assert not torch.equal(place.context("coop"), place.context("sapt"))


def test_one_seed_gives_the_same_run_whatever_the_number_of_workers(place):
    place.run("SAPT", "again", "DATALOADER.NUM_WORKERS", "2")
    assert torch.equal(place.context("again"), place.context("sapt"))
    assert place.predictions("again") == place.predictions("sapt")
    place.run("SAPT", "seed0", "--seed", "0")
    assert not torch.equal(place.context("seed0"), place.context("sapt"))


def test_bf16_trains_a_float32_prompt(place):
    results = place.run("SAPT", "bf16", "TRAINER.SAPT.PREC", "bf16")
    context = place.context("bf16")
    assert context.dtype == torch.float32 and context.isfinite().all()
    assert not torch.equal(context, place.context("sapt"))  # it did compute in another precision
    assert results["splits"]["test"]["total"] == 15


@pytest.fixture
def trainer(place):
    """A SAPT trainer in front of its first step, with fp16's loss scale on the CPU's arithmetic, and a batch."""
    cfg = train.build_cfg(train.parse_args(place.argv("SAPT", "built")))
    train.set_random_seed(1)
    trainer = train.build_trainer(cfg)
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    trainer.batch_idx, trainer.num_batches = 0, 2
    return trainer, next(iter(trainer.train_loader_x))


def test_a_loss_scale_changes_no_step(trainer):
    trainer, batch = trainer
    start = trainer.prompt().detach().clone()
    contexts = []
    for scaler in (trainer.scaler, None):
        trainer.scaler = scaler
        with torch.no_grad():
            trainer.prompt().copy_(start)
        trainer.optim.state.clear()
        trainer.forward_backward(batch)
        contexts.append(trainer.prompt().detach().clone())
    assert not torch.equal(contexts[0], start)
    torch.testing.assert_close(contexts[0], contexts[1], atol=1e-8, rtol=1e-5)


def test_an_overflow_skips_the_step_and_halves_the_scale_until_it_is_hopeless(trainer):
    trainer, batch = trainer
    start = trainer.prompt().detach().clone()
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    trainer.model.logits = lambda images, text: (images @ text.t()) * float("inf")
    trainer.forward_backward(batch)
    assert torch.equal(trainer.prompt(), start) and trainer.scaler.get_scale() == 1.0
    with pytest.raises(FloatingPointError, match="epoch 1, batch 1.*rho 0.05"):
        trainer.forward_backward(batch)
    assert torch.equal(trainer.prompt(), start)


def test_a_loss_that_is_not_finite_skips_the_step_even_if_its_gradient_is(trainer):
    trainer, _ = trainer
    start = trainer.prompt().detach().clone()
    gradient = torch.ones_like(start)
    trainer.apply_gradients([gradient], torch.tensor(torch.nan), gradient.norm(), finite=False, scale=2.0**16)
    assert torch.equal(trainer.prompt(), start) and trainer.scaler.get_scale() == 2.0**15


def naive_tlla(place, context, style, rho=0.5, seed=1):
    """STSS by hand from files: one image at a time, own loading, own text features."""
    model = load_clip(str(place.folder / "clip.pt"))
    prompted = PromptedCLIP(model, PromptLearner(model, ["bird", "land vehicle", "tool"], n_ctx=3))
    contexts = [context, *(context + d for d in random_directions((3, 64), 2, rho, seed))]
    with torch.no_grad():
        text = torch.stack([prompted.encode_text(c) for c in contexts])
    items = json.loads((place.folder / "data/emoji/index.json").read_text())["items"][style]["test"]
    predictions = []
    for i, (path, _, _) in enumerate(items):
        image = Image.open(place.folder / "data/emoji" / path).convert("RGB")
        views = make_views(image, i, ViewConfig(32, 6, seed=seed))
        features = prompted.encode_image(normalize(views))[None]
        scores = score_views(features, text, prompted.logit_scale, 1.0)
        predictions.append(select_and_vote(scores, 3, "mean_prob").argmax().item())
    return predictions


@pytest.mark.parametrize("source", ("sapt", "coop"))
def test_tlla_tests_the_prompt_of_any_run_on_a_shifted_style(place, source):
    output = f"tlla_{source}"
    results = place.run(
        "TLLA", output, "--eval-only", "--model-dir", str(place.folder / source), dataset="emoji_twemoji"
    )
    rows = list(csv.DictReader(io.StringIO(place.predictions(output))))
    assert [int(r["prediction"]) for r in rows] == naive_tlla(place, place.context(source), "twemoji")
    assert results["loaded_from"]["epoch"] == 3 and results["dataset"] == "EmojiTwemoji"


def test_tlla_does_not_depend_on_batches_or_workers(place):
    loaded = ("--eval-only", "--model-dir", str(place.folder / "sapt"))
    place.run("TLLA", "t1", *loaded, "TRAINER.TLLA.VIEW_BATCH", "1")
    place.run("TLLA", "t2", *loaded, "TRAINER.TLLA.VIEW_BATCH", "1000", "DATALOADER.NUM_WORKERS", "2")
    place.run("TLLA", "t3", *loaded, "TRAINER.TLLA.SEED", "9")
    # The confidence may differ in its last digit, as matrix products of another size round otherwise.
    classes = [[row.split(",")[:3] for row in place.predictions(name).splitlines()] for name in ("t1", "t2")]
    assert classes[0] == classes[1]
    assert place.predictions("t1") != place.predictions("t3")


def test_training_with_tlla_is_training_with_sapt(place):
    place.run("TLLA", "tlla_trained")
    assert torch.equal(place.context("tlla_trained"), place.context("sapt"))


def test_an_earlier_epoch_and_the_newest_can_be_loaded(place):
    place.run("SAPT", "kept", "TRAIN.CHECKPOINT_FREQ", "1")
    by_epoch = {}
    for epoch in (1, None):
        flag = () if epoch is None else ("--load-epoch", str(epoch))
        by_epoch[epoch] = place.run(
            "SAPT", f"epoch{epoch}", "--eval-only", "--model-dir", str(place.folder / "kept"), *flag
        )["loaded_from"]["epoch"]
    assert by_epoch == {1: 1, None: 3}


def test_best_val_tests_the_prompt_that_was_best_on_val(place):
    best_val = ("TEST.FINAL_MODEL", "best_val")
    results = place.run("SAPT", "best", *best_val)
    path = place.folder / "best/prompt_learner/model-best.pth.tar"
    saved = torch.load(path, weights_only=True)
    assert results["splits"]["test"]["prompt_sha256"] == tensor_sha256(saved["state_dict"]["ctx"])
    saved["state_dict"]["ctx"] += 1  # now it is certainly not the last epoch's
    torch.save(saved, path)
    for trainer in ("SAPT", "SingleView"):
        flags = ("--eval-only", "--model-dir", str(place.folder / "best"), *best_val)
        loaded = place.run(trainer, f"best_{trainer}", *flags)
        assert loaded["splits"]["test"]["prompt_sha256"] == tensor_sha256(saved["state_dict"]["ctx"])


def test_a_random_seed_is_drawn_and_recorded(place):
    seeds = {place.run("ZeroshotCLIP", f"random{i}", "--seed", "-1")["seed"] for i in range(2)}
    assert len(seeds) == 2 and min(seeds) >= 0


def test_results_json_tells_what_was_run(place):
    results = place.results
    test = results["splits"]["test"]
    rows = list(csv.DictReader(io.StringIO(place.predictions("sapt"))))
    assert test["correct"] == sum(row["label"] == row["prediction"] for row in rows) and test["total"] == 15
    assert test["accuracy"] == pytest.approx(100 * test["correct"] / 15)
    assert test["images_per_second"] > 0 and test["peak_memory_mb"] > 0
    assert results["trainer"] == "SAPT" and results["seed"] == 1 and results["backbone"].endswith("clip.pt")
    assert results["config"]["TRAINER"]["SAPT"]["N_CTX"] == 3 and results["versions"]["torch"]
    assert set(results["split_sha256"]) == {"train_x", "val", "test"}
    assert test["prompt_sha256"] == tensor_sha256(place.context("sapt"))


def test_the_split_fingerprint_does_not_depend_on_where_the_data_lies(place, tmp_path):
    elsewhere = Workplace(tmp_path)
    assert elsewhere.run("ZeroshotCLIP", "z")["split_sha256"] == place.results["split_sha256"]


def test_the_log_has_the_lines_that_parse_scripts_read(place):
    lines = (place.folder / "sapt/log.txt").read_text().splitlines()
    assert "Finish training" in lines and "=> result" in lines
    accuracy = [line for line in lines if re.match(r"\* accuracy: ([\.\deE+-]+)%", line)]
    assert accuracy == [f"* accuracy: {place.results['splits']['test']['accuracy']:.1f}%"]
    assert any(re.match(r"epoch \[1/3\] batch \[\d+/3\] time .* loss .* acc .* lr .* eta ", line) for line in lines)


def test_the_val_split_can_be_tested(place):
    results = place.run("ZeroshotCLIP", "val", "TEST.SPLIT", "val")
    assert results["splits"]["val"]["total"] == 12


def test_a_configs_settings_are_overridden_in_coops_order(place):
    cfg = train.build_cfg(train.parse_args(place.argv("SAPT", "x", "--seed", "0", "OPTIM.LR", "0.5")))
    assert (cfg.SEED, cfg.OPTIM.LR, cfg.TRAINER.SAPT.N_CTX, cfg.TRAINER.SAPT.RHO) == (0, 0.5, 3, 0.05)


def test_a_whole_number_is_taken_where_a_float_is_meant(place):
    file = place.folder / "whole.yaml"
    file.write_text("TRAINER: {SAPT: {RHO: 1}}\nTEST: {SAVE_EVERY: 600}\n")
    argv = place.argv("SAPT", "unused", "--config-file", str(file), "TRAINER.SAPT.LAMBDA", "0", "OPTIM.MAX_EPOCH", "2")
    cfg = train.build_cfg(train.parse_args(argv))
    found = (cfg.TRAINER.SAPT.RHO, cfg.TEST.SAVE_EVERY, cfg.TRAINER.SAPT.LAMBDA, cfg.OPTIM.MAX_EPOCH)
    assert found == (1, 600, 0, 2)
    assert [type(value) for value in found] == [float, float, float, int]


def test_of_several_configs_the_later_wins(place):
    tuned = ("--config-file", "configs/trainers/TDA/imagenet_r.yaml")
    cfg = train.build_cfg(train.parse_args(place.argv("TDA", "x", *tuned)))
    assert (cfg.TRAINER.TDA.POS_BETA, cfg.TRAINER.VIEWS.N_VIEWS) == (8.0, 6)


def test_every_shipped_config_merges():
    paths = sorted((REPO / "configs").rglob("*.yaml"))
    assert len(paths) > 50
    for path in paths:
        is_dataset = path.parent.name == "datasets"
        argv = ["--trainer", "CoOp" if is_dataset else path.parent.name]
        argv += ["--dataset-config-file", str(path if is_dataset else REPO / "configs/datasets/emoji.yaml")]
        argv += [] if is_dataset else ["--config-file", str(path)]
        assert train.build_cfg(train.parse_args(argv)).DATASET.NAME, path


def test_importing_under_both_names_registers_once():
    assert tlla.trainers.sapt.SAPT is not trainers.sapt.SAPT
    names = TRAINER_REGISTRY.registered_names()
    assert sorted(names) == sorted(set(names)) and {"ZeroshotCLIP", "CoOp", "SAPT", "TLLA"} <= set(names)


def test_plain_view_is_what_the_test_transform_makes(place):
    from dassl.data.transforms import build_transform

    cfg = train.build_cfg(train.parse_args(place.argv("SAPT", "x")))
    image = Image.open(place.folder / "data/emoji/noto/test/0/0.png").convert("RGB")
    ours = normalize(make_views(image, 0, ViewConfig(32, 1))[0])
    torch.testing.assert_close(build_transform(cfg, is_train=False)(image), ours)
    assert centre_crop(image, 32).size == (32, 32)
