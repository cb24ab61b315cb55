"""Sweeps on a cluster, with stand-ins of SLURM's programs, and what is found to be missing before the first run."""

import json
import os
import runpy
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from forked import fork
from hostile import bounded
from sweep_stand_in import CROSS_EMOJI, calls, sweep

import train
from sweeps import __main__ as cli
from sweeps import cluster, preflight, processes

SLURM = {  # each stands in $HERE, where it writes what it was asked
    "sbatch": """
        if [ -e $HERE/full ] && [ -s $HERE/queue ]; then echo "sbatch: error: job submit limit" >&2; exit 1; fi
        if [ -e $HERE/closed ]; then echo "sbatch: error: invalid partition" >&2; exit 1; fi
        id=$(($(wc -l < $HERE/queue) + 1)); echo $id $1 >> $HERE/queue
        echo "Submitted batch job $id"
        if [ -e $HERE/runs ]; then
            export SLURM_JOB_ID=$id SLURM_PROCID=0; setsid bash $1 >> $HERE/log 2>&1 < /dev/null &
            echo $! > $HERE/pid
        fi
    """,
    "srun": """
        while [ "${1#-}" != "$1" ]; do case $1 in --output|--error) shift 2;; *) shift;; esac; done
        env -0 > $HERE/environment; echo ${@: -1} > $HERE/asked
        while [ ! -e $HERE/ended ]; do sleep 0.05; done; rm $HERE/ended
    """,
    "sacct": """
        echo "JobID|State|NodeList"
        state=$(cat $HERE/state)
        if [ $(wc -l < $HERE/queue) -lt $(cat $HERE/wanted) ]; then state=PENDING; fi
        while read id file; do echo "$id|$state|node1"; done < $HERE/queue
    """,
    "scancel": "echo $@ >> $HERE/cancelled",
    "scontrol": """
        echo $@ >> $HERE/requeued
        (while kill -0 $(cat $HERE/pid) 2> /dev/null; do sleep 0.1; done
         export SLURM_JOB_ID=$2 SLURM_PROCID=0
         setsid bash $(sed -n ${2}p $HERE/queue | cut -d' ' -f2) >> $HERE/log 2>&1) < /dev/null > /dev/null 2>&1 &
    """,
}


def node(argv: list[str]) -> int:
    """A node: runs submitit's commands in forks, as new processes would import torch for seconds."""
    here = Path(argv[0])

    def run(argv: list[str]) -> int:
        sys.argv = ["submitit", *argv]
        runpy.run_module("submitit.core._submit", run_name="__main__")
        return 0

    while True:
        folder = (here / "asked").read_text().strip()
        names = (here / "environment").read_text().split("\0")
        child = fork(run, [folder], **dict(name.split("=", 1) for name in names if name))
        (here / "node").write_text(str(child.pid))
        child.wait()
        (here / "ended").touch()


