"""Optimizers by name."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Optimizer
from yacs.config import CfgNode


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
    adam = {"betas": (optim_cfg.ADAM_BETA1, optim_cfg.ADAM_BETA2)}
    sgd = {"dampening": optim_cfg.SGD_DAMPNING, "nesterov": optim_cfg.SGD_NESTEROV}
    choices = {
        "adam": (torch.optim.Adam, adam),
        "amsgrad": (torch.optim.Adam, {**adam, "amsgrad": True}),
        "sgd": (torch.optim.SGD, {**sgd, "momentum": optim_cfg.MOMENTUM}),
        "rmsprop": (torch.optim.RMSprop, {"momentum": optim_cfg.MOMENTUM, "alpha": optim_cfg.RMSPROP_ALPHA}),
        "radam": (torch.optim.RAdam, {**adam, "decoupled_weight_decay": True}),
        "adamw": (torch.optim.AdamW, adam),
    }
    if optim_cfg.NAME not in choices:
        raise ValueError(f"OPTIM.NAME must be one of {tuple(choices)}, but got {optim_cfg.NAME!r}")
    if optim_cfg.STAGED_LR:
        raise ValueError("OPTIM.STAGED_LR must be False, but got True: all layers learn at OPTIM.LR here")
    if param_groups is None:
        param_groups = model.parameters() if isinstance(model, nn.Module) else model
    kind, settings = choices[optim_cfg.NAME]
    return kind(param_groups, lr=optim_cfg.LR, weight_decay=optim_cfg.WEIGHT_DECAY, **settings)
