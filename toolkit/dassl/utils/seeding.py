"""Random numbers that depend only on the run's seed and on what they are for."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def set_random_seed(seed: int) -> None:
    """Seeds the global generators of Python, numpy and torch (CPU and every GPU)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():  # else torch notes the stack of the call for a GPU to come: milliseconds
        torch.cuda.manual_seed_all(seed)


def derive_seed(*parts: int | str) -> int:
    """Mixes numbers and words into a seed in [0, 2**32), the same on every machine and in every version.

    Example:
        ``derive_seed(run_seed, "train_x", epoch)``: neighbouring epochs get unrelated seeds.
    """
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")


def draw_run_seed() -> int:
    """Draws a seed in [0, 2**31) from the operating system, whatever state the generators are in."""
    return random.SystemRandom().randrange(2**31)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Runs a block with the global CPU generators seeded, and puts their old states back afterwards."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would reset the GPUs' generators as well
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
