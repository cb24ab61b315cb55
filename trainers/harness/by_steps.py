"""A schedule that goes by steps."""

from dassl.optim import build_lr_scheduler, build_optimizer
from torch import nn
from yacs.config import CfgNode


def build_by_steps(learned: nn.Module, optim_cfg: CfgNode, steps: int) -> tuple:
    """Optimizer and schedule as OPTIM says, the schedule stretched from epochs to their `steps` steps."""
    optim_cfg = optim_cfg.clone()
    optim_cfg.defrost()
    optim_cfg.MAX_EPOCH *= steps
    optim_cfg.WARMUP_EPOCH *= steps
    optim_cfg.STEPSIZE = tuple(steps * size for size in optim_cfg.STEPSIZE)
    optim = build_optimizer(learned, optim_cfg)
    return optim, build_lr_scheduler(optim, optim_cfg)
