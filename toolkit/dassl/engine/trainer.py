"""The trainers under the module name that projects import them from."""

from dassl.modeling.simple_net import SimpleNet

from .base import TrainerBase
from .loops import TrainerX, TrainerXU
from .simple import SimpleTrainer

__all__ = ["SimpleNet", "SimpleTrainer", "TrainerBase", "TrainerX", "TrainerXU"]
