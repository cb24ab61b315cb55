"""The learning rate as a plain function of the epoch, and an object that applies it to an optimizer.

Independent of torch's own scheduler classes, whose signatures and pickled states change between versions.
"""

import math
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from yacs.config import CfgNode

AVAI_SCHEDS = ("single_step", "multi_step", "cosine")
AVAI_WARMUPS = ("constant", "linear")


class LRSchedule:
    """Sets the learning rate of each parameter group to ``lr_at(epoch, base_lr)``, where epoch counts step() calls.

    Args:
        optimizer: Anything with ``param_groups``; their learning rates now are the base rates.
        lr_at: Function of the epoch (0-based) and a base rate.
    """

    def __init__(self, optimizer: Optimizer, lr_at: Callable[[int, float], float]):
        self.optimizer = optimizer
        self.lr_at = lr_at
        # A scheduler built before on this optimizer has left the base rate there.
        self.base_lrs = [group.setdefault("initial_lr", group["lr"]) for group in optimizer.param_groups]
        self.last_epoch = 0
        self._apply()

    def step(self, epoch: int | None = None) -> None:
        """Goes to the next epoch, or to the one given."""
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        self._apply()

    def get_last_lr(self) -> list[float]:
        """The rates in use, one for each parameter group."""
        return [self.lr_at(self.last_epoch, base_lr) for base_lr in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """The epoch and the base rates: plain numbers."""
        return {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes back to a saved epoch; the base rates stay this run's, and so does the schedule.

        Raises:
            ValueError: The state is another scheduler's, or of another number of parameter groups.
        """
        if not {"last_epoch", "base_lrs"} <= set(state_dict):
            raise ValueError(f"expected the keys last_epoch and base_lrs, but got {sorted(map(str, state_dict))}")
        if len(state_dict["base_lrs"]) != len(self.base_lrs):
            raise ValueError(f"expected {len(self.base_lrs)} base rates, but got {len(state_dict['base_lrs'])}")
        self.last_epoch = state_dict["last_epoch"]
        self._apply()

    def _apply(self) -> None:
        for group, lr in zip(self.optimizer.param_groups, self.get_last_lr(), strict=True):
            group["lr"] = lr


def build_lr_scheduler(optimizer: Optimizer, optim_cfg: CfgNode) -> LRSchedule:
    """Builds the schedule that LR_SCHEDULER and the WARMUP settings describe; step() it once an epoch.

    Raises:
        ValueError: A setting has a value that is not allowed.
    """
    warmup_epoch = max(optim_cfg.WARMUP_EPOCH, 0)
    start = 0 if optim_cfg.WARMUP_RECOUNT else warmup_epoch  # where the main schedule stands when the warm-up is over
    decay = _decay(optim_cfg, start)
    warm_up = _warm_up(optim_cfg) if warmup_epoch else None

    def lr_at(epoch: int, base_lr: float) -> float:
        if epoch < warmup_epoch:
            return warm_up(epoch, base_lr)
        return base_lr * decay(start + epoch - warmup_epoch)

    return LRSchedule(optimizer, lr_at)


def _warm_up(optim_cfg: CfgNode) -> Callable[[int, float], float]:
    """The learning rate during the warm-up."""
    if optim_cfg.WARMUP_TYPE not in AVAI_WARMUPS:
        raise ValueError(f"OPTIM.WARMUP_TYPE must be one of {AVAI_WARMUPS}, but got {optim_cfg.WARMUP_TYPE!r}")
    if optim_cfg.WARMUP_TYPE == "constant":
        constant = optim_cfg.WARMUP_CONS_LR
        return lambda epoch, base_lr: constant
    min_lr, length = optim_cfg.WARMUP_MIN_LR, optim_cfg.WARMUP_EPOCH
    return lambda epoch, base_lr: base_lr * epoch / length if epoch else min_lr


def _decay(optim_cfg: CfgNode, start: int) -> Callable[[int], float]:
    """The factor on the base rate as a function of the main schedule's epoch t >= start; it is 1 at t = start.

    With WARMUP_RECOUNT False the published runs leave out what lies before ``start`` (they don't make up for steps
    that fall into the warm-up, and a cosine begins at the full rate), so the curves are ratios f(t) / f(start).
    """
    name, gamma, max_epoch = optim_cfg.LR_SCHEDULER, optim_cfg.GAMMA, optim_cfg.MAX_EPOCH
    if name == "cosine":
        cosine = lambda t: 1 + math.cos(math.pi * t / max_epoch)  # noqa: E731
        return lambda t: 1.0 if t == start else cosine(t) / cosine(start)
    if name == "multi_step":
        milestones = _milestones(optim_cfg.STEPSIZE)
        return lambda t: gamma ** sum(start < milestone <= t for milestone in milestones)
    if name == "single_step":
        size = _step_size(optim_cfg.STEPSIZE, max_epoch)
        return lambda t: gamma ** (t // size - start // size)
    raise ValueError(f"OPTIM.LR_SCHEDULER must be one of {AVAI_SCHEDS}, but got {name!r}")


def _step_size(stepsize: Any, max_epoch: int) -> int:
    """The epochs between two decays; 0 or less means never within the run."""
    size = stepsize[-1] if isinstance(stepsize, (list, tuple)) else stepsize
    if not isinstance(size, int):
        raise ValueError(f"OPTIM.STEPSIZE must be an integer, or a list of them, for single_step, but got {stepsize!r}")
    return size if size > 0 else max(max_epoch, 1)


def _milestones(stepsize: Any) -> tuple[int, ...]:
    """The epochs at which multi_step decays."""
    if not isinstance(stepsize, (list, tuple)):
        raise ValueError(f"OPTIM.STEPSIZE must be a list of epochs for multi_step, but got {stepsize!r}")
    return tuple(stepsize)
