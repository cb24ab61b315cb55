"""Shared pieces: a tiny CLIP with random weights, in OpenAI's architecture; which tests see the GPU.

What imports torch is imported in functions: pytest_configure must hide the GPU before.
"""

import copy
import functools
import gc
import os
import re
import signal
import sys
from typing import TYPE_CHECKING

import pytest

import parse_test_res

if TYPE_CHECKING:
    from tlla.backbones.openai_package import CLIP

signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start jobs in the background with Ctrl-C ignored
gc.disable()  # until all is imported: looking through a growing heap takes a quarter of that time
# Containers often set it: then each process compiles the project and rewrites the assertions anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

TINY_VIT = (32, 32, 2, 64, 16, 77, 49408, 64, 1, 2)  # width must be at least 64: heads = width // 64
TINY_RESNET = (32, 32, (1, 1, 1, 1), 8, None, 77, 49408, 64, 1, 2)
NEEDS_GPU = "needs a CUDA GPU"
CLASSNAMES = ["dog", "golden_retriever", "sea anemone", "T-shirt", "fire engine, fire truck", "u.s. mail"]


def asks_for_gpu(config: pytest.Config) -> bool:
    """Whether only tests marked gpu are to run."""
    return bool(re.search(r"(?<!not )\bgpu\b", config.getoption("markexpr")))


def gpu_tests_device(config: pytest.Config) -> str:
    """Where tests marked gpu run: "cuda" under pytest -m gpu, unless the CPU is to stand in for it."""
    return os.environ.get("TLLA_GPU_TESTS_DEVICE", "cuda") if asks_for_gpu(config) else "cpu"


def pytest_configure(config):
    """Hides the GPU, also from workers and subprocesses, as the tests compare with numbers of CPUs."""
    if gpu_tests_device(config) == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ.pop("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", None)  # of NVIDIA's images: no flag turns its TF32 off


def pytest_ignore_collect(collection_path, config):
    """Imports only the files of the GPU's tests for -m gpu: others need packages that a GPU machine may lack."""
    other = collection_path.suffix == ".py" and not collection_path.name.startswith("test_gpu_")
    return True if other and asks_for_gpu(config) else None


def pytest_collection_modifyitems(config, items):
    """Without -m gpu leaves out the GPU's tests but for quick ones (dry=True), and begins with the longest."""
    if asks_for_gpu(config):
        return
    marks = ((item, item.get_closest_marker("gpu")) for item in items)
    left_out = [item for item, mark in marks if mark and not mark.kwargs.get("dry")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
    items.sort(key=lambda item: item.get_closest_marker("first") is None)


def pytest_collection_finish():
    """What is imported is not looked through again, nor copied by a fork that looks through it."""
    gc.freeze()
    gc.set_threshold(5000, 5, 5)
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Skips the GPU's tests where there is none, before their fixtures are made."""
    if item.get_closest_marker("gpu") and gpu_tests_device(item.config) != "cpu":
        import torch

        if not torch.cuda.is_available():
            pytest.skip(NEEDS_GPU)


def pytest_terminal_summary(terminalreporter, config):
    """Says why the GPU's tests have not run."""
    skipped = terminalreporter.stats.get("skipped", [])
    if asks_for_gpu(config) and (number := sum(NEEDS_GPU in str(report.longrepr) for report in skipped)):
        terminalreporter.write_line(f"{number} tests were skipped, as each {NEEDS_GPU}")


@pytest.fixture
def device(pytestconfig):
    """The device of a test marked gpu: a GPU, or the CPU in its place. Products are exact; all flags are restored."""
    import torch
    from gpu import flags

    with flags():
        yield torch.device(gpu_tests_device(pytestconfig))


@pytest.fixture
def card(device):
    """The device of a test of what only a GPU has."""
    if device.type == "cpu":
        pytest.skip(NEEDS_GPU)
    return device


def make_clip(arch: tuple, seed: int = 0) -> "CLIP":
    """OpenAI's CLIP in fp32 with random weights; a small one is drawn once."""
    return copy.deepcopy(_drawn(arch, seed)) if arch[7] <= 64 else _drawn.__wrapped__(arch, seed)


@functools.lru_cache(maxsize=4)
def _drawn(arch: tuple, seed: int) -> "CLIP":
    import torch

    from tlla.backbones.openai_package import CLIP

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return CLIP(*arch).float().eval().requires_grad_(False)


@pytest.fixture(scope="session")
def tiny_clip() -> "CLIP":
    return make_clip(TINY_VIT)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Data, weights and a config, and train.py on them."""
    from benchmark import Workplace  # which imports this file

    return Workplace(tmp_path_factory.mktemp("work"))


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """The folder of a stand-in of train.py."""
    import sweep_stand_in

    sweep_stand_in.install(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    from dassl.utils import set_random_seed

    set_random_seed(0)


@pytest.fixture
def call(capsys):
    """Runs parse_test_res.py: exit code, stdout, stderr."""

    def run(*argv) -> tuple[int, str, str]:
        capsys.readouterr()
        code = parse_test_res.main([str(word) for word in argv])
        return code, *capsys.readouterr()

    return run


def draw_nothing(patch: pytest.MonkeyPatch) -> None:
    """Pictures, which take a second each, are not drawn; those of other tests are, but for streams', without a file."""
    from report import style  # which imports matplotlib

    for name in ("cost", "curves", "landscape", "margin", "reliability", "settings"):
        patch.setattr(f"report.commands.{name}.draw", lambda *args, **_: [])
    patch.setattr(style, "save", lambda figure, path: style.plt.close(figure) or [])


@pytest.fixture
def undrawn(monkeypatch):
    """For tests of numbers."""
    draw_nothing(monkeypatch)


@pytest.fixture
def loose(monkeypatch):
    """The parts of pictures are not fitted to each other, which takes most of the time; landscapes' are."""
    from report import style

    monkeypatch.setitem(style.plt.rcParams, "figure.constrained_layout.use", False)
