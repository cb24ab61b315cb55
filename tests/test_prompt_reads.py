"""A learned prompt is found and read once, by `Prompt.load`, and saved as it was."""

import sys

import pytest
import torch
from benchmark import Workplace
from conftest import CLASSNAMES
from hostile import accepted

import tlla
from tlla.prompts.conditional import ConditionalPromptLearner
from tlla.prompts.info import PromptInfo

opened: list[str] = []
sys.addaudithook(lambda event, args: event == "open" and "pth.tar" in str(args[0]) and opened.append(str(args[0])))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Workplace(tmp_path_factory.mktemp("work"))
    place.run("CoOp", "coop")
    place.run("CoCoOp", "cocoop")
    place.run("TipAdapter", "tip")
    return place


def reads(name: str) -> int:
    return sum(name in path for path in opened)


@pytest.mark.parametrize(
    ("trainer", "run"),
    [
        ("CoOp", "coop"),
        ("TLLA", "coop"),
        ("STSS", "coop"),
        ("ZERO", "cocoop"),
        ("CoCoOp", "cocoop"),
        ("TipAdapter", "tip"),
    ],
)
def test_a_test_of_a_run_reads_its_checkpoint_once(place, capfd, trainer, run):
    argv = place.argv(trainer, f"{trainer}_{run}", "--eval-only", "--model-dir", str(place.folder / run))
    opened.clear()
    accepted(capfd, "train", *argv)
    assert reads(f"/{run}/") == 1


def test_predict_py_reads_the_checkpoint_once(place, capfd):
    image = next((place.folder / "data").rglob("*.png"))
    argv = (image, "--prompt", place.folder / "coop", "--views", "4", "--set", "top_s=2")
    opened.clear()
    accepted(capfd, "predict", *argv)
    assert reads("/coop/") == 1


def test_what_is_saved_is_loaded(tiny_clip, tmp_path):
    learner = ConditionalPromptLearner(tiny_clip, CLASSNAMES)
    ctx, *weights = (value.detach() for value in learner.parameters())
    net = dict(zip(list(learner.state_dict())[1:], weights, strict=True))
    info, training = PromptInfo.of(learner, "tiny"), {"name": "CoCoOp", "dataset": "ImageNet"}
    made = tlla.Prompt(ctx, info, 4, meta_net=net, trained_by=training)
    path = made.save(tmp_path)
    found = tlla.Prompt.load(tmp_path)
    assert (found.info, found.epochs, found.trained_by, found.path) == (info, 4, training, path)
    assert found.state.keys() == learner.state_dict().keys()
    assert all(torch.equal(value, made.state[name]) for name, value in found.state.items())


def test_an_epoch_is_chosen(tmp_path):
    for epoch in (3, 1, 2):
        tlla.Prompt(torch.full((2, 4), float(epoch)), epochs=epoch).save(tmp_path)
    inside = tmp_path / "prompt_learner"
    (inside / "model.pth.tar-1").rename(inside / "model-best.pth.tar")
    choices = {2: {}, 3: {"epoch": 3}, 1: {"best": True}}
    for place in (tmp_path, str(inside)):
        assert all(tlla.Prompt.load(place, **choice).epochs == epoch for epoch, choice in choices.items())
    assert tlla.Prompt.load(inside / "model.pth.tar-3").epochs == 3
    with pytest.raises(tlla.InputError, match="whose epoch cannot be chosen"):
        tlla.Prompt.load(inside / "model.pth.tar-3", 2)


@pytest.mark.parametrize("place", (None, 3, b"run", ""))
def test_a_prompt_lies_at_a_path(place):
    with pytest.raises(tlla.InputError, match="must be a path"):
        tlla.Prompt.load(place)


@pytest.mark.parametrize("epoch", (1.5, "last", True, -1))
def test_an_epoch_is_a_whole_number(tmp_path, epoch):
    tlla.Prompt(torch.zeros(2, 4)).save(tmp_path)
    with pytest.raises(tlla.InputError, match="epoch must be a whole number"):
        tlla.Prompt.load(tmp_path, epoch)
