"""The life cycle, what is printed, and trainers that have nothing to train."""

import os
import re
import sys

import pytest
import torch
from torch import nn

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, build_dataset
from dassl.engine import TRAINER_REGISTRY, SimpleTrainer, TrainerBase, TrainerX, build_trainer

NUMBER = r"\d+\.\d{3} \(\d+\.\d{3}\)"
LINE = re.compile(
    rf"^epoch \[1/4\] batch \[2/2\] time {NUMBER} data {NUMBER} loss \d\.\d{{4}} \(\d\.\d{{4}}\) "
    r"acc \d+\.\d{4} \(\d+\.\d{4}\) lr \d\.\d{4}e-\d\d eta 0:00:0\d$",
    re.MULTILINE,
)


def test_what_a_run_prints_and_writes(make_cfg, capsys):
    cfg = make_cfg("VERBOSE", True)
    build_trainer(cfg).train()
    out = capsys.readouterr().out
    for line in ("Loading trainer: Linear", "Loading dataset: Squares", "Loading evaluator: Classification"):
        assert line in out
    assert LINE.search(out)
    order = ["# train_x", "No checkpoint found, train from scratch", "epoch [4/4]", "Finish training"]
    order += [
        "Deploy the last-epoch model",
        "Evaluate on the *test* set",
        "=> result",
        "* accuracy: ",
        "Elapsed: 0:00:0",
    ]
    assert [out.index(text) for text in order] == sorted(out.index(text) for text in order)
    assert sorted(os.listdir(cfg.OUTPUT_DIR)) == ["linear", "tensorboard"]
    assert os.listdir(os.path.join(cfg.OUTPUT_DIR, "tensorboard"))


