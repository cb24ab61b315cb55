"""Helpers: files, registries, random numbers, checkpoints, log, meters."""

from .checkpoint import (
    CheckpointError,
    MissingCheckpointError,
    load_checkpoint,
    resume_from_checkpoint,
    save_checkpoint,
)
from .logger import Logger, setup_logger
from .meters import AverageMeter, MetricMeter
from .registry import Registry, RegistryError, check_availability, get_most_similar_str_to_a_from_b
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
from .torchtools import (
    count_num_param,
    init_network_weights,
    load_pretrained_weights,
    open_all_layers,
    open_specified_layers,
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
    "count_num_param",
    "derive_seed",
    "get_most_similar_str_to_a_from_b",
    "init_network_weights",
    "listdir_nohidden",
    "load_checkpoint",
    "load_pretrained_weights",
    "mkdir_if_missing",
    "open_all_layers",
    "open_specified_layers",
    "read_image",
    "read_json",
    "resume_from_checkpoint",
    "save_checkpoint",
    "seeded",
    "set_random_seed",
    "setup_logger",
    "tolist_if_not",
    "write_json",
]
