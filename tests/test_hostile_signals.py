"""SIGINT and SIGTERM at any moment: no traceback, nothing half written, and the same command ends as if undisturbed."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from benchmark import REPO, Workplace
from forked import fork
from hostile import half_written

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STOPS = (*SIGNALS, signal.SIGUSR2)  # by the last one SLURM warns a job of its limit
ENDS = (0, 130, *(-number for number in STOPS))  # a shell says 128 and the number
LONG = (
    *("OPTIM.MAX_EPOCH", "8", "TRAIN.CHECKPOINT_FREQ", "2"),
    *("TEST.SAVE_EVERY", "0.0", "DATALOADER.TEST.BATCH_SIZE", "1"),
)
SCRIPTS = {"train": ("train.py", ()), "predict": ("predict.py", ("-", "--classes", "a"))}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Workplace(tmp_path_factory.mktemp("work"))
    place.run("SAPT", "whole", *LONG)
    load = ("--eval-only", "--model-dir", str(place.folder / "whole"))
    place.run("TLLA", "whole_test", *load, *LONG)
    return place


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("trainer", ("SAPT", "TLLA"))
def test_a_run_stopped_at_random_moments_ends_as_if_undisturbed(place, trainer, seed):
    """Training with its test (SAPT), and a test with views (TLLA), which saves after every image."""
    rng = random.Random(seed)
    output = f"{trainer}{seed}"
    load = ("--eval-only", "--model-dir", str(place.folder / "whole")) if trainer == "TLLA" else ()
    argv = place.argv(trainer, output, *load, *LONG)
    codes = []
    while not codes or codes[-1]:
        child = fork("train", argv)
        stops = len(codes) < 5
        codes.append(child.stop_after(rng.uniform(0, 0.8), rng.choice(STOPS)) if stops else child.wait())
        assert codes[-1] in ENDS and "Traceback" not in child.error, (codes, child.error[-2000:])
        assert half_written(place.folder / output) == []
    whole = "whole" if trainer == "SAPT" else "whole_test"
    assert place.predictions(output) == place.predictions(whole)
    if trainer == "SAPT":
        assert torch.equal(place.context(output, 8), place.context(whole, 8))


def start(place, tmp_path, script, *argv):
    """The real command line, in a session of its own, as a terminal's is."""
    command = [sys.executable, "-W", "ignore", str(REPO / script), *argv]
    with open(tmp_path / "err", "w") as err:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=err, start_new_session=True
        )


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("script, argv", SCRIPTS.values(), ids=SCRIPTS)
@pytest.mark.parametrize("delay", (0.0, 0.4))
def test_a_stop_while_modules_are_imported_is_quiet(place, tmp_path, script, argv, number, delay):
    process = start(place, tmp_path, script, *(argv or place.argv("ZeroshotCLIP", "import")))
    while "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text():
        assert process.poll() is None, (tmp_path / "err").read_text()
        time.sleep(0.01)
    time.sleep(delay)
    process.send_signal(number)
    assert process.wait(timeout=60) in ENDS[1:]
    assert "Traceback" not in (tmp_path / "err").read_text()


@pytest.mark.parametrize("number", STOPS, ids=lambda number: number.name)
def test_ctrl_c_ends_the_workers_too(place, tmp_path, number):
    """A terminal sends the signal to all processes of the foreground."""
    output = f"workers_{number.name}"
    load = ("--eval-only", "--model-dir", str(place.folder / "whole"))
    argv = place.argv("TLLA", output, *load, *LONG, "DATALOADER.NUM_WORKERS", "2", "TRAINER.TLLA.N_VIEWS", "400")
    process = start(place, tmp_path, "train.py", *argv)
    end = time.monotonic() + 60
    while not list((place.folder / output).glob("shards/*/*.pt")) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    os.killpg(process.pid, number)
    assert process.wait(timeout=60) in ENDS
    assert "Traceback" not in (tmp_path / "err").read_text()
    with pytest.raises(ProcessLookupError):  # nobody of the group is left
        for _ in range(100):
            os.killpg(process.pid, 0)
            time.sleep(0.05)
    assert half_written(place.folder / output) == []


@pytest.mark.parametrize(
    "module, name", (("tlla.workers", "_leave_stopping_to_parent"), ("dassl.data.loader", "leave_stopping_to_parent"))
)
def test_a_worker_whose_parent_leaves_in_the_middle_is_quiet(module, name):
    """What hands tensors over runs in a thread of the worker, and prints all that goes wrong there."""
    script = f"""
import socket, time
from multiprocessing import resource_sharer
from {module} import {name}
{name}(0)
resource_sharer.DupFd(0)
with socket.socket(socket.AF_UNIX) as parent:
    parent.connect(resource_sharer._resource_sharer._address)
time.sleep(0.3)
"""
    command = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
