"""Optimizers by name."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from yacs.config import CfgNode


def _adaptive(optimizer: type, **fixed: Any) -> Callable[..., Optimizer]:
    """A builder for an optimizer of Adam's kind."""

    def build(params: Any, cfg: CfgNode) -> Optimizer:
        betas = (cfg.ADAM_BETA1, cfg.ADAM_BETA2)
        return optimizer(params, lr=cfg.LR, weight_decay=cfg.WEIGHT_DECAY, betas=betas, **fixed)

    return build


def _sgd(params: Any, cfg: CfgNode) -> Optimizer:
    return torch.optim.SGD(
        params,
        lr=cfg.LR,
        momentum=cfg.MOMENTUM,
        weight_decay=cfg.WEIGHT_DECAY,
        dampening=cfg.SGD_DAMPNING,
        nesterov=cfg.SGD_NESTEROV,
    )


def _rmsprop(params: Any, cfg: CfgNode) -> Optimizer:
    return torch.optim.RMSprop(
        params, lr=cfg.LR, momentum=cfg.MOMENTUM, weight_decay=cfg.WEIGHT_DECAY, alpha=cfg.RMSPROP_ALPHA
    )


_BUILDERS = {
    "adam": _adaptive(torch.optim.Adam),
    "amsgrad": _adaptive(torch.optim.Adam, amsgrad=True),
    "sgd": _sgd,
    "rmsprop": _rmsprop,
    "radam": _adaptive(torch.optim.RAdam, decoupled_weight_decay=True),
    "adamw": _adaptive(torch.optim.AdamW),
}
AVAI_OPTIMS = tuple(_BUILDERS)


def build_optimizer(
    model: nn.Module | Iterable, optim_cfg: CfgNode, param_groups: Iterable[dict] | None = None
) -> Optimizer:
    """Builds the optimizer that OPTIM.NAME names.

    Args:
        model: A module, or an iterable of parameters or of parameter groups.
        optim_cfg: The OPTIM node.
        param_groups: Taken instead of ``model`` if given.

    Raises:
        ValueError: Unknown name, or STAGED_LR, which is not here.
    """
    if optim_cfg.NAME not in _BUILDERS:
        raise ValueError(f"OPTIM.NAME must be one of {AVAI_OPTIMS}, but got {optim_cfg.NAME!r}")
    if optim_cfg.STAGED_LR:
        raise ValueError("OPTIM.STAGED_LR must be False, but got True: all layers learn at OPTIM.LR here")
    if param_groups is None:
        param_groups = model.parameters() if isinstance(model, nn.Module) else model
    return _BUILDERS[optim_cfg.NAME](param_groups, optim_cfg)
