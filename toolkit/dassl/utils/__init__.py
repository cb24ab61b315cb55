"""Helpers: files, registries, random numbers, checkpoints, log, meters."""

from .checkpoint import (
    CheckpointError,
    MissingCheckpointError,
    load_checkpoint,
    load_pretrained_weights,
    save_checkpoint,
)
from .logger import Logger, setup_logger
from .meters import AverageMeter, MetricMeter
from .registry import Registry, RegistryError, check_availability
from .seeding import derive_seed, seeded, set_random_seed
from .tools import (
    ImageError,
    check_isfile,
    collect_env_info,
    listdir_nohidden,
    mkdir_if_missing,
    read_image,
    read_json,
    tolist_if_not,
    write_json,
)

__all__ = [
    "AverageMeter",
    "CheckpointError",
    "ImageError",
    "Logger",
    "MetricMeter",
    "MissingCheckpointError",
    "Registry",
    "RegistryError",
    "check_availability",
    "check_isfile",
    "collect_env_info",
    "derive_seed",
    "listdir_nohidden",
    "load_checkpoint",
    "load_pretrained_weights",
    "mkdir_if_missing",
    "read_image",
    "read_json",
    "save_checkpoint",
    "seeded",
    "set_random_seed",
    "setup_logger",
    "tolist_if_not",
    "write_json",
]
