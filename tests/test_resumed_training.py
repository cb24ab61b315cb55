"""From which checkpoints a training goes on: what it depends on must be the same, or the user must ask for it."""

import json
import os
import re
import shutil

import pytest
import torch
from benchmark import Workplace
from conftest import TINY_VIT, make_clip
from dassl.engine import TRAINER_REGISTRY
from hostile import fails
from kinds import LEARN

import parse_test_res
from report.reopen import open_run
from tlla.prompts.checkpoint import epochs_in, read_checkpoint
from tlla.records.record import read_record

EPOCH = ("OPTIM.MAX_EPOCH", "1")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Data, weights of two CLIPs of one shape, and one run of an epoch of each trainer that learns."""
    place = Workplace(tmp_path_factory.mktemp("work"))
    torch.save(make_clip(TINY_VIT, seed=1).state_dict(), place.folder / "other.pt")
    for name in LEARN:
        place.run(name, name, *EPOCH)
    return place


def learned(trainer):
    return TRAINER_REGISTRY.get(trainer).learned


def newest(place, output):
    return max(path for name in set(map(learned, LEARN)) for path in epochs_in(place.folder / output / name).values())


def record(place, output):
    return json.loads((place.folder / output / "results.json").read_text())


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "log" not in path.name}


def replaced_images(place, tmp_path):
    """A copy of the data in which one training image is another one of the same name."""
    shutil.copytree(place.folder / "data", tmp_path / "data")
    image = tmp_path / "data/emoji/noto/train/0/0.png"
    shutil.copyfile(tmp_path / "data/emoji/noto/train/1/0.png", image)
    os.utime(image, ns=(1, 1))
    return "--root", str(tmp_path / "data")


CHANGES = {  # what is given in addition, and what the message says of it
    "setting": (("OPTIM.LR", "5.0"), r"OPTIM\.LR is 0\.1 there and 5\.0 here"),
    "seed": (("--seed", "2"), r"SEED is 1 there and 2 here"),
    "shots": (("DATASET.NUM_SHOTS", "1"), r"DATASET\.NUM_SHOTS is -1 there and 1 here"),
    "classes": (("DATASET.SUBSAMPLE_CLASSES", "base"), r"'all' there and 'base' here.*class 2 is 'tool' there"),
    "weights": (("--backbone", "other.pt"), r"NAME is '\S+clip.pt' there and 'other.pt' here; weights_sha256"),
    "images": (None, r"size and time of train_x's files is '\w+' there and '\w+' here"),
    "fewer epochs": (("OPTIM.MAX_EPOCH", "0"), r"OPTIM\.MAX_EPOCH is 1 there and 0 here"),
}


@pytest.mark.parametrize("trainer", LEARN)
def test_a_checkpoint_of_other_settings_is_not_gone_on_from(place, capfd, monkeypatch, tmp_path, trainer):
    """All that is compared, for SAPT; for the others a setting and one thing more: they share the code."""
    monkeypatch.chdir(place.folder)
    before = contents(place.folder / trainer)
    changes, other = list(CHANGES.values()), 1 + LEARN.index(trainer) % (len(CHANGES) - 1)
    for flags, says in changes if trainer == "SAPT" else (changes[0], changes[other]):
        flags = replaced_images(place, tmp_path) if flags is None else flags
        words = (*flags, *EPOCH) if flags[0].startswith("--") else (*EPOCH, *flags)  # flags come before pairs
        message = fails(capfd, place.argv(trainer, trainer, *words))
        assert re.search(says, message), message
        assert str(newest(place, trainer)) in message and "another --output-dir" in message
        assert ("--resume" in message) == (trainer != "TipAdapter")  # which goes on from nothing
    assert contents(place.folder / trainer) == before


@pytest.mark.parametrize("trainer", LEARN)
def test_a_trainers_own_node_counts_and_others_do_not(place, capfd, trainer):
    node = TRAINER_REGISTRY.get(trainer).config_node
    message = fails(capfd, place.argv(trainer, trainer, *EPOCH, f"TRAINER.{node}.PREC", "bf16"))
    assert re.search(rf"TRAINER\.{node}\.PREC is '\w+' there and 'bf16' here", message)
    before = contents(place.folder / trainer / learned(trainer))
    others = [f"TRAINER.{name}.PREC" for name in ("COOP", "SAPT", "COCOOP", "ZSCLIP") if name != node]
    place.run(trainer, trainer, *EPOCH, *(word for key in others for word in (key, "bf16")))
    assert contents(place.folder / trainer / learned(trainer)).keys() == before.keys()


def test_another_trainer_does_not_go_on(place, capfd):
    for there, here in (
        ("SAPT", "CoOp"),
        ("CoOp", "CoCoOp"),
        ("TipAdapter", "TipAdapterF"),
        ("TipAdapterF", "TipAdapter"),
    ):
        assert f"TRAINER.NAME is '{there}' there and '{here}' here" in fails(capfd, place.argv(here, there, *EPOCH))


def test_the_place_of_the_class_name_counts(place, capfd):
    flags = ("TRAINER.SAPT.CLASS_TOKEN_POSITION", "front")
    assert "'end' there and 'front' here" in fails(capfd, place.argv("SAPT", "SAPT", *EPOCH, *flags))


def test_best_val_counts_with_the_val_images_and_the_settings_of_their_test(place, capfd, tmp_path):
    best = (*EPOCH, "TEST.FINAL_MODEL", "best_val")
    assert "'last_step' there and 'best_val' here" in fails(capfd, place.argv("TLLA", "TLLA", *best))
    place.run("TLLA", "best", *best)
    message = fails(capfd, place.argv("TLLA", "best", *best, "TRAINER.TLLA.N_VIEWS", "5"))
    assert "TRAINER.TLLA.N_VIEWS is 6 there and 5 here" in message
    shutil.copytree(place.folder / "data", tmp_path / "data")
    os.utime(tmp_path / "data/emoji/noto/val/0/0.png", ns=(1, 1))
    moved = ("--root", str(tmp_path / "data"))
    assert "size and time of val's files" in fails(capfd, place.argv("TLLA", "best", *moved, *best))
    place.run("TLLA", "TLLA", *moved, *EPOCH)  # the last step is chosen by nothing


def test_what_changes_no_result_may_change(place):
    before = record(place, "SAPT")
    os.rename(place.folder / "data", place.folder / "moved")
    shutil.copyfile(place.folder / "clip.pt", place.folder / "the same.pt")
    try:
        flags = ("--root", str(place.folder / "moved"), "--backbone", str(place.folder / "the same.pt"))
        pairs = ("DATALOADER.NUM_WORKERS", "1", "TRAIN.PRINT_FREQ", "3", "TRAINER.SAPT.TEXT_CHUNK", "2")
        after = place.run("SAPT", "SAPT", *flags, *EPOCH, *pairs, "TRAINER.TLLA.N_VIEWS", "3")
    finally:
        os.rename(place.folder / "moved", place.folder / "data")
    assert after["splits"]["test"]["prompt_sha256"] == before["splits"]["test"]["prompt_sha256"]
    assert "resumed" not in after


def test_a_run_resumes_in_spite_of_other_settings_and_says_so(place, capfd):
    """The settings of this run count from there on, and the record tells them from those of the epochs before."""
    resume = ("--resume", str(place.folder / "SAPT"))
    other = ("OPTIM.LR", "0.5", "OPTIM.MOMENTUM", "0.5", "OPTIM.MAX_EPOCH", "3")
    results = place.run("SAPT", "onwards", *resume, *other)
    lines = [
        "OPTIM.LR is 0.1 there and 0.5 here",
        "OPTIM.MAX_EPOCH is 1 there and 3 here",
        "OPTIM.MOMENTUM is 0.9 there and 0.5 here",
    ]
    assert results["resumed"] == [{"epoch": 1, "differences": lines}]
    printed = capfd.readouterr().out
    assert "Note: going on after epoch 1 of other settings:" in printed and lines[0] in printed
    assert "lr 5.0000e-01" in printed  # the first rate after the warm-up of one epoch
    (group,) = torch.load(newest(place, "onwards"), weights_only=True)["optimizer"]["param_groups"]
    assert group["momentum"] == 0.5
    assert place.run("SAPT", "onwards", *other)["resumed"] == results["resumed"]  # it is tested again
    assert "TRAINER.NAME is 'CoOp' there" in fails(capfd, place.argv("SAPT", "CoOp", *resume, *EPOCH))  # is in the way


def test_more_epochs_go_on_and_are_recorded(place):
    place.run("CoOp", "longer", *EPOCH)
    results = place.run("CoOp", "longer", "OPTIM.MAX_EPOCH", "2")
    entry = {"epoch": 1, "differences": ["OPTIM.MAX_EPOCH is 1 there and 2 here"]}
    assert results["resumed"] == [entry] and newest(place, "longer").name == "model.pth.tar-2"
    assert place.run("CoOp", "longer", "OPTIM.MAX_EPOCH", "2")["resumed"] == [entry]


def rewrite(path, **entries):
    state = torch.load(path, weights_only=True)
    torch.save({**state, **entries}, path)


def test_the_seconds_of_a_training_count_those_before_it_was_stopped(place):
    shutil.copytree(place.folder / "SAPT", place.folder / "timed")
    trainer = read_checkpoint(path := newest(place, "timed")).trainer
    assert 0 < trainer["seconds"] < record(place, "timed")["train_seconds"] + 0.05
    rewrite(path, trainer=trainer | {"seconds": 1000.0})
    assert place.run("SAPT", "timed", "OPTIM.MAX_EPOCH", "2")["train_seconds"] > 1000


@pytest.mark.parametrize("trainer", LEARN)
def test_a_checkpoint_without_a_note_on_its_settings_is_taken_with_a_word(place, capfd, trainer):
    shutil.copytree(place.folder / trainer, place.folder / f"old_{trainer}")
    path = newest(place, f"old_{trainer}")
    rewrite(path, trainer={})
    results = place.run(trainer, f"old_{trainer}", *EPOCH)
    note = f"{path} does not say with which settings it was trained"
    assert f"Note: {note}" in capfd.readouterr().out
    if trainer != "TipAdapter":  # which goes on from nothing
        assert results["resumed"] == [{"epoch": 1, "differences": [note]}]


def test_coops_own_checkpoint_is_taken_with_a_word(place, capfd):
    """As CoOp wrote it: fp16, with the tokens of the class names, and a scheduler that holds a scheduler object."""
    place.run("CoOp", "coops", *EPOCH)
    path = newest(place, "coops")
    ctx = torch.randn(3, 64).half()
    parameter = torch.nn.Parameter(ctx)
    optimizer = torch.optim.SGD([parameter], lr=0.002, momentum=0.9)
    optimizer.param_groups[0]["initial_lr"] = 0.002
    successor = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50)
    tokens = {"token_prefix": torch.zeros(3, 1, 64).half(), "token_suffix": torch.zeros(3, 73, 64).half()}
    scheduler = {"successor": successor, "last_epoch": 1, "base_lrs": [0.002], "cons_lr": 1e-5}
    state = {"ctx": ctx, **tokens}
    torch.save({"state_dict": state, "epoch": 1, "optimizer": optimizer.state_dict(), "scheduler": scheduler}, path)
    results = place.run("CoOp", "coops", "OPTIM.MAX_EPOCH", "2")
    assert "does not say with which settings" in capfd.readouterr().out
    assert results["resumed"][0]["epoch"] == 1 and newest(place, "coops").name == "model.pth.tar-2"


def test_a_refused_command_leaves_the_log_and_the_place_of_a_run_in_tables(place, capfd):
    shutil.copytree(place.folder / "SAPT", place.folder / "refused")
    log = (place.folder / "refused/log.txt").read_bytes()
    fails(capfd, place.argv("SAPT", "refused", *EPOCH, "TRAINER.SAPT.RHO", "0.5"))
    assert (place.folder / "refused/log.txt").read_bytes() == log
    assert "RHO: 0.5" in (place.folder / "refused/refused.log").read_text()
    assert parse_test_res.main([str(place.folder / "refused"), "--table"]) == 0


def test_tables_pass_over_a_command_that_was_refused_before_it_began(place, capfd):
    fails(capfd, place.argv("SAPT", "beside/bad", *EPOCH, "MODEL.INIT_WEIGHTS", "no/such/file"))
    assert [path.name for path in (place.folder / "beside/bad").iterdir()] == ["refused.log"]
    assert parse_test_res.main([str(place.folder / "beside"), "--table"]) == 2
    assert "beside/bad/refused.log says why a command was refused" in capfd.readouterr().err
    shutil.copytree(place.folder / "SAPT", place.folder / "beside/good")
    assert parse_test_res.main([str(place.folder / "beside"), "--table"]) == 0
    assert "LEFT OUT" not in capfd.readouterr().out


def test_another_trainers_results_are_not_overwritten(place, capfd):
    before = record(place, "SAPT")
    message = fails(capfd, place.argv("ZeroshotCLIP", "SAPT"))
    assert "TRAINER.NAME is 'SAPT' there and 'ZeroshotCLIP' here" in message
    assert record(place, "SAPT") == before


def test_a_checkpoint_says_who_has_trained_it_whatever_lies_beside_it(place):
    shutil.copytree(place.folder / "TLLA", place.folder / "relabelled")
    (place.folder / "relabelled/results.json").unlink()
    (place.folder / "relabelled/log.txt").write_text("trainer: CoOp\nDATASET:\n  NAME: Food101\n")
    results = place.run("ZERO", "on_relabelled", "--eval-only", "--model-dir", str(place.folder / "relabelled"))
    expected = {"name": "SAPT", "dataset": "Emoji", "said_by": "the checkpoint"}
    assert results["loaded_from"]["trained_by"] == expected


def test_a_checkpoint_of_a_version_without_some_setting_is_taken_with_a_word(place, capfd):
    shutil.copytree(place.folder / "SAPT", place.folder / "older")
    path = newest(place, "older")
    trainer = read_checkpoint(path).trainer
    del trainer["identity"]["TRAINER.SAPT.LAMBDA"]
    rewrite(path, trainer=trainer)
    results = place.run("SAPT", "older", *EPOCH)
    assert f"Note: {path} is of a version that had no TRAINER.SAPT.LAMBDA" in capfd.readouterr().out
    assert "resumed" not in results


@pytest.mark.parametrize("epochs", (0, 2))
def test_a_setting_that_is_gone_counts_if_it_was_in_use(place, capfd, epochs):
    """CACHE_EPOCHS, which older versions had: 0 was off."""
    shutil.copytree(place.folder / "SAPT", place.folder / f"cached{epochs}")
    path = newest(place, f"cached{epochs}")
    trainer = read_checkpoint(path).trainer
    trainer["identity"]["TRAINER.SAPT.CACHE_EPOCHS"] = epochs
    rewrite(path, trainer=trainer)
    if epochs:
        message = fails(capfd, place.argv("SAPT", "cached2", *EPOCH))
        assert "TRAINER.SAPT.CACHE_EPOCHS is 2 there and None here" in message
    else:
        assert "resumed" not in place.run("SAPT", "cached0", *EPOCH)


def test_a_run_of_a_version_with_other_keys_is_opened_with_a_word(place, capfd):
    shutil.copytree(place.folder / "SAPT", place.folder / "of_other_keys")
    path = place.folder / "of_other_keys/results.json"
    content = json.loads(path.read_text())
    content["config"]["TRAINER"]["SAPT"] |= {"CACHE_EPOCHS": 2, "GONE": 0}
    path.write_text(json.dumps(content))
    opened = open_run(read_record(path.parent), "DATASET.ROOT", str(place.folder / "data"))
    note = f"Note: {path.parent} is of a version that had TRAINER.SAPT.CACHE_EPOCHS, which is ignored"
    assert note in capfd.readouterr().err and "CACHE_EPOCHS" not in opened.cfg.TRAINER.SAPT


@pytest.mark.parametrize("note", ([1], {1: 2}, "text"))
def test_a_damaged_note_is_refused(place, capfd, note):
    shutil.rmtree(place.folder / "damaged", ignore_errors=True)
    shutil.copytree(place.folder / "CoOp", place.folder / "damaged")
    path = newest(place, "damaged")
    rewrite(path, trainer={"identity": note})
    assert f"the note on the settings in {path} is damaged" in fails(capfd, place.argv("CoOp", "damaged", *EPOCH))


@pytest.mark.parametrize("trainer", ("CoOp", "SAPT", "TLLA", "STSS", "Compare"))
def test_class_specific_contexts_are_tested_on_their_own_classes_alone(place, capfd, trainer):
    flags = ("TRAINER.SAPT.CSC", "True", "TRAINER.COOP.CSC", "True", "TRAINER.COMPARE.METHODS", "['STSS']")
    if not (place.folder / "by_class").is_dir():
        place.run("SAPT", "by_class", *EPOCH, *flags)
        path = newest(place, "by_class")
        entry = read_checkpoint(path).trainer
        names = ["bird", "land vehicle", "food"]
        rewrite(path, trainer={**entry, "prompt": {**entry["prompt"], "class_names": names}})
    load = ("--eval-only", "--model-dir", str(place.folder / "by_class"))
    message = fails(capfd, place.argv(trainer, f"by_class_{trainer}", *load, *flags))
    assert "(CSC)" in message and "is for 3 classes (food, bird, land vehicle), but this run has 3 (tool, " in message
