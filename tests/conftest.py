"""Shared pieces: a tiny CLIP with random weights, in OpenAI's architecture."""

import functools
import signal

import pytest
import torch

import parse_test_res
import tlla.clip
from tlla.backbones.openai_package import CLIP
from tlla.backbones.weights import read_state_dict

# Most runs of a process have the same weights: a file is read once.
_read = functools.lru_cache(maxsize=3)(lambda path, *changed: read_state_dict(path))
tlla.clip.read_state_dict = lambda path: dict(_read(path, path.stat().st_mtime_ns, path.stat().st_size))
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start jobs in the background with Ctrl-C ignored

TINY_VIT = (32, 32, 2, 64, 16, 77, 49408, 64, 1, 2)  # width must be at least 64: heads = width // 64
TINY_RESNET = (32, 32, (1, 1, 1, 1), 8, None, 77, 49408, 64, 1, 2)
CLASSNAMES = ["dog", "golden_retriever", "sea anemone", "T-shirt", "fire engine, fire truck", "u.s. mail"]


def make_clip(arch: tuple, seed: int = 0) -> CLIP:
    """OpenAI's CLIP in fp32 with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = CLIP(*arch).float().eval().requires_grad_(False)
    return model


@pytest.fixture(scope="session")
def tiny_clip() -> CLIP:
    return make_clip(TINY_VIT)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Data, weights and a config, and train.py on them."""
    from benchmark import Workplace  # which imports this file

    return Workplace(tmp_path_factory.mktemp("work"))


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def call(capsys):
    """Runs parse_test_res.py: exit code, stdout, stderr."""

    def run(*argv) -> tuple[int, str, str]:
        capsys.readouterr()
        code = parse_test_res.main([str(word) for word in argv])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def undrawn(monkeypatch):
    """For tests of numbers: pictures are not drawn, which takes a second each."""
    from report import style  # which imports matplotlib

    monkeypatch.setattr(style, "save", lambda figure, path: style.plt.close(figure) or [])
