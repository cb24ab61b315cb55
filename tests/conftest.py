"""Shared pieces: a tiny CLIP with random weights, in OpenAI's architecture."""

import signal

import pytest
import torch

import parse_test_res
from tlla.backbones.openai_package import CLIP

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
