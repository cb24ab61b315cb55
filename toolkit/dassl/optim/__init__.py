"""Optimizers and learning-rate schedules from the OPTIM settings."""

from .lr_scheduler import LRSchedule, build_lr_scheduler
from .optimizer import build_optimizer

__all__ = ["LRSchedule", "build_lr_scheduler", "build_optimizer"]
