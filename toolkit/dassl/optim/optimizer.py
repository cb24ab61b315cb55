"""Optimizers by name."""

import warnings
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
        param_groups: Taken instead of ``model`` if given; STAGED_LR does not apply to them.

    Raises:
        ValueError: Unknown name, or STAGED_LR without a module or with unknown NEW_LAYERS.
    """
    if optim_cfg.NAME not in _BUILDERS:
        raise ValueError(f"OPTIM.NAME must be one of {AVAI_OPTIMS}, but got {optim_cfg.NAME!r}")
    if param_groups is not None:
        if optim_cfg.STAGED_LR:
            warnings.warn("OPTIM.STAGED_LR is ignored, as param_groups are given: set their lr there", stacklevel=2)
        params = param_groups
    elif optim_cfg.STAGED_LR:
        params = _staged_groups(model, optim_cfg)
    else:
        params = model.parameters() if isinstance(model, nn.Module) else model
    return _BUILDERS[optim_cfg.NAME](params, optim_cfg)


def _staged_groups(model: Any, cfg: CfgNode) -> list[dict]:
    """Two groups: old layers at LR * BASE_LR_MULT, and the children named in NEW_LAYERS at LR."""
    if isinstance(model, nn.DataParallel):
        model = model.module
    if not isinstance(model, nn.Module):
        raise ValueError(f"OPTIM.STAGED_LR True needs a module, but got a {type(model).__name__}")
    new_layers = (cfg.NEW_LAYERS,) if isinstance(cfg.NEW_LAYERS, str) else tuple(cfg.NEW_LAYERS)
    children = dict(model.named_children())
    unknown = [name for name in new_layers if name not in children]
    if unknown:
        raise ValueError(f"OPTIM.NEW_LAYERS must be among {tuple(children)}, but got {unknown}")
    old = [p for name, child in children.items() if name not in new_layers for p in child.parameters()]
    new = [p for name, child in children.items() if name in new_layers for p in child.parameters()]
    return [{"params": old, "lr": cfg.LR * cfg.BASE_LR_MULT}, {"params": new}]
