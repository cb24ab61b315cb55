"""The registry of datasets."""

from typing import Any

from yacs.config import CfgNode

from dassl.utils import Registry

DATASET_REGISTRY = Registry("DATASET")


def build_dataset(cfg: CfgNode) -> Any:
    """Builds the dataset that DATASET.NAME names."""
    return DATASET_REGISTRY.build(cfg.DATASET.NAME, cfg)