def test_training_without_tensorboard_says_so(make_cfg, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    build_trainer(make_cfg("OPTIM.MAX_EPOCH", 1)).train()
    assert "tensorboard is not installed" in capsys.readouterr().out


def test_print_freq(make_cfg, capsys):
    build_trainer(make_cfg("TRAIN.PRINT_FREQ", 2, "OPTIM.MAX_EPOCH", 1)).train()
    out = capsys.readouterr().out
    assert "batch [1/2]" not in out and "batch [2/2]" in out


def test_it_learns(make_cfg):
    trainer = build_trainer(make_cfg("OPTIM.MAX_EPOCH", 40, "INPUT.TRANSFORMS", ("normalize",)))
    trainer.train()
    assert trainer.test_results["test"]["accuracy"] > 80
    assert trainer.test("val") == trainer.test_results["val"]["accuracy"]
    assert (trainer.evaluator.total, set(trainer.test_results)) == (6, {"val", "test"})


@pytest.mark.parametrize("final_model", ["last_step", "best_val"])
def test_nothing_to_train(make_cfg, capsys, final_model):
    cfg = make_cfg("TRAINER.NAME", "Fixed", "TEST.FINAL_MODEL", final_model)
    for _ in range(2):  # the second run finds the first one's directory
        trainer = build_trainer(cfg)
        trainer.val_loader = None
        trainer.train()
        out = capsys.readouterr().out
        assert "Nothing to train: Fixed registers no model" in out
        assert out.index("Finish training") < out.index("* accuracy")
    result = trainer.test_results["test"]["accuracy"]
    trainer.load_model(cfg.OUTPUT_DIR, epoch=3)
    assert "load_model() is skipped as Fixed has no model to load" in capsys.readouterr().out
    assert trainer.test() == result


def test_random_numbers_of_a_test_are_its_own(make_cfg):
    trainer = build_trainer(make_cfg("TRAINER.NAME", "Fixed"))
    scores = []
    trainer.model_inference = lambda image: scores.append(torch.rand(len(image), 3)) or scores[-1]
    trainer.test()
    torch.rand(5)
    trainer.test()
    assert torch.equal(torch.cat(scores[:3]), torch.cat(scores[3:]))


def test_test_only_dataset(make_cfg):
    @DATASET_REGISTRY.register()
    class OnlyTest(DatasetBase):
        def __init__(self, cfg):
            super().__init__(test=build_dataset_of(cfg))

    def build_dataset_of(cfg):
        squares = cfg.clone()
        squares.defrost()
        squares.DATASET.NAME = "Squares"
        return build_dataset(squares).test

    trainer = build_trainer(make_cfg("DATASET.NAME", "OnlyTest"))
    assert trainer.train_loader_x is None and trainer.num_classes == 3
    trainer.test()
    with pytest.raises(ValueError, match='trains on the "train_x" split'):
        trainer.train()
    build_trainer(make_cfg("DATASET.NAME", "OnlyTest", "TRAINER.NAME", "Fixed")).train()


def test_anomaly(make_cfg):
    trainer = build_trainer(make_cfg("OPTIM.WARMUP_EPOCH", 0))
    step = trainer.forward_backward

    def spoil(batch):
        if trainer.batch_idx == 1:
            trainer.model[2].weight.data.fill_(float("nan"))
        return step(batch)

    trainer.forward_backward = spoil
    with pytest.raises(FloatingPointError, match=r"epoch 1, batch 2, lr 1\.0000e-01, loss nan"):
        trainer.train()


def test_no_test(make_cfg, capsys):
    build_trainer(make_cfg("TEST.NO_TEST", True, "TEST.FINAL_MODEL", "best_val", "OPTIM.MAX_EPOCH", 1)).train()
    out = capsys.readouterr().out
    assert "Finish training" in out and "Evaluate" not in out


def test_split(make_cfg, capsys):
    trainer = build_trainer(make_cfg())
    with pytest.raises(ValueError, match="TEST.SPLIT must be one of"):
        trainer.test("train")
    trainer.val_loader = None
    trainer.test("val")
    assert "Evaluate on the *test* set" in capsys.readouterr().out


def test_registered_models():
    trainer = TrainerBase()
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    optim = torch.optim.SGD(second.parameters(), lr=0.25)
    trainer.register_model("first", first)
    trainer.register_model("second", second, optim)
    assert trainer.get_model_names() == ["first", "second"] and trainer.get_model_names("first") == ["first"]
    assert trainer.get_current_lr() == 0.25
    trainer.set_model_mode("eval", "second")
    assert first.training and not second.training
    trainer.model_backward_and_update(second(torch.ones(1, 2)).sum())
    trainer.update_lr()
    with pytest.raises(ValueError, match="registered already"):
        trainer.register_model("first", first)
    with pytest.raises(ValueError, match=r"\['third'\]"):
        trainer.get_model_names("third")
    with pytest.raises(ValueError, match="mode must be one of"):
        trainer.set_model_mode("training")

    class Early(TrainerBase):
        def __init__(self):
            self.register_model("m", first)

    with pytest.raises(AttributeError, match="super"):
        Early()


def test_a_step_result_that_is_no_dict(make_cfg):
    trainer = build_trainer(make_cfg())
    trainer.forward_backward = lambda batch: 0.5
    with pytest.raises(TypeError, match="must return a dictionary"):
        trainer.train()


def test_grad_scaler_survives_a_resume(make_cfg):
    def build(epochs):
        trainer = build_trainer(make_cfg("OPTIM.MAX_EPOCH", epochs))
        trainer.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        trainer.scaler.scale(torch.ones(1))
        return trainer

    first = build(1)
    first.scaler.update(4.0)
    first.train()
    second = build(2)
    second.train()
    assert second.scaler.get_scale() == 4.0


def test_a_trainer_without_a_model_is_refused(make_cfg):
    TRAINER_REGISTRY.register(type("Bare", (TrainerX,), {"__module__": __name__}), force=True)
    with pytest.raises(ValueError, match="TRAINER.NAME 'Bare' has no build_model.*BACKBONE.NAME 'resnet50'"):
        build_trainer(make_cfg("TRAINER.NAME", "Bare", "MODEL.BACKBONE.NAME", "resnet50"))


def test_classes():
    assert issubclass(TrainerX, SimpleTrainer) and issubclass(SimpleTrainer, TrainerBase)
