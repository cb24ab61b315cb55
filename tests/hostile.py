"""Runs an entry point in this process, and judges how it has taken hostile or broken input.

A fault of the user must give one sentence on stderr that names what is wrong, exit code 2 (or the code that is said),
no traceback, no file that is half written, and neither hang nor fill the memory.
"""

import contextlib
import importlib
import json
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

MODULES = {
    "train": "train",
    "predict": "tlla.predict.command",
    "parse": "parse_test_res",
    "datasets": "datasets.__main__",
    "sweeps": "sweeps.__main__",
    "report": "report.__main__",
}
FOLDER = ("--dataset-config-file", "configs/datasets/image_folder.yaml")  # of one's own images
SENTENCE = re.compile(r"^(?:[\w. -]+: )?error: (.+)$", re.MULTILINE)  # argparse puts the program's name in front
HANGS = 180  # seconds after which a test waits for nothing that will come
LONGEST = 1500  # characters that still are a sentence; a dump of all that is known is none


@dataclass(frozen=True)
class Outcome:
    """What an entry point returned and printed."""

    code: int
    out: str
    err: str


def call(capfd: pytest.CaptureFixture, entry: str, *argv: object) -> Outcome:
    """Runs an entry point of MODULES in bounded time and memory; what it raises but argparse's exit fails the test."""
    capfd.readouterr()
    main = importlib.import_module(MODULES[entry]).main
    with bounded():
        try:
            code = main([str(word) for word in argv])
        except SystemExit as stop:
            code = stop.code
    return Outcome(code, *capfd.readouterr())


def refused(capfd: pytest.CaptureFixture, entry: str, *argv: object, says: tuple = (), code: int = 2) -> str:
    """Runs, expects one sentence that holds all of `says`, and returns it."""
    outcome = call(capfd, entry, *argv)
    assert outcome.code == code, (outcome.code, outcome.err[-1500:])
    assert "Traceback" not in outcome.out + outcome.err, outcome.err
    sentences = SENTENCE.findall(outcome.err)
    assert len(sentences) == 1, outcome.err
    assert len(sentences[0]) <= LONGEST, sentences[0]
    for part in says:
        assert str(part) in sentences[0], (part, sentences[0])
    return sentences[0]


def fails(capfd: pytest.CaptureFixture, argv: list[str], code: int = 2) -> str:
    """train.py refuses, and returns its sentence."""
    return refused(capfd, "train", *argv, code=code)


def accepted(capfd: pytest.CaptureFixture, entry: str, *argv: object) -> Outcome:
    """Runs, and expects success."""
    outcome = call(capfd, entry, *argv)
    assert outcome.code == 0 and "Traceback" not in outcome.err, outcome.err[-3000:]
    return outcome


def half_written(folder: Path) -> list[str]:
    """Files below a folder that are not whole, or are left from writing: [] is as it should be."""
    return [str(path) for path in sorted(folder.rglob("*")) if path.is_file() and not _whole(path)]


def _whole(path: Path) -> bool:
    if path.name.endswith((".part", ".partial")):
        return False
    try:
        if path.suffix == ".json":
            json.loads(path.read_text())
        if path.suffix == ".pt" or "pth.tar" in path.name:
            torch.load(path, weights_only=True)
        return path.suffix != ".csv" or path.read_bytes().endswith(b"\n")
    except Exception:
        return False


@contextlib.contextmanager
def bounded(megabytes: int = 400) -> Iterator[None]:
    """Fails a test that hangs, as one that waits for the other end of a pipe does, or fills the memory (on Linux)."""

    def stop(*_) -> None:
        pytest.fail(f"it still ran after {HANGS} s", pytrace=False)

    peak = Path("/proc/self/clear_refs")
    measured = os.access(peak, os.W_OK)
    if measured:
        peak.write_text("5")  # lets the peak start at what is in use now
    start = _peak_mb() if measured else 0.0
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(HANGS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert not measured or _peak_mb() - start < megabytes


def _peak_mb() -> float:
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
