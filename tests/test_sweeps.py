"""Sweeps: each script's commands; what is skipped, goes on, fails, waits; kills, Ctrl-C, grids, the choice of rho."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from benchmark import REPO, Workplace
from forked import fork

import train
from sweeps import __main__ as cli
from sweeps import cluster, plans, processes, rho
from sweeps.grid import grid
from sweeps.job import COMPLETE, OTHER, STALE, UNFINISHED, check_jobs, ordered
from sweeps.runner import Sweep
from tlla.errors import InputError
from trainers.harness.describe_run import plain

FAKE = """
import json, os, signal, sys, time
from pathlib import Path
signal.signal(signal.SIGUSR2, lambda *_: sys.exit(130))
argv = sys.argv[1:]
folder = Path(argv[argv.index("--output-dir") + 1])
here = Path(__file__).parent
with (here / "calls").open("a") as calls:
    calls.write(f"{folder.name} {os.environ.get('CUDA_VISIBLE_DEVICES', '-')} {time.time()} {os.getpid()}\\n")
if (here / "slow").exists():
    time.sleep(30)
limit = time.time() + 60
while (here / "pairs").exists() and (here / "calls").read_text().count("\\n") < 2:
    time.sleep(0.02)
    if time.time() > limit:
        sys.exit("error: no other run is started meanwhile")
time.sleep(0.2)
config = json.loads((folder / "sweep.json").read_text())["config"]
if folder.name == (here / "bad").read_text():
    print("working\\nerror: the disk is full", file=sys.stderr)
    sys.exit(2)
source = argv[argv.index("--model-dir") + 1] if "--model-dir" in argv else str(folder)
accuracy = 50 if config["TRAINER"]["SAPT"]["RHO"] in (0.1, 0.3) else 40
test = {"total": 5, "accuracy": accuracy, "prompt_sha256": source}
sha256 = {"val": (here / "val").read_text(), "test": "t"}
record = {"config": config, "splits": {config["TEST"]["SPLIT"]: test}, "train_seconds": 1, "split_sha256": sha256}
(folder / "results.json").write_text(json.dumps(record))
with (here / "ends").open("a") as ends:
    ends.write(f"{time.time()} {os.getpid()}\\n")
