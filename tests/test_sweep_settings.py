"""Settings of sweeps: each reaches the runs that it is meant for, or is refused with what is wrong."""

import itertools
import os
import subprocess
import sys

import pytest
from benchmark import REPO, Workplace
from dassl.engine import TRAINER_REGISTRY
from kinds import EACH
from yacs.config import CfgNode

import train
import trainers
from sweeps import __main__ as cli
from sweeps import job as jobs_module
from sweeps import plans, traits
from tlla.errors import InputError
from trainers.base import registered
from trainers.sapt import SAPT
from trainers.tlla import TLLA

ARGUMENTS = {  # of every plan, on the embedded benchmark
    **{"train": ("emoji", "emoji"), "rho-grid": ("emoji", "emoji"), "eval": ("emoji_twemoji", "emoji")},
    **{"base2new-train": ("emoji", "--cfg", "emoji"), "base2new-test": ("emoji", "--cfg", "emoji")},
    **dict.fromkeys(("domain-generalization", "cross-dataset", "ablation"), ("emoji",)),
    **{"table1": ("--smoke",), "table2": ("--smoke",), "grid": ("{grid}",)},
}
HERE = ("--source", "emoji", "--targets", "emoji_twemoji", "--seeds", "1")


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in ("DATA", "OUT", "JOBS", "CFG", "TRAINER"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def plan(tmp_path):
    """The jobs of a plan."""
    (tmp_path / "g.yaml").write_text(
        "{trainer: SAPT, config: emoji, datasets: [emoji], then: [{trainer: TLLA, config: emoji, datasets: [emoji]}]}"
    )

    def make(name, *words):
        given = [word.format(grid=tmp_path / "g.yaml") for word in ARGUMENTS[name]]
        argv = [name, *given, *HERE, "--out", str(tmp_path / "out"), *words]
        return cli.make_plan(cli.parse_args(argv))[1]

    return make


class OwnSAPT(SAPT):
    """As somebody's trainer would be: a subclass with its own node."""

    config_node = "OWNSAPT"


class OwnTLLA(TLLA):
    """Also with its own views."""

    config_node = "OWNSAPT"
    views_name = "OWNTLLA"


@pytest.fixture
def own(monkeypatch):
    """Registers OwnSAPT and OwnTLLA, with their configs, for one test."""
    monkeypatch.setattr(TRAINER_REGISTRY, "_obj_map", dict(TRAINER_REGISTRY._obj_map))
    registered(OwnSAPT)
    registered(OwnTLLA)

    class Module:
        @staticmethod
        def add_config(cfg: CfgNode) -> None:
            cfg.TRAINER.OWNSAPT = cfg.TRAINER.SAPT.clone()
            cfg.TRAINER.OWNTLLA = cfg.TRAINER.TLLA.clone()

    monkeypatch.setattr(trainers, "_MODULES", [*trainers._MODULES, Module])
    cached = (jobs_module._config, jobs_module._defaults, plans._context)
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


FILE = str(REPO / "configs/trainers/SAPT/emoji.yaml")


def test_rho_reaches_the_trainings_of_a_subclass_with_its_own_node(own):
    words = ["train", "emoji", FILE, "--trainer", "OwnSAPT", "--rho", "0.3", "--seeds", "1"]
    (run,) = cli.make_plan(cli.parse_args(words))[1]
    assert run.config_values["TRAINER"]["OWNSAPT"]["RHO"] == 0.3 and run.config_values["TRAINER"]["SAPT"]["RHO"] == 0.05


def test_rho_is_chosen_for_a_trainer_with_its_own_node(own, capsys):
    words = ["rho-grid", "emoji", FILE, "--trainer", "OwnSAPT", "--values", "0.1", "0.4", "--seeds", "1"]
    runs = cli.make_plan(cli.parse_args(words))[1]
    assert [run.config_values["TRAINER"]["OWNSAPT"]["RHO"] for run in runs] == [0.1, 0.4]
    assert {run.config_values["TRAINER"]["SAPT"]["RHO"] for run in runs} == {0.05}
    assert cli.main(["rho-grid", "emoji", FILE, "--trainer", "CoOp", "--dry-run"]) == 2
    assert "--trainer CoOp learns no prompt with a rho" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("trainer", "key", "value"), [("OwnSAPT", "OWNSAPT.RHO", "-5.0"), ("OwnTLLA", "OWNTLLA.N_PERTURB", "-1")]
)
def test_a_subclass_is_checked_and_trained_by_its_own_node(tmp_path, own, capsys, trainer, key, value):
    place = Workplace(tmp_path)
    assert train.main(place.argv(trainer, "bad", f"TRAINER.{key}", value)) == 2
    assert f"TRAINER.{key} must" in capsys.readouterr().err
    more = ("TRAINER.OWNSAPT.N_CTX", "2", "TRAINER.OWNTLLA.N_VIEWS", "4", "TRAINER.OWNTLLA.TOP_S", "2")
    record = place.run(trainer, "good", "OPTIM.MAX_EPOCH", "1", *more)
    assert record["config"]["TRAINER"]["SAPT"]["N_CTX"] == 3 and place.context("good", 1).shape == (2, 64)


