"""Other systems than the developer's: without POSIX modules, with small shared memory, other encodings and threads."""

import ctypes
import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from benchmark import REPO
from forked import Child, forget, fork
from torch.utils.data import DataLoader, TensorDataset

from tlla import workers
from trainers.harness import memory_peak as memory

SMALL = 1  # MB of shared memory: batches here are 64 times smaller than those that 64 MB are too few for
SYSTEMS = {
    "windows": {"LACKS": "resource fcntl", "START": "spawn", "WORKERS": "1", "PYTHONIOENCODING": "cp1252"},
    "container": {"PYTHONIOENCODING": "ascii"},
}


def core(folder: Path, system: str) -> Child:
    """Runs tests/core.py on new imports of the project in a fork, which saves those of torch."""

    def run(argv: list[str]) -> int:
        forget()
        sys.stdout.reconfigure(encoding=SYSTEMS[system]["PYTHONIOENCODING"])
        os.chdir(folder.parent)
        if system == "container":
            torch.set_num_threads(2)
            if has_small_memory():
                Path("small").touch()
        sys.argv = ["core.py", str(folder)]
        runpy.run_path(str(REPO / "tests/core.py"), run_name="__main__")
        return 0

    return fork(run, out=folder.parent / "out", **SYSTEMS[system])


def has_small_memory() -> bool:
    """Makes /dev/shm small for this process alone; False where that cannot be done."""
    if not hasattr(ctypes.CDLL(None), "unshare") or ctypes.CDLL(None).unshare(0x20000):  # CLONE_NEWNS
        return False
    commands = ("mount --make-rprivate /", f"mount -t tmpfs -o size={SMALL}m tmpfs /dev/shm")
    return all(subprocess.run(command.split(), capture_output=True).returncode == 0 for command in commands)


@pytest.fixture(scope="module")
def found() -> dict[str, Path]:
    """Folders of the systems that have run, by name."""
    return {}


@pytest.mark.first
@pytest.mark.parametrize("system", SYSTEMS)
def test_the_core_runs_on(system, found, tmp_path):
    folder = tmp_path / "core"
    child = core(folder, system)
    assert child.wait() == 0 and "Traceback" not in child.error, child.error[-3000:]
    small = (tmp_path / "small").exists()
    outcome = json.loads((folder / "found.json").read_text(encoding="utf-8"))
    assert set(outcome["codes"].values()) == {0}, outcome["codes"]
    assert 50 < outcome["peak_mb"] < 10_000
    escaped = "gr\\xf6\\xdfer" if system == "container" else "größer"
    assert escaped in (tmp_path / "out").read_text(SYSTEMS[system]["PYTHONIOENCODING"])
    assert ("through pipes" in child.error) == small
    found[system] = rows(folder)
    for other in found.values():  # neither the system nor the way of the batches changes a number
        assert other == found[system]
    if system == "container" and not small:
        pytest.skip("all ran, but /dev/shm can be made small for one process by root alone, and not in every container")


def rows(folder: Path) -> list[str]:
    """Labels and predictions of the test."""
    lines = (folder / "TLLA/seed1/predictions_test.csv").read_text(encoding="utf-8").splitlines()
    return [line.split(",")[:4] for line in lines]


@pytest.mark.parametrize("free", (10**12, 1000))
def test_a_batch_is_the_same_by_shared_memory_and_by_pipe(monkeypatch, capfd, free):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(67_108_864, 0, free))
    workers._note_once.cache_clear()
    data = TensorDataset(torch.arange(7_000.0).view(7, 1_000), torch.arange(7))
    loader = workers.fit_workers(DataLoader(data, batch_size=3, num_workers=2))
    plain = list(DataLoader(data, batch_size=3))
    for (pixels, labels), (expected, names) in zip(loader, plain, strict=True):
        assert torch.equal(pixels, expected) and torch.equal(labels, names)
        assert pixels.is_shared() == (free > 1000)
    assert capfd.readouterr().err.count("note: /dev/shm (67 MB)") == (free == 1000)


class Usage:
    """As of getrusage on both systems: the same 984 MB."""

    RUSAGE_SELF = 0

    def __init__(self, maxrss):
        self.ru_maxrss = maxrss

    def getrusage(self, who):
        return self


@pytest.mark.parametrize(
    ("platform", "resource", "expected"),
    [("darwin", Usage(984_000_000), 984.0), ("freebsd14", Usage(960_937.5), 984.0), ("win32", None, 1234.5)],
)
def test_peak_memory_is_in_mb_on_every_system(monkeypatch, platform, resource, expected):
    class Elsewhere:
        def __init__(self, path):
            raise FileNotFoundError(path)

    class Memory:
        peak_wset = 1_234_500_000

    monkeypatch.setattr(memory, "Path", Elsewhere)
    monkeypatch.setattr(memory, "resource", resource)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(psutil.Process, "memory_info", lambda self: Memory)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert memory.peak_memory_mb(torch.device("cpu")) == expected