"""


@pytest.fixture
def fake(tmp_path, monkeypatch) -> Path:
    """Runs take 0.2 s and leave what train.py would: a folder whose files say what happens."""
    for name, text in (("train.py", FAKE), ("bad", "none"), ("val", "v"), ("calls", "")):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(processes, "SCRIPT", tmp_path / "train.py")
    for name in ("DATA", "OUT", "JOBS", "CFG", "TRAINER", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def nodes(fake, monkeypatch) -> None:
    """The nodes of a cluster run these, too."""
    script = fake / "train.py"

    class Task(cluster.ClusterTask):
        def __call__(self, job):
            processes.SCRIPT = script
            return super().__call__(job)

    monkeypatch.setattr(cluster, "ClusterTask", Task)


def calls(fake: Path) -> list[list[str]]:
    """Folder, GPU, time and process of each run that was started."""
    return [line.split() for line in (fake / "calls").read_text().splitlines()]


def sweep(fake: Path, *words: str) -> int:
    return cli.main([*words[:1], "--out", str(fake / "out"), *words[1:]])


def commands(capsys, *words: str) -> list[str]:
    assert cli.main([*words, "--dry-run", "--out", "/out", "--data", "/data"]) == 0
    return capsys.readouterr().out.replace(f"{REPO}/", "").splitlines()


TRAIN = (
    "python train.py --root /data --seed 1 --trainer SAPT --dataset-config-file configs/datasets/oxford_pets.yaml "
    "--config-file configs/trainers/SAPT/vit_b16_c4_ep50.yaml --output-dir "
    "/out/oxford_pets/SAPT/vit_b16_c4_ep50_8shots/nctx4_cscFalse_ctpend/seed1 DATASET.NUM_SHOTS 8"
)
PROMPT = "/out/imagenet/SAPT/vit_b16_c4_ep5_16shots/nctx4_cscFalse_ctpend/seed2"
CROSS = (
    "python train.py --root /data --seed 2 --trainer TLLA --dataset-config-file configs/datasets/dtd.yaml "
    "--config-file configs/trainers/TLLA/vit_b16_c4_ep5.yaml --output-dir "
    "/out/evaluation/TLLA/vit_b16_c4_ep5_16shots/nctx4_cscFalse_ctpend/dtd/seed2 "
    f"--model-dir {PROMPT} --eval-only TRAINER.TLLA.AUGMIX True"
)
NEW = (
    "python train.py --root /data --seed 3 --trainer SAPT --dataset-config-file configs/datasets/dtd.yaml "
    "--config-file configs/trainers/SAPT/vit_b16_c4_ep50.yaml --output-dir "
    "/out/base2new/test_new/dtd/shots_16/SAPT/vit_b16_c4_ep50/seed3 "
    "--model-dir /out/base2new/train_base/dtd/shots_16/SAPT/vit_b16_c4_ep50/seed3 --eval-only "
    "DATASET.NUM_SHOTS 16 DATASET.SUBSAMPLE_CLASSES new"
)


def test_training_has_coops_arguments_and_folders(capsys):
    lines = commands(capsys, "train", "oxford_pets", "vit_b16_c4_ep50", "end", "4", "8", "False")
    assert lines[0] == TRAIN and len(lines) == 3
    other = commands(capsys, "train", "oxford_pets", "vit_b16_c4_ep50", "middle", "16", "1", "True", "--seeds", "5")
    assert "/vit_b16_c4_ep50_1shots/nctx16_cscTrue_ctpmiddle/seed5 " in other[0]
    assert other[0].endswith(
        "DATASET.NUM_SHOTS 1 TRAINER.SAPT.N_CTX 16 TRAINER.SAPT.CTX_INIT '' TRAINER.SAPT.CSC True "
        "TRAINER.SAPT.CLASS_TOKEN_POSITION middle"
    )


def test_cross_dataset_trains_on_imagenet_first_and_uses_augmix(capsys):
    lines = commands(capsys, "cross-dataset", "--seeds", "1", "2")
    assert len(lines) == 2 + 10 * 2 and CROSS in lines
    assert all("--model-dir" not in line for line in lines[:2]) and f"--output-dir {PROMPT} " in lines[1]


def test_base_to_new_tests_the_other_half(capsys):
    lines = commands(capsys, "base2new-test", "dtd", "3")
    assert len(lines) == 2 and lines[1] == NEW and lines[0].endswith("DATASET.SUBSAMPLE_CLASSES base")
    assert commands(capsys, "base2new-train", "dtd", "3") == lines[:1]


def test_domain_generalization_ablation_and_eval_cover_their_cells(capsys):
    lines = commands(capsys, "domain-generalization", "--rho", "0.3")
    assert len(lines) == 3 + 5 * 3 and all("TRAINER.SAPT.RHO 0.3" in line for line in lines)
    assert all(f"datasets/imagenet{v}.yaml" in lines[-1 - 3 * i] for i, v in enumerate(("_sketch", "_r", "v2", "_a")))
    lines = commands(capsys, "ablation", "--seeds", "1")
    assert len(lines) == 2 + 4 + 4 + 5 + 5  # two trainings test the source, too
    assert sum("/TLLA+CoOp/" in line and "/imagenet/CoOp/vit_b16_ep50_ctxv1_16shots/" in line for line in lines) == 5
    lines = commands(capsys, "eval", "food101", "vit_b16_c4_ep5", "--seeds", "1")
    assert len(lines) == 2 and "/evaluation/TLLA/" in lines[1]


def test_the_tables_have_every_method_once_a_dataset_and_seed(capsys):
    lines = commands(capsys, "table1")
    assert len(lines) == len(set(lines)) == 5 + (2 * 5 + 2 * 5) * 3 + 2 * 5 * 3 + 2 * 5 * 3
    assert sum('["TPT","CTPT","ZERO","MTA","SAR"]' in line for line in lines) == 15
    lines = commands(capsys, "table2")
    assert len(lines) == len(set(lines)) == 10 + (1 + 10) * 3 + (1 + 10) * 3 + 2 * 10 * 3


def test_every_script_reaches_its_plan(tmp_path, monkeypatch, capsys):
    """The scripts work from anywhere and need no editing; their plans are those of the tests above."""
    found = {}
    for path in sorted((REPO / "scripts").glob("*/*.sh")):  # scripts/sweep.sh is what all of them call
        text = path.read_text()
        assert os.access(path, os.X_OK) and text.startswith("#!/usr/bin/env bash") and "set -euo pipefail" in text
        found[f"{path.parent.name}/{path.stem}"] = text.split('sweep.sh" ')[1].split()[0]
    assert found == {
        **{f"sapt/{name}": name.replace("_", "-") for name in ("train", "rho_grid", "base2new_train", "base2new_test")},
        **{
            f"tlla/{name}": name.replace("_", "-")
            for name in ("eval", "domain_generalization", "cross_dataset", "ablation")
        },
        **{f"reproduce/{name}": name for name in ("table1", "table2")},
    }
    python = tmp_path / "python"
    python.write_text('#!/bin/bash\n[ $1 = -c ] || printf \'%s\n\' "$PYTHONPATH" "$@"\n')
    python.chmod(0o755)
    command = [str(REPO / "scripts/sapt/train.sh"), "oxford_pets", "vit_b16_c4_ep50", "end", "4", "8", "--dry-run"]
    env = {"PATH": os.environ["PATH"], "PYTHON": str(python)}
    out = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True).stdout
    path, *words = out.splitlines()
    assert (path, words[:2]) == (str(REPO), ["-m", "sweeps"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OUT", "runs")
    monkeypatch.setenv("DATA", "/data")
    assert cli.main(words[2:]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first == TRAIN.replace("/out", f"{tmp_path}/runs").replace(" train.py", f" {REPO}/train.py")


CROSS_EMOJI = ("cross-dataset", "emoji", "--source", "emoji", "--targets", "emoji_twemoji")


def test_failed_runs_are_listed_with_their_log_and_retried(fake, capsys):
    (fake / "bad").write_text("seed2")
    assert sweep(fake, *CROSS_EMOJI) == 1
    text = capsys.readouterr().out
    folder = fake / "out/emoji/SAPT/emoji_16shots/nctx4_cscFalse_ctpend/seed2"
    assert "6 runs: 0 done before, 4 done now, 1 failed, 1 not started" in text
    assert f"failed: SAPT emoji seed 2: error: the disk is full\n  its log: {folder}/sweep.log" in text
    assert f"not started: TLLA emoji_twemoji seed 2: it tests the prompt of {folder}, which is not complete" in text
    (fake / "bad").write_text("none")
    assert sweep(fake, *CROSS_EMOJI) == 0
    assert "6 runs: 4 done before, 2 done now\n" in capsys.readouterr().out
    assert len(calls(fake)) == 5 + 2
    assert cli.main([*CROSS_EMOJI, "--out", str(fake / "out"), "--dry-run"]) == 0
    assert capsys.readouterr().out.count("# complete: python ") == 6


def test_jobs_run_side_by_side_one_a_gpu_and_a_test_after_its_training(fake, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    (fake / "pairs").touch()
    assert sweep(fake, *CROSS_EMOJI, "--jobs", "2") == 0
    started = calls(fake)
    assert {row[1] for row in started[:2]} == {"4", "7"} == {row[1] for row in started}
    ends = {pid: float(end) for end, pid in (line.split() for line in (fake / "ends").read_text().splitlines())}
    for gpu in "47":
        own = [row for row in started if row[1] == gpu]
        assert all(float(after[2]) > ends[before[3]] for before, after in zip(own, own[1:], strict=False))
    for seed in ("seed1", "seed2", "seed3"):
        training, test = (row for row in started if row[0] == seed)
        assert float(test[2]) > ends[training[3]]


@pytest.mark.parametrize(("own", "jobs", "expected"), [(None, 2, "2"), (None, 8, "1"), (None, 1, None), ("3", 2, "3")])
def test_jobs_side_by_side_share_the_cores(fake, monkeypatch, own, jobs, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if own:
        monkeypatch.setenv("OMP_NUM_THREADS", own)
    monkeypatch.setattr(processes, "n_cores", lambda: 4)
    given = []
    monkeypatch.setattr(processes, "launch", lambda job, held, env: given.append(env.get("OMP_NUM_THREADS")))
    processes.Local(jobs).start(job_of(fake)[0], 0)
    assert given == [expected]


def job_of(fake: Path, *opts: str) -> list:
    settings = plans.Settings(fake / "out", "", (1,), 16, "emoji", ("emoji_twemoji",), None, opts)
    return ordered(plans.cross_dataset(settings, "emoji"))


def test_only_the_same_settings_and_prompt_count_as_complete(fake, capsys):
    assert sweep(fake, *CROSS_EMOJI, "--seeds", "1") == 0
    training, test = job_of(fake)
    assert (training.state(), test.state()) == (COMPLETE, COMPLETE)
    assert all(job.config_values == plain(train.build_cfg(train.parse_args(job.argv))) for job in (training, test))
    assert job_of(fake, "DATASET.ROOT", "/elsewhere", "DATALOADER.NUM_WORKERS", "2")[0].state() == COMPLETE
    others = [dataclasses.replace(training, seed=seed).differences() for seed in (2, -1)]
    assert others == [["SEED is 1 there and 2 here"], []]  # a negative seed is any that was drawn
    changed = job_of(fake, "TRAINER.SAPT.RHO", "0.7")[0]
    assert changed.state() == OTHER
    assert sweep(fake, *CROSS_EMOJI, "--seeds", "1", "--opts", "TRAINER.SAPT.RHO", "0.7") == 1
    text = capsys.readouterr().out
    assert "TRAINER.SAPT.RHO is 0.05 there and 0.7 here; choose another --out, or --redo moves it aside" in text
    file = training.folder / "results.json"
    record = json.loads(file.read_text())
    record["splits"]["test"]["prompt_sha256"] = "trained again"
    file.write_text(json.dumps(record))
    assert (training.state(), test.state()) == (COMPLETE, STALE)
    record["splits"]["test"] |= {"prompt_sha256": str(training.folder), "cache_sha256": "Tip-Adapter's"}
    file.write_text(json.dumps(record))
    assert (training.state(), test.state()) == (COMPLETE, STALE)
    del record["train_seconds"]
    file.write_text(json.dumps(record))  # as tests of an epoch leave it
    assert training.state() == UNFINISHED
    file.write_text("{")
    assert training.state() == UNFINISHED
    file.unlink()
    assert job_of(fake, "TRAINER.SAPT.RHO", "0.7")[0].state() == OTHER  # train.py would resume from its checkpoint
    assert sweep(fake, *CROSS_EMOJI, "--seeds", "1", "--redo", "--opts", "TRAINER.SAPT.RHO", "0.7") == 0
    assert len(list(training.folder.parent.glob("seed1-*"))) == 1 and changed.state() == COMPLETE


def test_ctrl_c_ends_the_processes(fake, capsys):
    (fake / "slow").touch()

    def interrupt() -> None:
        while len(calls(fake)) < 2:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert sweep(fake, *CROSS_EMOJI, "--jobs", "2") == 130
    thread.join()
    assert "stopped; run the same command again to resume" in capsys.readouterr().err
    for row in calls(fake):
        with pytest.raises(ProcessLookupError):
            os.kill(int(row[3]), 0)


def test_a_process_that_a_killed_sweep_left_behind_is_waited_for(fake, capsys):
    training = job_of(fake)[0]
    processes.launch(training, processes.lock(training.folder))
    assert processes.lock(training.folder) is None
    assert sweep(fake, *CROSS_EMOJI, "--seeds", "1", "--jobs", "2") == 0
    assert "2 runs: 1 done before, 1 done now" in capsys.readouterr().out and len(calls(fake)) == 2
    assert float(calls(fake)[1][2]) > float((fake / "ends").read_text().split()[0])  # the test, after the training


def test_rho_is_the_best_on_val_and_the_smallest_of_equals(fake, capsys):
    words = ("rho-grid", "emoji", "emoji", "--seeds", "1", "--jobs", "5")
    assert sweep(fake, *words) == 0
    file = fake / "out/rho_grid/emoji/SAPT/emoji_16shots/rho.json"
    choice = json.loads(file.read_text())
    assert choice["rho"] == 0.1 and choice["source"] == "emoji" and choice["seeds"] == [1]
    assert choice["mean_val_accuracy"] == {"0.05": 40, "0.1": 50, "0.3": 50, "0.5": 40, "0.7": 40}
    assert [run["rho"] for run in choice["runs"]] == list(rho.RHOS)
    assert choice["runs"][0]["command"][-2:] == ["TRAINER.SAPT.RHO", "0.05"] and "val" in choice["runs"][0]["command"]
    capsys.readouterr()
    given = commands(capsys, *CROSS_EMOJI, "--rho", str(file))
    assert all(line.endswith("TRAINER.SAPT.RHO 0.1") for line in given)
    with pytest.raises(InputError, match="was chosen on emoji, but the prompts are trained on imagenet"):
        rho.read_rho(str(file), "imagenet")
    for key in ("val_images_in_test", "split_sha256"):  # one of them, or all
        for entry in file.parent.glob("rho0.*/seed1/results.json"):
            record = json.loads(entry.read_text())
            change = {"split_sha256": {**record["split_sha256"], "val": "t"}, "val_images_in_test": 1}
            entry.write_text(json.dumps({**record, "val_images_in_test": 0, key: change[key]}))
        assert sweep(fake, *words) == 2
        assert "no val images apart from its test images" in capsys.readouterr().err


def test_rho_is_not_chosen_on_test_images(capsys):
    for name in ("imagenet", "imagenet_r"):
        assert cli.main(["rho-grid", name, "vit_b16_c4_ep50", "--dry-run"]) == 2
        assert f"{name} (ImageNet" in (text := capsys.readouterr().err) and "no validation images apart" in text


GRID = """
trainer: SAPT
config: emoji
datasets: [emoji]
seeds: [1, 2]
grid: {TRAINER.SAPT.RHO: [0.1, 0.2], OPTIM.LR: [0.5]}
then:
  - {trainer: TLLA, config: emoji, datasets: [emoji_twemoji, emoji_openmoji], opts: {TRAINER.TLLA.TOP_S: 4}}
