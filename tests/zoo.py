"""Building a registered dataset as train.py does."""

from dassl.data.datasets import build_dataset
from dassl.utils import set_random_seed

import train


def build(name, root, *pairs, seed=1, shots=-1):
    """The dataset `name` on `root`; `pairs` are KEY VALUE pairs below DATASET."""
    keyed = [f"DATASET.{x}" if i % 2 == 0 else str(x) for i, x in enumerate(pairs)]
    argv = ["--trainer", "SAPT", "--root", str(root), "--seed", str(seed), "DATASET.NAME", name]
    cfg = train.build_cfg(train.parse_args([*argv, "DATASET.NUM_SHOTS", str(shots), *keyed]))
    if seed >= 0:
        set_random_seed(seed)
    return build_dataset(cfg)
