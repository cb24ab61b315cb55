"""The skeleton of a trainer: its models with their optimizers and schedules, checkpoints, the loop over epochs."""

import os
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from dassl.utils import CheckpointError, load_checkpoint, save_checkpoint, tolist_if_not
from dassl.utils.checkpoint import BEST_MODEL, common_epochs, epoch_file, load_state, point_to, restore


class TrainerBase:
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
        """Returns the names given as a list, or all registered ones. ValueError if a name is not registered."""
        if names is None:
            return list(self._models)
        names = tolist_if_not(names)
        unknown = [name for name in names if name not in self._models]
        if unknown:
            raise ValueError(f"Registered models are {tuple(self._models)}, but got {unknown}")
        return names

    def set_model_mode(self, mode: str = "train", names: str | list[str] | None = None) -> None:
        """Puts models in mode "train", or "eval" (also "test"). ValueError for another mode."""
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
        """Raises FloatingPointError, which says where, at a loss that is not finite."""
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

    # Checkpoints

    def save_model(self, epoch: int, directory: str, val_result: float | None = None, model_name: str = "") -> None:
        """Saves all models to ``directory``/<model name>/.

        Args:
            epoch: 0-based; the file is named by and holds ``epoch`` + 1.
            directory: Usually OUTPUT_DIR.
            val_result: Kept in the file.
            model_name: File name; empty means model.pth.tar-<epoch + 1>.
        """
        names = self.get_model_names()
        for name in names:
            optim, sched = self._optims[name], self._scheds[name]
            state = {
                "state_dict": self._models[name].state_dict(),
                "epoch": epoch + 1,
                "optimizer": None if optim is None else optim.state_dict(),
                "scheduler": None if sched is None else sched.state_dict(),
                "val_result": val_result,
                "trainer": self.trainer_state(epoch + 1),
            }
            save_checkpoint(state, os.path.join(directory, name), model_name)
        # Only now: a file named as the newest has its counterparts of all other models.
        for name in names if model_name != BEST_MODEL else ():
            point_to(os.path.join(directory, name), model_name or epoch_file(epoch + 1))

    def resume_model_if_exist(self, directory: str) -> int:
        """Loads the newest epoch that all models have a checkpoint of; returns the number of epochs done.

        Raises:
            CheckpointError: A file is damaged, or does not fit.
        """
        names = self.get_model_names()
        epochs = common_epochs(directory, names)
        if not epochs:
            print("No checkpoint found, train from scratch")
            return 0
        print(f"Found checkpoint at {directory} (will resume training)")
        for name in names:
            path = os.path.join(directory, name, epoch_file(epochs[-1]))
            checkpoint = load_checkpoint(path)
            restore(checkpoint, path, self._models[name], self._optims[name], self._scheds[name])
        self.load_trainer_state(checkpoint.get("trainer") or {})
        return epochs[-1]

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Loads the weights of all models, for testing.

        Args:
            directory: OUTPUT_DIR of the run that trained them; empty: nothing is loaded, and a note says so.
            epoch: 1-based; None: the best model if TEST.FINAL_MODEL asks for it and there is one, else the newest
                epoch.

        Raises:
            CheckpointError: A file is missing (the message lists those present), is damaged, or does not fit.
        """
        names = self.get_model_names()
        if not directory or not names:
            reason = "no pretrained model is given" if names else f"{type(self).__name__} has no model to load"
            print(f"Note that load_model() is skipped as {reason} (ignore this if it's done on purpose)")
            return
        file = self.find_checkpoint(directory, names) if epoch is None else epoch_file(epoch)
        for name in names:
            path = os.path.join(directory, name, file)
            checkpoint = load_checkpoint(path)
            if "state_dict" not in checkpoint:
                raise CheckpointError(f'"{path}" has no "state_dict"; its keys are {sorted(map(str, checkpoint))}')
            result = checkpoint.get("val_result")
            result = "none" if result is None else f"{result:.1f}"
            print(f"Load {path} to {name} (epoch={checkpoint.get('epoch')}, val_result={result})")
            load_state(self._models[name], checkpoint["state_dict"], path)

    def find_checkpoint(self, directory: str, names: list[str], prefer_best: bool = False) -> str:
        """The file name that load_model() takes by default: the newest epoch's, else the best model's."""
        has_best = all(os.path.isfile(os.path.join(directory, name, BEST_MODEL)) for name in names)
        epochs = common_epochs(directory, names)
        return epoch_file(epochs[-1]) if epochs and not (prefer_best and has_best) else BEST_MODEL

    def trainer_state(self, epoch: int) -> dict[str, Any]:
        """What a checkpoint holds beside the models' states; a subclass may add plain values.

        Args:
            epoch: 1-based, of this checkpoint.
        """
        scaler = getattr(self, "scaler", None)
        return {} if scaler is None else {"scaler": scaler.state_dict()}

    def load_trainer_state(self, state: dict[str, Any]) -> None:
        """Takes back what trainer_state() has given."""
        if getattr(self, "scaler", None) is not None and state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])

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

    def parse_batch_train(self, batch: dict) -> Any:
        """Takes from a training batch what forward_backward() needs, on the device."""
        raise NotImplementedError

    def forward_backward(self, batch: dict) -> dict[str, float]:
        """Trains on a batch; returns numbers to print, by name."""
        raise NotImplementedError