"""


def test_a_grid_file_gives_all_combinations(tmp_path):
    (tmp_path / "radius.yaml").write_text(GRID)
    jobs = ordered(grid(plans.Settings(tmp_path), str(tmp_path / "radius.yaml")))
    assert len(jobs) == 2 * 2 + 2 * 2 * 2
    folder = tmp_path / "radius/emoji/SAPT/emoji_16shots/rho0.2_lr0.5"
    assert jobs[2].folder == folder / "seed1" and jobs[2].config_values["TRAINER"]["SAPT"]["RHO"] == 0.2
    test = next(job for job in jobs if job.folder == folder / "then0_TLLA/emoji_openmoji/seed2")
    assert test.source.folder == folder / "seed2" and test.config_values["TRAINER"]["TLLA"]["TOP_S"] == 4


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("datasets: [emoji]", "", "datasets is missing"),
        ("seeds", "seed", "seed is no key of a grid: did you mean 'seeds'"),
        ("[1, 2]", "[1, a]", "seeds must be a list of whole numbers, but got [1, 'a']"),
        ("[0.5]", "0.5", "grid.OPTIM.LR must be a list of values, but got 0.5"),
        ("[0.5]", "[0.5, 5e-1]", "grid.OPTIM.LR has equal values"),
        ("opts: {TRAINER.TLLA.TOP_S: 4}", "seeds: [1]", "then[0].seeds is no key"),
        ("config: emoji, ", "", "then[0].config is missing"),
        ("SAPT.RHO", "SAPT.RO", "TRAINER.SAPT.RO: did you mean"),
        ("[emoji]", "[emojy]", "there is no config configs/datasets/emojy.yaml: did you mean 'emoji'"),
        ("trainer: SAPT", "trainer: [", "cannot be read as YAML"),
    ],
)
def test_mistakes_in_a_grid_file_are_named(tmp_path, old, new, message):
    file = tmp_path / "g.yaml"
    file.write_text(GRID.replace(old, new, 1))
    with pytest.raises(InputError) as error:
        grid(plans.Settings(tmp_path), str(file))
    assert str(error.value).startswith(str(file)) and message in str(error.value)


def test_bad_input_is_found_before_anything_runs(fake, capsys):
    for words, message in (
        (("train", "emojy", "emoji"), "configs/datasets/emojy.yaml: did you mean"),
        (("train", "emoji", "emoji", "--rho", "x"), "--rho must be a number or a rho.json"),
        (("train", "emoji", "emoji", "--jobs", "0"), "--jobs must be at least 1"),
        (("train", "emoji", "emoji", "--opts", "NO.KEY", "1"), "NO.KEY"),
        (("grid", "none.yaml"), "none.yaml cannot be read"),
    ):
        assert cli.main([*words]) == 2
        assert message in capsys.readouterr().err
    assert not calls(fake)
    training = job_of(fake)[0]
    with pytest.raises(InputError, match="would share the folder"):
        check_jobs([training, *[job for job in job_of(fake, "OPTIM.LR", "0.1") if job.source is None]])


def test_a_sweep_killed_in_the_middle_ends_with_the_same_results(tmp_path, monkeypatch):
    """With the real train.py, killed while the prompt is trained; then everything is run again."""
    place = Workplace(tmp_path)
    place.run("SAPT", "training", "DATASET.NUM_SHOTS", "16", "OPTIM.MAX_EPOCH", "8")
    words = ["train", "emoji", str(place.config), "--seeds", "1", "--data", str(tmp_path / "data")]
    words += ["--out", str(tmp_path / "out"), "--opts", "OPTIM.MAX_EPOCH", "8"]
    monkeypatch.setattr(cli, "Local", lambda jobs: processes.Here())  # which imports nothing anew
    first = fork("sweeps", words)
    deadline = time.monotonic() + 300
    while not (checkpoints := list(tmp_path.glob("out/**/prompt_learner/model.pth.tar-*"))):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    first.stop_after(0, signal.SIGKILL)
    training = checkpoints[0].parent.parent
    assert not (training / "results.json").exists()
    assert cli.main(words) == 0
    assert (training / "predictions_test.csv").read_text() == place.predictions("training")
    logs = "".join(path.read_text() for path in training.glob("log.txt*"))
    assert "epoch" in logs and len(list(training.glob("log.txt*"))) == 2


def test_submitit_runs_the_jobs(fake, monkeypatch, capsys):
    """In this process; in others: tests/test_sweep_cluster.py."""
    submitit = pytest.importorskip("submitit")
    executor = submitit.AutoExecutor
    monkeypatch.setattr(submitit, "AutoExecutor", lambda folder, cluster: executor(folder, cluster="debug"))
    words = ("train", "emoji", "emoji", "--seeds", "1", "--submit", "local", "--submit-with", "timeout_min=5")
    assert sweep(fake, *words) == 0
    assert "1 runs: 0 done before, 1 done now" in capsys.readouterr().out and len(calls(fake)) == 1


def test_without_submitit_it_is_said(fake, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert sweep(fake, *CROSS_EMOJI, "--submit", "slurm") == 2
    assert "--submit slurm needs the package submitit: pip install submitit" in capsys.readouterr().err


def test_a_job_in_this_process_leaves_a_log_and_a_signal_stops_the_sweep(fake, monkeypatch):
    job = plans.trainings(plans.Settings(out=fake / "out", seeds=(1,)), plans.PromptPlan("SAPT", plans.SHORT), "dtd")[0]

    def main(argv):
        print("trained", argv == job.argv)
        print("error: the disk is full", file=sys.stderr)
        return codes.pop()

    monkeypatch.setattr(train, "main", main)
    codes = [2]
    summary = Sweep([job], processes.Here()).run()
    assert summary.failed == {job: "error: the disk is full"} and not summary.good
    assert (job.folder / "sweep.log").read_text() == "trained True\nerror: the disk is full\n"
    codes = [processes.STOPPED]
    with pytest.raises(KeyboardInterrupt):
        Sweep([job], processes.Here()).run()
    assert processes.lock(job.folder) is not None  # it is free again
