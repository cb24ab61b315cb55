"""The plain suite sees no GPU, nor do its workers; pytest -m gpu does. Nothing that runs here imports torch."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import asks_for_gpu, gpu_tests_device

HERE = Path(__file__).resolve()
SPY = """
import os, sys
from pathlib import Path
from types import SimpleNamespace

def pytest_configure(config):
    global early
    early = "torch" in sys.modules  # it might have looked for a GPU before that was hidden

def pytest_collection_finish(session):
    process = os.environ.get("PYTEST_XDIST_WORKER", "main")
    found = os.environ["CUDA_VISIBLE_DEVICES"], early, sorted(item.name for item in session.items)
    Path(__file__).with_name(process + ".txt").write_text(repr(found))
    sys.modules["torch"] = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: False))  # imported in no time
"""


def session(tmp_path, *words, **environment):
    """What pytest prints on this file, and what each process found: the GPUs, whether torch came first, tests."""
    (tmp_path / "spy.py").write_text(SPY)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_", "TLLA_GPU"))}
    env |= {"PYTHONPATH": str(tmp_path), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # as they need seconds
    env |= {"CUDA_VISIBLE_DEVICES": "-1", **environment}  # -1: none, by another name
    own = f"--basetemp={tmp_path / 'own'}"  # else it removes what earlier sessions have left
    command = [sys.executable, "-m", "pytest", "-p", "spy", own, str(HERE), *words]
    done = subprocess.run(command, cwd=HERE.parents[1], env=env, capture_output=True, text=True)
    assert done.returncode in (0, 5), done.stdout + done.stderr  # 5: no tests
    return done.stdout, {path.stem: eval(path.read_text()) for path in tmp_path.glob("*.txt")}


@pytest.mark.gpu
def test_torch_sees_the_gpu(card):
    import torch

    assert torch.ones(1, device=card).item() == 1


def test_the_plain_suite_and_its_workers_see_no_gpu(tmp_path):
    pytest.importorskip("xdist")
    _, found = session(tmp_path, "-p", "xdist.plugin", "-n", "1", "-k", "test_torch_sees_the_gpu")
    assert found["gw0"] == ("", False, [])


def test_the_gpus_tests_see_it_and_are_skipped_in_a_sentence_without_one(tmp_path):
    out, found = session(tmp_path, PYTEST_ADDOPTS="-m gpu")
    assert found["main"] == ("-1", False, ["test_torch_sees_the_gpu"])
    assert "1 tests were skipped, as each needs a CUDA GPU" in out and "passed" not in out


@pytest.mark.parametrize("chosen", (None, "cpu"))
@pytest.mark.parametrize(
    ("expression", "asked"),
    [("", False), ("gpu", True), ("gpu and not slow", True), ("not gpu", False), ("gpus", False), ("x or gpu", True)],
)
def test_the_device_follows_from_the_expression_and_the_environment(monkeypatch, expression, asked, chosen):
    config = SimpleNamespace(getoption={"markexpr": expression}.get)
    monkeypatch.delenv("TLLA_GPU_TESTS_DEVICE", raising=False)
    if chosen:
        monkeypatch.setenv("TLLA_GPU_TESTS_DEVICE", chosen)
    assert asks_for_gpu(config) == asked
    assert gpu_tests_device(config) == ("cuda" if asked and not chosen else "cpu")
