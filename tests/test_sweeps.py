"""How sweeps run: what is skipped, resumes, fails, waits; kills, Ctrl-C, several jobs side by side."""

import dataclasses
import json
import os
import signal
import sys
import threading
import time

import pytest
from benchmark import Workplace
from forked import fork
from sweep_stand_in import CROSS_EMOJI, calls, job_of, sweep

import train
from sweeps import __main__ as cli
from sweeps import plans, processes
from sweeps.job import COMPLETE, OTHER, STALE, UNFINISHED, check_jobs
from sweeps.runner import Sweep
from tlla.errors import InputError
from trainers.harness.describe_run import plain


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
    place.run("SAPT", "training", "DATASET.NUM_SHOTS", "16", "OPTIM.MAX_EPOCH", "5")
    words = ["train", "emoji", str(place.config), "--seeds", "1", "--data", str(tmp_path / "data")]
    words += ["--out", str(tmp_path / "out"), "--opts", "OPTIM.MAX_EPOCH", "5"]
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
