"""The trainers under the module name that projects import them from."""

from .base import TrainerBase
from .loops import TrainerX
from .simple import SimpleTrainer

__all__ = ["SimpleTrainer", "TrainerBase", "TrainerX"]
