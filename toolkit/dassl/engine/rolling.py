"""Which checkpoints stay: every epoch writes one, and the one before goes unless it was asked for."""

import os
from typing import Any

from dassl.utils import CheckpointError, load_checkpoint
from dassl.utils.checkpoint import epoch_file, list_epochs


class RollingCheckpoints:
    """Removes checkpoints that only served to resume from, once a newer one is complete.

    Args:
        directory: OUTPUT_DIR.
        freq: TRAIN.CHECKPOINT_FREQ.
    """

    def __init__(self, directory: str, freq: int):
        self.directory, self.freq = directory, freq
        self._rolling: list[int] = []

    def is_kept(self, epoch: int, max_epoch: int) -> bool:
        """Whether the checkpoint of ``epoch`` (1-based) stays: the last one does, and every ``freq``-th."""
        return epoch >= max_epoch or (self.freq > 0 and epoch % self.freq == 0)

    def saved(self, epoch: int, max_epoch: int, names: list[str]) -> None:
        """Takes note of a checkpoint that all models have; removes those that it makes superfluous."""
        for old in self._rolling:
            for name in names if old != epoch else ():
                path = os.path.join(self.directory, name, epoch_file(old))
                if os.path.exists(path):
                    os.remove(path)
        self._rolling = [] if self.is_kept(epoch, max_epoch) else [epoch]

    def resumed(self, epoch: int, names: list[str]) -> None:
        """Finds the superfluous checkpoints of a run that is resumed after ``epoch``.

        A checkpoint says itself whether it may go: one that an earlier run was asked to keep never does. The one before
        the newest is there if the run was killed between writing and removing.
        """
        epochs = (epoch - 1, epoch)
        self._rolling = [e for e in epochs if any(_trainer_state(self.directory, n, e).get("rolling") for n in names)]


def _trainer_state(directory: str, name: str, epoch: int) -> dict[str, Any]:
    """What the checkpoint of an epoch holds beside the model; {} if there is none."""
    path = os.path.join(directory, name, epoch_file(epoch))
    return (load_checkpoint(path).get("trainer") or {}) if os.path.isfile(path) else {}


def stored_run_seed(directory: str) -> int | None:
    """The seed of the run whose checkpoints lie in ``directory``/<model name>/, or None.

    It is needed before the data are drawn, hence before the models' names are known.
    """
    for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else ():
        for epoch in list_epochs(os.path.join(directory, name))[-1:]:
            try:
                seed = _trainer_state(directory, name, epoch).get("run_seed")
            except CheckpointError:
                continue  # resuming will say what is wrong with it
            if seed is not None:
                return seed
    return None
