"""The configuration tree: default values under the names that YAML files and command lines use."""

from yacs.config import CfgNode

from .defaults import DEFAULTS, TRAINER_DEFAULTS

__all__ = ["get_cfg_default"]


def get_cfg_default() -> CfgNode:
    """Returns a new configuration tree with the default values; changing it changes no other tree."""
    return CfgNode({**DEFAULTS, "TRAINER": {"NAME": "", **TRAINER_DEFAULTS}})