@pytest.fixture
def nodes(fake, slurm):
    os.mkfifo(slurm / "asked")
    child = fork(node, [slurm])
    yield
    assert child.stop_after(0, signal.SIGTERM) == -signal.SIGTERM, child.error


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A SLURM whose jobs are only noted, unless there is a file "runs"; it says the state in the file "state"."""
    submitit = pytest.importorskip("submitit")
    here = tmp_path / "slurm"
    here.mkdir()
    for name, text in SLURM.items():
        (here / name).write_text(f"#!/usr/bin/env bash\nHERE={here}\n{text}")
        (here / name).chmod(0o755)
    for name, text in (("queue", ""), ("state", "TIMEOUT"), ("wanted", "1")):
        (here / name).write_text(text)
    monkeypatch.setenv("PATH", f"{here}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(cluster.Cluster, "pause", 0.05)
    monkeypatch.setattr(submitit.SlurmJob, "_results_timeout_s", 0.0)
    submitit.SlurmJob.watcher.clear()
    submitit.SlurmJob.watcher._registered.clear()
    return here


def queue(slurm):
    return (slurm / "queue").read_text().splitlines()


@pytest.mark.parametrize(("words", "count"), [((), 3), (("--jobs", "1"), 1)])
def test_as_many_jobs_are_submitted_as_there_are_unless_jobs_says_less(fake, slurm, capsys, words, count):
    (slurm / "wanted").write_text(str(count))
    assert sweep(fake, *CROSS_EMOJI, "--submit", "slurm", *words) == 1
    text = capsys.readouterr().out
    assert text.count("it was ended by the cluster (TIMEOUT); the same command resumes it") >= 3
    assert "3 failed, 3 not started" in text and "Checkpoint saved" not in text
    assert len(queue(slurm)) == 3 and not calls(fake)


@pytest.mark.parametrize("state", ("TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "CANCELLED by 1000"))
def test_the_summary_says_in_which_state_the_cluster_left_a_job(fake, slurm, capsys, state):
    (slurm / "state").write_text(state)
    assert sweep(fake, *CROSS_EMOJI, "--seeds", "1", "--submit", "slurm") == 1
    assert f"SAPT emoji seed 1: it was ended by the cluster ({state.split()[0]})" in capsys.readouterr().out


def test_a_cluster_that_accepts_no_more_jobs_is_asked_again(fake, slurm, capsys, monkeypatch):
    monkeypatch.setattr(cluster, "RETRY", 0.1)
    (slurm / "full").touch()
    assert sweep(fake, *CROSS_EMOJI, "--submit", "slurm") == 2  # the first job has ended, and still none is taken
    assert "the cluster refuses SAPT emoji seed 2: " in (text := capsys.readouterr().err) and "job submit limit" in text
    assert len(queue(slurm)) == 1
    (slurm / "closed").touch()
    (slurm / "queue").write_text("")
    assert sweep(fake, *CROSS_EMOJI, "--submit", "slurm") == 2
    assert "invalid partition" in capsys.readouterr().err


def test_jobs_are_cancelled_when_the_sweep_is_stopped(fake, slurm, monkeypatch):
    (slurm / "state").write_text("RUNNING")

    def stop(self, slot=0):
        raise KeyboardInterrupt

    monkeypatch.setattr(cluster.Submitted, "poll", stop)
    assert sweep(fake, *CROSS_EMOJI, "--submit", "slurm") == 130
    assert sorted((slurm / "cancelled").read_text().split()) == ["1", "2", "3"]


def test_a_job_that_slurm_warns_of_its_limit_resumes_by_itself(fake, slurm, nodes):
    """USR2 reaches all processes of a step, as at SLURM's; what train.py itself saves then: test_hostile_signals.py."""
    (slurm / "runs").touch()
    (slurm / "state").write_text("RUNNING")
    (fake / "slow").touch()
    words = ["train", "emoji", "emoji", "--seeds", "1", "--out", fake / "out", "--submit", "slurm"]
    whole = fork("sweeps", words, out=fake / "out.txt")
    deadline = time.monotonic() + 300
    while not calls(fake):
        assert time.monotonic() < deadline, (slurm / "log").read_text()
        time.sleep(0.02)
    (fake / "slow").unlink()
    for number in ((slurm / "node").read_text(), calls(fake)[0][-1]):
        os.kill(int(number), signal.SIGUSR2)
    with bounded():
        assert whole.wait() == 0, whole.error
    text = (fake / "out.txt").read_text()
    assert "1 runs: 0 done before, 1 done now" in text, text + (slurm / "log").read_text()
    assert (slurm / "requeued").read_text().split() == ["requeue", "1"] and len(calls(fake)) == 2


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (0, ""),
        (1, ""),
        (2, ""),
        (130, "it was stopped from outside; the same command resumes it"),
        (-signal.SIGTERM, "it was killed by SIGTERM"),
        (-signal.SIGKILL, "it was killed by SIGKILL, perhaps for want of memory"),
    ],
)
def test_an_end_from_outside_is_no_error_of_the_run(code, said):
    assert processes.from_outside(code) == said


