"""Stopped or killed at any moment: no traceback, nothing half written, and the same command ends as if undisturbed."""

import csv
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from multiprocessing import resource_sharer
from pathlib import Path

import pytest
import torch
from benchmark import REPO, Workplace
from dassl.data import loader
from forked import fork
from hostile import half_written

from tlla import workers

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STOPS = (*SIGNALS, signal.SIGUSR2)  # by the last one SLURM warns a job of its limit
KILLS = (*STOPS, signal.SIGKILL)
ENDS = (0, 130, *(-number for number in KILLS))  # a shell says 128 and the number
LONG = (
    *("OPTIM.MAX_EPOCH", "8", "TRAIN.CHECKPOINT_FREQ", "2"),
    *("TEST.SAVE_EVERY", "0.0", "DATALOADER.TEST.BATCH_SIZE", "1"),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Workplace(tmp_path_factory.mktemp("work"))
    place.run("SAPT", "whole", *LONG)
    load = ("--eval-only", "--model-dir", str(place.folder / "whole"))
    place.run("TLLA", "whole_test", *load, *LONG)
    return place


def ended(start, output, stops=STOPS):
    """Starts again and again and stops at random moments, then lets it end; nothing but a journal is half written."""
    rng = random.Random(0)
    codes = []
    while not codes or codes[-1]:
        child = start()
        codes.append(child.stop_after(rng.uniform(0, 0.8), rng.choice(stops)) if len(codes) < 6 else child.wait())
        assert codes[-1] in ENDS and "Traceback" not in child.error, (codes, child.error[-2000:])
        left = [path for path in half_written(output) if not re.search(r"\.(csv|jsonl)\..*part$", path)]
        assert left == [] or codes[-1] == -signal.SIGKILL


@pytest.mark.parametrize("trainer", ("SAPT", "TLLA"))
def test_a_run_stopped_or_killed_at_random_moments_ends_as_if_undisturbed(place, trainer):
    """Training with its test (SAPT), and a test with views (TLLA), which saves after every image."""
    load = ("--eval-only", "--model-dir", str(place.folder / "whole")) if trainer == "TLLA" else ()
    argv = place.argv(trainer, trainer, *load, *LONG)
    ended(lambda: fork("train", argv), place.folder / trainer, KILLS)
    whole = "whole" if trainer == "SAPT" else "whole_test"
    assert place.predictions(trainer) == place.predictions(whole)
    if trainer == "SAPT":
        assert torch.equal(place.context(trainer, 8), place.context(whole, 8))


def test_a_stopped_prediction_ends_as_if_undisturbed(place, tmp_path):
    words = [place.folder / "data/emoji/noto/test/0", "--views", "6", "--set", "top_s=3", "n_perturb=2"]
    words += ["--backbone", place.folder / "clip.pt", "--classes", "ape", "bear", "--batch-views", "6", "--csv"]
    assert fork("predict", [*words, tmp_path / "whole.csv"]).wait() == 0
    ended(lambda: fork("predict", [*words, tmp_path / "stopped.csv"]), tmp_path)
    whole, stopped = (csv.DictReader((tmp_path / name).open()) for name in ("whole.csv", "stopped.csv"))
    assert [row | {"seconds": ""} for row in whole] == [row | {"seconds": ""} for row in stopped]
    assert sorted(os.listdir(tmp_path)) == ["stopped.csv", "whole.csv"]


@pytest.mark.parametrize(
    ("script", "number", "delay"), (("train.py", signal.SIGINT, 0.4), ("predict.py", signal.SIGTERM, 0.0))
)
def test_a_stop_while_modules_are_imported_is_quiet(tmp_path, script, number, delay):
    command = [sys.executable, "-W", "ignore", str(REPO / script), "-", "--classes", "a"]
    with open(tmp_path / "err", "w") as err:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=err)
    while "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text():
        assert process.poll() is None, (tmp_path / "err").read_text()
        time.sleep(0.01)
    time.sleep(delay)
    process.send_signal(number)
    assert process.wait(timeout=60) in ENDS[1:]
    assert "Traceback" not in (tmp_path / "err").read_text()


@pytest.mark.parametrize("number", STOPS, ids=lambda number: number.name)
def test_ctrl_c_ends_the_workers_too(place, number):
    """A terminal sends the signal to all processes of the foreground."""
    output = f"workers_{number.name}"
    load = ("--eval-only", "--model-dir", str(place.folder / "whole"))
    more = ("DATALOADER.NUM_WORKERS", "2", "TRAINER.TLLA.N_VIEWS", "400")
    child = fork("train", place.argv("TLLA", output, *load, *LONG, *more))
    end = time.monotonic() + 60
    while not list((place.folder / output).glob("shards/*/*.pt")) and time.monotonic() < end:
        time.sleep(0.01)
    assert child.stop_after(0, number) in ENDS and "Traceback" not in child.error, child.error
    with pytest.raises(ProcessLookupError):  # nobody of the group is left
        for _ in range(100):
            os.killpg(child.pid, 0)
            time.sleep(0.05)
    assert half_written(place.folder / output) == []


@pytest.mark.parametrize("quiet", (workers._leave_stopping_to_parent, loader.leave_stopping_to_parent))
def test_a_worker_whose_parent_leaves_in_the_middle_is_quiet(quiet):
    """What hands tensors over runs in a thread of the worker, and prints all that goes wrong there."""

    def work(argv):
        quiet(0)
        resource_sharer.DupFd(0)
        with socket.socket(socket.AF_UNIX) as parent:
            parent.connect(resource_sharer._resource_sharer._address)
        time.sleep(0.3)
        return 0

    child = fork(work)
    assert (child.wait(), child.error) == (0, "")
