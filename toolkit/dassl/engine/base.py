"""The skeleton of a trainer: its models with their optimizers and schedules, one step, the loop over epochs."""

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from dassl.utils import tolist_if_not

from .saving import Saving


class TrainerBase(Saving):
    """Holds models by name and runs the loop; a subclass says what an epoch, a step and a test are."""

    def __init__(self):
        self._models: OrderedDict[str, nn.Module] = OrderedDict()
        self._optims: OrderedDict[str, Any] = OrderedDict()
        self._scheds: OrderedDict[str, Any] = OrderedDict()
        self._writer = None

    # Models

    def register_model(
        self, name: str = "model", model: nn.Module | None = None, optim: Any = None, sched: Any = None
    ) -> None:
        """Adds a model, whose state is saved under ``name``, and what trains it.

        Raises:
            AttributeError: ``__init__`` of the base class has not run.
            ValueError: The name is taken.
        """
        if "_models" not in self.__dict__:
            raise AttributeError("register_model() needs super().__init__() to be called before")
        if name in self._models:
            raise ValueError(f"A model named {name!r} is registered already; names so far: {tuple(self._models)}")
        self._models[name], self._optims[name], self._scheds[name] = model, optim, sched

    def get_model_names(self, names: str | list[str] | None = None) -> list[str]:
        """Returns the names given as a list, or all registered ones.

        Raises:
            ValueError: A name is not registered.
        """
        if names is None:
            return list(self._models)
        names = tolist_if_not(names)
        unknown = [name for name in names if name not in self._models]
        if unknown:
            raise ValueError(f"Registered models are {tuple(self._models)}, but got {unknown}")
        return names

    def set_model_mode(self, mode: str = "train", names: str | list[str] | None = None) -> None:
        """Puts models in mode "train", or "eval" (also "test").

        Raises:
            ValueError: Another mode.
        """
        if mode not in ("train", "eval", "test"):
            raise ValueError(f"mode must be one of ('train', 'eval', 'test'), but got {mode!r}")
        for name in self.get_model_names(names):
            self._models[name].train(mode == "train")

    # One step

    def update_lr(self, names: str | list[str] | None = None) -> None:
        """Steps the learning-rate schedules; call it once an epoch, after the last batch."""
        for name in self.get_model_names(names):
            if self._scheds[name] is not None:
                self._scheds[name].step()

    def get_current_lr(self, names: str | list[str] | None = None) -> float:
        """The learning rate of the first model that has an optimizer; 0 if none has."""
        optims = [self._optims[name] for name in self.get_model_names(names)]
        return next((optim.param_groups[0]["lr"] for optim in optims if optim is not None), 0.0)

    def detect_anomaly(self, loss: Tensor) -> None:
        """Stops the run at a loss that is not finite.

        Raises:
            FloatingPointError: It is not; the message says where.
        """
        if not torch.isfinite(loss).all():
            epoch, batch = getattr(self, "epoch", -1) + 1, getattr(self, "batch_idx", -1) + 1
            raise FloatingPointError(
                f"Loss is infinite or NaN! epoch {epoch}, batch {batch}, lr {self.get_current_lr():.4e}, "
                f"loss {loss.detach().float().cpu().tolist()}; try a lower OPTIM.LR, or 32-bit precision"
            )

    def model_zero_grad(self, names: str | list[str] | None = None) -> None:
        """Clears gradients."""
        for name in self.get_model_names(names):
            if self._optims[name] is not None:
                self._optims[name].zero_grad()

    def model_backward(self, loss: Tensor) -> None:
        """Computes gradients of a finite loss."""
        self.detect_anomaly(loss)
        loss.backward()

    def model_update(self, names: str | list[str] | None = None) -> None:
        """Steps the optimizers."""
        for name in self.get_model_names(names):
            if self._optims[name] is not None:
                self._optims[name].step()

    def model_backward_and_update(self, loss: Tensor, names: str | list[str] | None = None) -> None:
        """Clears gradients, computes them, steps."""
        self.model_zero_grad(names)
        self.model_backward(loss)
        self.model_update(names)

    # Tensorboard

    def init_writer(self, log_dir: str) -> None:
        """Starts to write scalars for tensorboard."""
        if self._writer is None:
            try:
                from torch.utils.tensorboard import SummaryWriter  # takes seconds to import, and only training needs it
            except ImportError:
                print("Note: tensorboard is not installed, so no scalars are written for it (pip install tensorboard)")
                return
            print(f"Initialize tensorboard (log_dir={log_dir})")
            self._writer = SummaryWriter(log_dir=log_dir)

    def close_writer(self) -> None:
        """Ends the writing of scalars."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def write_scalar(self, tag: str, scalar_value: float, global_step: int | None = None) -> None:
        """Writes a scalar if init_writer() has been called, as it is in training; else does nothing."""
        if self._writer is not None:
            self._writer.add_scalar(tag, scalar_value, global_step)

    # The loop

    def train(self, start_epoch: int, max_epoch: int) -> None:
        """Runs the epochs from ``start_epoch`` (before_train() may change it) to ``max_epoch``."""
        self.start_epoch, self.max_epoch = start_epoch, max_epoch
        self.before_train()
        for epoch in range(self.start_epoch, self.max_epoch):
            self.epoch = epoch
            self.begin_epoch()
            self.before_epoch()
            self.run_epoch()
            self.after_epoch()
        self.after_train()

    def begin_epoch(self) -> None:
        """What every epoch starts with; before_epoch() is for subclasses."""

    def before_train(self) -> None:
        """Runs before the first epoch."""

    def after_train(self) -> None:
        """Runs after the last epoch."""

    def before_epoch(self) -> None:
        """Runs before each epoch."""

    def after_epoch(self) -> None:
        """Runs after each epoch."""

    def run_epoch(self) -> None:
        """Trains for one epoch."""
        raise NotImplementedError

    def test(self, split: str | None = None) -> float:
        """Tests; returns the first result."""
        raise NotImplementedError

    def parse_batch_train(self, batch: dict) -> Any:
        """Takes from a training batch what forward_backward() needs, on the device."""
        raise NotImplementedError

    def parse_batch_test(self, batch: dict) -> Any:
        """Takes input and label from a test batch, on the device."""
        raise NotImplementedError

    def forward_backward(self, batch: dict) -> dict[str, float]:
        """Trains on a batch; returns numbers to print, by name."""
        raise NotImplementedError

    def model_inference(self, input: Tensor) -> Tensor:
        """Scores (B, K) of a batch of inputs."""
        raise NotImplementedError
