"""Other systems than the developer's: without POSIX modules, with small shared memory, other encodings and threads."""

import ast
import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from benchmark import REPO
from torch.utils.data import DataLoader, TensorDataset

from tlla import workers
from trainers.harness import memory_peak as memory

PROGRAM = ("tlla", "trainers", "datasets", "report", "sweeps", "benchmarks", "scripts", "toolkit/dassl")
SMALL = 1  # MB of shared memory: batches here are 64 times smaller than those that 64 MB are too few for
SYSTEMS = {
    "windows": {"LACKS": "resource fcntl", "START": "spawn", "WORKERS": "1", "PYTHONIOENCODING": "cp1252"},
    "container": {"PYTHONIOENCODING": "ascii", "OMP_NUM_THREADS": "2"},
}


def core(folder: Path, environment: dict[str, str], prefix: str = "") -> subprocess.CompletedProcess:
    """Runs tests/core.py; EncodingWarning names files that are opened in the system's encoding."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO), "PYTHONWARNDEFAULTENCODING": "1"} | environment
    command = [sys.executable, "-W", "ignore", "-W", "default::EncodingWarning", str(REPO / "tests/core.py"), folder]
    if prefix:
        command = ["unshare", "-m", "sh", "-c", f'{prefix} && exec "$@"', "sh", *command]
    encoding = environment.get("PYTHONIOENCODING", "utf-8")
    return subprocess.run(command, cwd=folder.parent, env=env, capture_output=True, encoding=encoding, timeout=600)


def mount_small() -> str:
    """A shell command that makes /dev/shm small for the processes of `unshare -m`; "" where that cannot be done."""
    mount = f"mount -t tmpfs -o size={SMALL}m tmpfs /dev/shm"
    done = shutil.which("unshare") and subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True)
    return mount if done and done.returncode == 0 else ""


@pytest.fixture(scope="module")
def found() -> dict[str, Path]:
    """Folders of the systems that have run, by name."""
    return {}


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_core_runs_on(system, found, tmp_path_factory):
    folder = tmp_path_factory.mktemp("system") / "core"
    small = mount_small() if system == "container" else ""
    done = core(folder, SYSTEMS[system], small)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr[-3000:]
    outcome = json.loads((folder / "found.json").read_text(encoding="utf-8"))
    assert set(outcome["codes"].values()) == {0}, outcome["codes"]
    assert 50 < outcome["peak_mb"] < 10_000
    escaped = "gr\\xf6\\xdfer" if system == "container" else "größer"
    assert escaped in done.stdout
    assert ("through pipes" in done.stderr) == bool(small)
    opened = [line for line in done.stderr.splitlines() if "EncodingWarning" in line and str(REPO) in line]
    assert not [line for line in opened if "/tests/" not in line and "site-packages" not in line], opened
    found[system] = folder
    for other in found.values():  # neither the system nor the way of the batches changes a number
        assert rows(other) == rows(folder)
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


@functools.cache
def calls() -> list[tuple[Path, ast.Call]]:
    files = [*REPO.glob("*.py"), *(p for folder in PROGRAM for p in (REPO / folder).rglob("*.py"))]
    nodes = ((file, node) for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    return [(file, node) for file, node in nodes if isinstance(node, ast.Call)]


def test_every_loader_passes_where_batches_are_fitted():
    """So that a new one meets no full /dev/shm, and does not end with tracebacks at Ctrl-C."""
    made = {file for file, call in calls() if ast.unparse(call.func) == "DataLoader"}
    assert len(made) >= 4
    assert not [str(file) for file in made if "fit_workers(" not in file.read_text(encoding="utf-8")]


def test_texts_are_read_and_written_in_one_encoding_on_every_system():
    """Not in the system's own, which cannot hold every class name."""
    wrong = []
    for file, call in calls():
        name = ast.unparse(call.func).rpartition(".")[2]
        method, keywords = isinstance(call.func, ast.Attribute), {keyword.arg for keyword in call.keywords}
        modes = [getattr(word, "value", "b") for word in call.args[1 - method :][:1]]
        text = name in ("read_text", "write_text") and method or name == "open" and not modes or modes == ["w"]
        other = ast.unparse(call.func) in ("Image.open", "tarfile.open", "os.open", "self.open")
        if name in ("open", "read_text", "write_text") and text and not other and "encoding" not in keywords:
            wrong.append(f"{file.relative_to(REPO)}:{call.lineno} {ast.unparse(call)}")
    assert not wrong, "\n".join(wrong)


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
