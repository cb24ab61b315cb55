"""Checkpoints after every epoch, and runs that are killed and resumed."""

import math
import os

import pytest
import torch

from dassl.engine import build_trainer
from dassl.utils import CheckpointError, checkpoint, load_checkpoint


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it, and nothing is cleaned up."""


def weights(trainer):
    return torch.cat([p.detach().flatten() for model in trainer._models.values() for p in model.parameters()])


def files(cfg, name="linear"):
    return sorted(os.listdir(os.path.join(cfg.OUTPUT_DIR, name)))


def pointer(cfg):
    with open(os.path.join(cfg.OUTPUT_DIR, "linear", "checkpoint")) as file:
        return file.read()


def run(cfg):
    trainer = build_trainer(cfg)
    trainer.train()
    return trainer


@pytest.fixture
def straight(make_cfg, tmp_path):
    """The weights of an uninterrupted run."""
    return weights(run(make_cfg("OUTPUT_DIR", str(tmp_path / "straight"))))


def test_resume_gives_the_same_bits(make_cfg, straight):
    cfg = make_cfg()
    trainer = build_trainer(cfg)
    trainer.after_epoch_of_class = trainer.after_epoch

    def stop():
        trainer.after_epoch_of_class()
        if trainer.epoch == 1:
            raise Killed

    trainer.after_epoch = stop
    with pytest.raises(Killed):
        trainer.train()
    assert files(cfg) == ["checkpoint", "model.pth.tar-2"]
    resumed = build_trainer(cfg)
    torch.randn(7)  # what happens in between must not matter
    resumed.train()
    assert resumed.start_epoch == 2
    assert torch.equal(weights(resumed), straight)
    assert files(cfg) == ["checkpoint", "model.pth.tar-4"]


@pytest.mark.parametrize("seed", [1, 2])
def test_another_seed_gives_other_bits(make_cfg, straight, seed):
    assert torch.equal(weights(run(make_cfg("SEED", seed))), straight) == (seed == 1)


# The calls within the third epoch's saving: 1st os.replace = model file, 2nd = pointer; os.remove = the old file.
@pytest.mark.parametrize("function, call", [("fsync", 1), ("replace", 1), ("fsync", 2), ("replace", 2), ("remove", 1)])
@pytest.mark.parametrize("before", [True, False])
def test_killed_while_saving(make_cfg, straight, monkeypatch, function, call, before):
    cfg = make_cfg()
    trainer = build_trainer(cfg)
    original, calls = getattr(os, function), []

    def killing(*args, **kwargs):
        calls.append(trainer.epoch)
        kill = calls.count(2) == call
        if kill and before:
            raise Killed
        original(*args, **kwargs)
        if kill:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, function, killing)
        with pytest.raises(Killed):
            trainer.train()
    resumed = run(cfg)
    assert resumed.start_epoch in (2, 3)
    assert torch.equal(weights(resumed), straight)
    assert files(cfg) == ["checkpoint", "model.pth.tar-4"]
    assert pointer(cfg) == "model.pth.tar-4\n"


def test_killed_in_a_batch_with_the_pointer_behind(make_cfg, straight, tmp_path):
    cfg = make_cfg()
    trainer = build_trainer(cfg)
    step = trainer.forward_backward
    trainer.forward_backward = lambda batch: (_ for _ in ()).throw(Killed) if trainer.epoch == 3 else step(batch)
    with pytest.raises(Killed):
        trainer.train()
    (tmp_path / "out/linear/checkpoint").write_text("model.pth.tar-2\n")
    resumed = run(cfg)
    assert resumed.start_epoch == 3
    assert torch.equal(weights(resumed), straight)


def test_partial_files_of_a_killed_run_go(make_cfg, tmp_path):
    (tmp_path / "out/linear").mkdir(parents=True)
    (tmp_path / "out/linear/model-best.pth.tar.partial").write_text("x")
    cfg = make_cfg()
    run(cfg)
    assert files(cfg) == ["checkpoint", "model.pth.tar-4"]


def test_checkpoint_freq_keeps_files(make_cfg):
    cfg = make_cfg("TRAIN.CHECKPOINT_FREQ", 3)
    run(cfg)
    assert files(cfg) == ["checkpoint", "model.pth.tar-3", "model.pth.tar-4"]
    longer = make_cfg("OPTIM.MAX_EPOCH", 6)
    assert run(longer).start_epoch == 4
    assert files(cfg) == ["checkpoint", "model.pth.tar-3", "model.pth.tar-4", "model.pth.tar-6"]


def test_finished_run_is_only_tested_again(make_cfg, capsys):
    cfg = make_cfg()
    first = run(cfg)
    capsys.readouterr()
    second = run(cfg)
    out = capsys.readouterr().out
    assert "epoch [" not in out and "Finish training" in out
    assert second.test_results == first.test_results


def test_two_models_resume_from_their_common_epoch(make_cfg, monkeypatch):
    def build(cfg, kill_at=None):
        trainer = build_trainer(cfg)
        other = torch.nn.Linear(2, 2)
        trainer.register_model("other", other, torch.optim.Adam(other.parameters()))
        step = trainer.forward_backward

        def both(batch):
            trainer.model_backward_and_update(other(torch.randn(3, 2)).square().mean(), "other")
            return step(batch)

        trainer.forward_backward = both
        return trainer

    straight = build(make_cfg("OUTPUT_DIR", make_cfg().OUTPUT_DIR + "2"))
    straight.train()

    cfg = make_cfg()
    killed = build(cfg)
    original = os.replace

    def replace(source, target):
        if target.endswith("other/model.pth.tar-3"):
            raise Killed
        original(source, target)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(os, "replace", replace)
        killed.train()
    assert "model.pth.tar-3" in files(cfg) and "model.pth.tar-3" not in files(cfg, "other")
    assert pointer(cfg) == "model.pth.tar-2\n"
    resumed = build(cfg)
    resumed.train()
    assert resumed.start_epoch == 2
    assert torch.equal(weights(resumed), weights(straight))
    assert files(cfg) == files(cfg, "other") == ["checkpoint", "model.pth.tar-4"]


def test_negative_seed_is_drawn_once_and_kept(make_cfg, capsys):
    cfg = make_cfg("SEED", -1, "OPTIM.MAX_EPOCH", 2, "DATASET.NUM_SHOTS", 2)
    first = run(cfg)
    assert f"Run seed: {first.run_seed} " in capsys.readouterr().out
    second = build_trainer(make_cfg("SEED", -1, "DATASET.NUM_SHOTS", 2))
    assert second.run_seed == second.cfg.SEED == first.run_seed == first.cfg.SEED
    assert [d.impath for d in second.dm.dataset.train_x] == [d.impath for d in first.dm.dataset.train_x]
    second.train()
    out = make_cfg().OUTPUT_DIR + "3"
    third = run(make_cfg("SEED", first.run_seed, "DATASET.NUM_SHOTS", 2, "OUTPUT_DIR", out))
    other = build_trainer(make_cfg("SEED", -1, "OUTPUT_DIR", out + "4"))
    assert other.run_seed != first.run_seed
    # Both have done four epochs, but the cosine of the first two knew of MAX_EPOCH 2 only.
    assert second.epoch == third.epoch == 3


def test_resume_from_another_directory(make_cfg, capsys):
    run(make_cfg("OPTIM.MAX_EPOCH", 2))
    source = make_cfg().OUTPUT_DIR
    cfg = make_cfg("RESUME", source, "OUTPUT_DIR", source + "-b")
    assert run(cfg).start_epoch == 2
    assert files(cfg) == ["checkpoint", "model.pth.tar-4"]
    assert os.listdir(os.path.join(source, "linear"))
    assert run(cfg).start_epoch == 2
    assert "leave RESUME empty" in capsys.readouterr().out


def test_best_val(make_cfg, capsys):
    cfg = make_cfg("TEST.FINAL_MODEL", "best_val")
    trainer = build_trainer(cfg)
    results = iter([30.0, 50.0, 40.0, 50.0])
    test = trainer.test
    trainer.test = lambda split=None: next(results) if split == "val" else test(split)
    trainer.train()
    assert files(cfg) == ["checkpoint", "model-best.pth.tar", "model.pth.tar-4"]
    best = load_checkpoint(os.path.join(cfg.OUTPUT_DIR, "linear", "model-best.pth.tar"))
    assert (best["epoch"], best["val_result"]) == (2, 50.0)
    trainer.save_model(1, cfg.OUTPUT_DIR, val_result=50.0, model_name="model-best.pth.tar")
    assert pointer(cfg) == "model.pth.tar-4\n"
    assert "model-best.pth.tar to linear (epoch=2, val_result=50.0)" in capsys.readouterr().out
    resumed = build_trainer(make_cfg("TEST.FINAL_MODEL", "best_val", "OPTIM.MAX_EPOCH", 5))
    resumed.test = lambda split=None: 45.0
    resumed.train()
    assert resumed.best_result == 50.0
    best = load_checkpoint(os.path.join(cfg.OUTPUT_DIR, "linear", "model-best.pth.tar"))
    assert best["epoch"] == 2


def test_the_best_model_comes_along_to_another_directory(make_cfg, tmp_path):
    best_val = ("TEST.FINAL_MODEL", "best_val")

    def trained(results, *opts):
        trainer = build_trainer(make_cfg(*best_val, *opts))
        trainer.test = lambda split=None: results.pop(0) if split == "val" else 0.0
        trainer.train()
        return weights(trainer)

    source = str(tmp_path / "first")
    best = trained([50.0, 40.0], "OUTPUT_DIR", source, "OPTIM.MAX_EPOCH", 2)
    assert torch.equal(trained([45.0, 45.0], "RESUME", source), best)


def test_a_resumed_run_has_its_own_settings_of_the_optimizer(make_cfg):
    run(make_cfg("OPTIM.MAX_EPOCH", 2, "OPTIM.NAME", "sgd", "OPTIM.LR_SCHEDULER", "cosine"))
    more = ("OPTIM.MAX_EPOCH", 4, "OPTIM.LR", 0.5, "OPTIM.MOMENTUM", 0.3, "OPTIM.WEIGHT_DECAY", 0.0)
    trainer = build_trainer(make_cfg("OPTIM.NAME", "sgd", "OPTIM.LR_SCHEDULER", "cosine", *more))
    trainer.before_train()
    (group,) = trainer._optims["linear"].param_groups
    assert (trainer.start_epoch, group["momentum"], group["weight_decay"]) == (2, 0.3, 0.0)
    assert group["lr"] == pytest.approx(0.25 * (1 + math.cos(math.pi / 4)))  # one of four epochs down its cosine
    assert trainer._optims["linear"].state_dict()["state"]  # the momentum itself is taken over


def test_best_val_needs_a_validation_set(make_cfg):
    trainer = build_trainer(make_cfg("TEST.FINAL_MODEL", "best_val"))
    trainer.val_loader = None
    with pytest.raises(ValueError, match="best_val needs a validation set.*last_step"):
        trainer.train()
    with pytest.raises(ValueError, match="must be one of"):
        build_trainer(make_cfg("TEST.FINAL_MODEL", "best")).train()


def test_load_model(make_cfg, capsys):
    cfg = make_cfg("TRAIN.CHECKPOINT_FREQ", 2)
    trained = run(cfg)
    fresh = build_trainer(cfg)
    fresh.load_model(cfg.OUTPUT_DIR)
    assert torch.equal(weights(fresh), weights(trained))
    fresh.load_model(cfg.OUTPUT_DIR, epoch=2)
    assert not torch.equal(weights(fresh), weights(trained))
    assert "model.pth.tar-2 to linear (epoch=2, val_result=none)" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match=r"present: model.pth.tar-2, model.pth.tar-4"):
        fresh.load_model(cfg.OUTPUT_DIR, epoch=3)
    fresh.load_model("")
    assert "load_model() is skipped as no pretrained model" in capsys.readouterr().out


def test_checkpoint_that_does_not_fit(make_cfg):
    cfg = make_cfg()
    run(cfg)
    other = build_trainer(make_cfg("OPTIM.MAX_EPOCH", 5))
    other._models["linear"] = torch.nn.Linear(3, 2)
    with pytest.raises(CheckpointError, match="does not fit Linear: Missing key.*another backbone"):
        other.train()