@pytest.mark.parametrize("name", sorted(set(ARGUMENTS) - {"rho-grid"}))
def test_rho_reaches_all_trainings_that_have_it_and_tests_of_their_prompts_alone(plan, name):
    jobs = plan(name, "--rho", "0.3")
    assert any(job.trains for job in jobs)
    for job in jobs:
        trained = job.source or job
        node = job.config_values["TRAINER"]["SAPT"]
        has = trained.trains and trained.trainer in ("SAPT", "TLLA") and job.trainer in ("SAPT", "TLLA")
        assert node["RHO"] == (0.3 if has else 0.05), job.name


@pytest.mark.parametrize("name", sorted(ARGUMENTS))
def test_a_flag_after_opts_is_a_flag(plan, name):
    jobs = plan(name, "--opts", "OPTIM.LR", "0.5", "--jobs", "2", "--opts", "OPTIM.MOMENTUM", "0.8")
    assert all((c["OPTIM"]["LR"], c["OPTIM"]["MOMENTUM"]) == (0.5, 0.8) for c in (j.config_values for j in jobs))


def test_what_a_plan_sets_for_each_run_cannot_be_set_for_all(plan):
    pairs = [("SEED", "3"), ("OUTPUT_DIR", "x"), ("TRAINER.NAME", "CoOp"), ("DATASET.NAME", "UCF101")]
    for name, pair in zip(ARGUMENTS, itertools.cycle(pairs)):
        with pytest.raises(InputError, match=f"{pair[0]} cannot be set for all runs"):
            plan(name, "--opts", *pair)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "emoji", "emoji", "--trainer", "CoOp", "--rho", "0.1"), "--rho 0.1: train trains CoOp here"),
        (("rho-grid", "emoji", "emoji", "--rho", "0.1"), "leave --rho out"),
        (("rho-grid", "emoji", "emoji", "--opts", "TRAINER.SAPT.RHO", "0.1"), "--opts sets TRAINER.SAPT.RHO"),
        (("grid", "{grid}", "--rho", "0.1"), "TRAINER.SAPT.RHO"),
        (("grid", "{grid}", "--opts", "OPTIM.LR", "0.1"), "--opts sets OPTIM.LR"),
        (("train", "emoji", "emoji", "--opts", "DATASET.NUM_SHOTS", "4"), "--opts sets DATASET.NUM_SHOTS"),
        (("train", "emoji", "emoji", "--opts", "OPTIM.LR"), "--opts takes pairs of KEY VALUE, but got 1"),
        (("train", "emoji", "emoji", "--trainer", "Foo"), "there is no trainer 'Foo'"),
        (("train", "emoji", "emoji", "--trainer", "TPT"), "TPT learns no prompt"),
        (("base2new-train", "emoji", "--trainer", "Foo"), "there is no trainer 'Foo'"),
        (
            ("base2new-train", "emoji", "--cfg", "emoji", "--trainer", "OwnSAPT"),
            "OwnSAPT/emoji.yaml: that folder has none",
        ),
        (("eval", "emoji", "vit_b16_c4_ep50", "--trainer", "TPT"), "did you mean 'vit_b16'"),
        (("eval", "emoji", "emoji", "--trainer", "TipAdapter"), "TipAdapter tests no learned prompt"),
        (("table1", "--smoke", "--also", "TTP"), "there is no trainer 'TTP'"),
        (("table1", "--also", "CoCoOp"), "say with which config: CoCoOp=<cfg>"),
        (("table1", "--also", "ZeroshotCLIP"), "trains nothing"),
    ],
)
def test_settings_that_no_run_can_take_are_refused(tmp_path, own, capsys, words, message):
    (tmp_path / "g.yaml").write_text(
        "{trainer: SAPT, config: emoji, datasets: [emoji], grid: {TRAINER.SAPT.RHO: [0.1], OPTIM.LR: [0.1]}}"
    )
    words = [word.format(grid=tmp_path / "g.yaml") for word in words]
    assert cli.main([*words, "--dry-run", "--out", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grid: {OPTIM.LR: [0.1]}, opts: {OPTIM.LR: 0.2}", "OPTIM.LR is in opts and in grid"),
        ("grid: {SEED: [1, 2]}", "SEED cannot be set for all runs"),
        ("then: [{trainer: TipAdapter, config: emoji, datasets: [emoji]}]", "TipAdapter cannot test what SAPT learns"),
    ],
)
def test_contradictions_in_a_grid_file_are_refused(tmp_path, capsys, text, message):
    (tmp_path / "g.yaml").write_text(f"{{trainer: SAPT, config: emoji, datasets: [emoji], {text}}}")
    assert cli.main(["grid", str(tmp_path / "g.yaml"), "--dry-run", "--out", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_a_name_in_the_environment_is_checked_too(monkeypatch, capsys):
    monkeypatch.setenv("TRAINER", "Foo")
    assert cli.main(["train", "emoji", "emoji", "--dry-run"]) == 2
    assert "there is no trainer 'Foo' (--trainer, or TRAINER of the environment)" in capsys.readouterr().err


@pytest.mark.parametrize("trainer", [*EACH, "OwnSAPT", "OwnTLLA"])
def test_every_kind_of_trainer_has_its_place_in_the_plans(tmp_path, own, trainer):
    """As a training or a test of base-to-new; and, if it can test a prompt, in eval."""
    cfg = "emoji" if trainer[:3] != "Own" else FILE
    out = ("--out", str(tmp_path), "--seeds", "1", "--source", "emoji")
    jobs = cli.make_plan(cli.parse_args(["base2new-test", "emoji", "--cfg", cfg, "--trainer", trainer, *out]))[1]
    assert [bool(job.source) for job in jobs] == [False, jobs[0].trains]
    words = cli.parse_args(["eval", "dtd", cfg, "--trainer", trainer, "--test-cfg", cfg, *out])
    if not traits.tests_prompts(trainer):
        with pytest.raises(InputError, match="tests no learned prompt"):
            cli.make_plan(words)
        return
    *_, test = cli.make_plan(words)[1]
    assert test.trainer == trainer and test.source.trains and traits.learns_prompt(test.source.trainer)
    node = traits.views_node(trainer)
    assert (f"{node}.AUGMIX" in test.opts) == bool(node)  # dtd is one of the ten


def test_folders_are_named_by_what_is_in_them(plan):
    for name in ("train", "ablation"):
        jobs = plan(name, "--opts", "TRAINER.SAPT.N_CTX", "7", "TRAINER.SAPT.CTX_INIT", "", "TRAINER.SAPT.CSC", "True")
        (job,) = (job for job in jobs if job.trains and job.trainer == "SAPT")
        assert "nctx7_cscTrue_ctpend" in str(job.folder)


def test_opts_decide_on_augmix(plan):
    *_, test = cli.make_plan(
        cli.parse_args(["eval", "dtd", "emoji", "--seeds", "1", "--opts", "TRAINER.TLLA.AUGMIX", "False"])
    )[1]
    assert test.config_values["TRAINER"]["TLLA"]["AUGMIX"] is False


def test_rows_are_added_to_the_tables(plan):
    for name in ("table1", "table2"):
        before, after = plan(name), plan(name, "--also", "RTPT", "ZERO", "CoCoOp=emoji")
        old, new = ({job.folder: job for job in jobs} for jobs in (before, after))
        assert set(old) <= set(new) and "CoCoOp" in {job.trainer for job in after}
        for job in (job for job in after if job.trainer == "Compare"):
            methods = job.config_values["TRAINER"]["COMPARE"]["METHODS"]
            before_it = old[job.folder].config_values["TRAINER"]["COMPARE"]["METHODS"]
            assert methods[: len(before_it)] == before_it and "RTPT" in methods and methods.count("ZERO") == 1


def test_the_script_says_which_python_lacks_what(tmp_path):
    script = str(REPO / "scripts/sweep.sh")
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -E "$@"\n')  # without its site-packages
    bare.chmod(0o755)
    env = {"PATH": os.environ["PATH"]}
    done = subprocess.run([script, "train", "a", "b"], env=env | {"PYTHON": str(bare)}, capture_output=True, text=True)
    assert done.returncode == 2 and f"error: {bare} lacks the packages torch, " in done.stderr
    done = subprocess.run(
        [script, "train", "a", "b"], env=env | {"PYTHON": "/nowhere/python"}, capture_output=True, text=True
    )
    assert done.returncode == 2 and "there is no program /nowhere/python" in done.stderr
