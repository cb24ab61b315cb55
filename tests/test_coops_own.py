"""Prompts that CoOp itself has trained: in the folder of a run, and given to a sweep."""

import re

import pytest
import torch
from benchmark import Workplace

import train
from sweeps import __main__ as cli
from sweeps import traits
from sweeps.job import COMPLETE, STALE
from tlla.prompts.checkpoint import find_checkpoint, read_checkpoint

LEARNERS = traits.prompt_learners()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Workplace(tmp_path_factory.mktemp("work"))
    place.run("CoOp", "coop")
    return place


def as_coops(source, target, epoch=3):
    """A run's prompt as Dassl 0.6 saves CoOp's: with the class tokens, and a schedule that is an object."""
    state = read_checkpoint(find_checkpoint(source)).state
    parameters = [torch.nn.Parameter(value.clone()) for value in state.values()]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    sum(parameter.sum() for parameter in parameters).backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3)
    tokens = {"token_prefix": torch.zeros(3, 1, 64).half(), "token_suffix": torch.zeros(3, 70, 64).half()}
    (target / "prompt_learner").mkdir(parents=True)
    torch.save(
        {
            "state_dict": {**state, **tokens},
            "epoch": epoch,
            "optimizer": optimizer.state_dict(),
            "scheduler": {"successor": schedule, "base_lrs": [0.1], "last_epoch": epoch, "_step_count": epoch + 1},
            "val_result": None,
        },
        target / f"prompt_learner/model.pth.tar-{epoch}",
    )


@pytest.mark.parametrize("trainer", LEARNERS)
def test_a_run_resumes_from_coops_own_checkpoint_and_says_so(place, capsys, trainer):
    own = place.folder / f"own_{trainer}"
    place.run(trainer, f"first_{trainer}", "OPTIM.MAX_EPOCH", "1")
    as_coops(place.folder / f"first_{trainer}", own, epoch=1)
    capsys.readouterr()
    record = place.run(trainer, own.name, "OPTIM.MAX_EPOCH", "1")
    printed = capsys.readouterr().out
    assert f"{own}/prompt_learner/model.pth.tar-1 is CoOp's own checkpoint" in printed
    assert place.predictions(own.name) == place.predictions(f"first_{trainer}") and "train_seconds" in record


def test_training_resumes_after_the_epochs_of_coops_own_checkpoint(place):
    as_coops(place.folder / "coop", place.folder / "more", epoch=2)
    place.run("CoOp", "more")
    epochs = set(re.findall(r"epoch \[(\d)/3\]", (place.folder / "more/log.txt").read_text()))
    assert epochs == {"3"}


def test_coops_own_checkpoint_of_another_length_is_refused_by_what_differs(place, capsys):
    as_coops(place.folder / "coop", place.folder / "longer")
    assert train.main(place.argv("CoOp", "longer", "TRAINER.COOP.N_CTX", "5")) == 2
    assert "size mismatch for ctx" in (said := capsys.readouterr().err) and "token_prefix" not in said


def given(place, *words):
    """The jobs of a plan on the small benchmark; the prompts are CoOp's own, of one seed."""
    if not (place.folder / "coops").is_dir():
        as_coops(place.folder / "coop", place.folder / "coops/seed1")
    places = ("--data", str(place.folder / "data"), "--out", str(place.folder / "sweep"), "--source", "emoji")
    prompts = ("--prompts", f"CoOp={place.folder / 'coops'}", "--seeds", "1", "--targets", "emoji_twemoji")
    return cli.make_plan(cli.parse_args([*words, *places, *prompts]))[1]


def test_given_prompts_are_tested_and_not_trained(place, call):
    jobs = given(place, "ablation", str(place.config))
    tests = [job for job in jobs if job.source and job.source.given]
    assert [job.trainer for job in jobs if job.trains] == ["SAPT"] and not any(job.given for job in jobs)
    assert [(job.trainer, job.config_values["DATASET"]["NAME"]) for job in tests] == [
        (trainer, dataset) for trainer in ("CoOp", "TLLA") for dataset in ("Emoji", "EmojiTwemoji")
    ]
    for job in tests:
        assert train.main(job.argv) == 0 and job.state() == COMPLETE
    code, table, _ = call(place.folder / "sweep", "--table")
    assert code == 0 and "UNKNOWN" not in table and "?" not in table
    assert {"CoOp", "STSS+CoOp"} <= set(re.findall(r"[\w+]+", table))
    file = place.folder / "coops/seed1/prompt_learner/model.pth.tar-3"
    state = read_checkpoint(file).state
    state["ctx"] += 1
    torch.save({"state_dict": state, "epoch": 3}, file)
    assert [job.state() for job in given(place, "ablation", str(place.config)) if job in tests] == [STALE] * 4


def test_a_given_prompts_length_is_taken_from_it(place):
    as_coops(place.folder / "coop", place.folder / "three/seed1")
    words = ["ablation", "emoji", "--source", "emoji", "--targets", "emoji_twemoji", "--seeds", "1"]
    jobs = cli.make_plan(cli.parse_args([*words, "--prompts", f"CoOp={place.folder / 'three'}"]))[1]
    nodes = {job.trainer: job.config_values["TRAINER"] for job in jobs if job.source and job.source.given}
    for node in (nodes["CoOp"]["COOP"], nodes["TLLA"]["SAPT"]):
        assert (node["N_CTX"], node["CTX_INIT"]) == (3, "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("ablation", "emoji", "--prompts", "CoOp"), "--prompts takes TRAINER=FOLDER"),
        (
            ("ablation", "emoji", "--prompts", "CoOop={coop}"),
            "there is no trainer 'CoOop'",
        ),
        (("ablation", "emoji", "--prompts", "TipAdapter={coop}"), "TipAdapter learns no prompt"),
        (("ablation", "emoji", "--prompts", "CoOp={coop}"), "is one run: give the folder of seed1, seed2"),
        (("ablation", "emoji", "--prompts", "CoOp={coop}/tensorboard"), "there is no folder"),
        (("train", "emoji", "emoji", "--prompts", "SAPT={coop}", "--seeds", "1"), "tests no prompt of SAPT"),
        (("domain-generalization", "emoji", "--prompts", "CoOp={coop}", "--seeds", "1"), "tests no prompt of CoOp"),
    ],
)
def test_prompts_that_cannot_be_taken_are_refused(place, capsys, words, message):
    words = [word.format(coop=place.folder / "coop") for word in words]
    assert cli.main([*words, "--dry-run", "--out", str(place.folder / "none")]) == 2
    assert message in capsys.readouterr().err