def test_a_run_that_is_killed_is_not_blamed_on_the_last_line_of_its_log(fake, capsys):
    text = (fake / "train.py").read_text()
    (fake / "train.py").write_text("print('Checkpoint saved', flush=True)\nimport os; os.kill(os.getpid(), 9)\n" + text)
    assert sweep(fake, *CROSS_EMOJI, "--seeds", "1") == 1
    text = capsys.readouterr().out
    assert "failed: SAPT emoji seed 1: it was killed by SIGKILL" in text and "Checkpoint" not in text


# What is missing


def small(tmp_path, *words, dry=True):
    argv = [*words, "--seeds", "1", "--out", str(tmp_path / "out"), *(["--dry-run"] if dry else [])]
    return cli.main(argv)


def test_what_is_missing_is_said_before_the_first_run(tmp_path, fake, capsys, monkeypatch):
    monkeypatch.setenv("CLIP_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "data"
    (data / "food-101").mkdir(parents=True)
    words = ("cross-dataset", "--targets", "food101", "dtd", "--data", str(data))
    assert small(tmp_path, *words) == 0
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert printed.out.count("python ") == 3 and len(lines) == 4
    assert "missing: imagenet: " in lines[0] and "missing: food101: " in lines[1] and "split" in lines[1]
    assert f"the weights of ViT-B/16 are not at {tmp_path}/cache/ViT-B-16.pt" in lines[3]
    asked = []
    monkeypatch.setattr(preflight, "find_weights", lambda name, known: asked.append(name))
    assert small(tmp_path, *words, dry=False) == 2
    text = capsys.readouterr().err
    assert "nothing is run, as not all is there: imagenet: " in text and "food101: " in text and "dtd: " in text
    assert asked == ["ViT-B/16"] and not calls(fake)  # fetched once, for all runs


def test_no_room_and_no_right_to_write_are_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 5 << 20))
    assert small(tmp_path, *CROSS_EMOJI) == 0
    assert f"missing: {tmp_path} has 5 MB free, but 2 runs need up to 40 MB" in capsys.readouterr().err
    (tmp_path / "out").write_text("a file")
    assert small(tmp_path, *CROSS_EMOJI) == 0
    assert f"missing: {tmp_path / 'out'} cannot be written to" in capsys.readouterr().err


def test_data_of_complete_runs_is_not_asked_for(tmp_path, fake, monkeypatch):
    assert small(fake, *CROSS_EMOJI, dry=False) == 0
    monkeypatch.setattr(train, "build_cfg", None)
    _, jobs = cli.make_plan(cli.parse_args([*CROSS_EMOJI, "--seeds", "1", "--out", str(fake / "out")]))
    assert preflight.missing(jobs, fake / "out", fetch=True) == []


def test_one_more_method_leaves_a_finished_compare_run_to_be_completed(tmp_path, capsys):
    """In table 1 on the embedded benchmark; the finished runs are of an older version, which has fewer keys."""
    words = ["table1", "--smoke", "--out", str(tmp_path)]
    jobs = [job for job in cli.make_plan(cli.parse_args(words))[1] if job.trainer == "Compare" and not job.source]
    for job in jobs:
        job.folder.mkdir(parents=True)
        config = json.loads(json.dumps(job.config_values))
        del config["TRAINER"]["PROMPT"]["NAME"], config["TRAINER"]["RTPT"]  # keys of younger versions
        parts = [["template", name] for name in config["TRAINER"]["COMPARE"]["METHODS"]]
        record = {"config": config, "splits": {"test": {"total": 5, "parts": parts}}}
        (job.folder / "results.json").write_text(json.dumps(record))
    assert [job.state() for job in jobs] == ["complete", "complete"]
    more = cli.make_plan(cli.parse_args([*words, "--also", "RTPT"]))[1]
    more = [job for job in more if job.trainer == "Compare" and not job.source]
    assert [job.state() for job in more] == ["unfinished", "unfinished"] and not more[0].differences()
    config["TRAINER"]["ZERO"]["TOP"] = 0.7
    (job.folder / "results.json").write_text(json.dumps(record))
    assert job.differences() == ["TRAINER.ZERO.TOP is 0.7 there and 0.3 here"]
