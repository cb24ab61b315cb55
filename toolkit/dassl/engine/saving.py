"""What a trainer does with checkpoints: saves its models, resumes from them, loads them for a test."""

import os
from typing import Any

from dassl.utils import CheckpointError, load_checkpoint, save_checkpoint
from dassl.utils.checkpoint import BEST_MODEL, common_epochs, epoch_file, load_state, point_to, restore


class Saving:
    """A part of TrainerBase; ``_models``, ``_optims``, ``_scheds`` and get_model_names() are there."""

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
