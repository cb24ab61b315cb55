"""Which checkpoints stay: every epoch writes one, and the one before goes unless it was asked for."""

import os

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
        self._rolling = [
            old for old in (epoch - 1, epoch) if any(_is_rolling(self.directory, name, old) for name in names)
        ]


def _is_rolling(directory: str, name: str, epoch: int) -> bool:
    path = os.path.join(directory, name, epoch_file(epoch))
    if not os.path.isfile(path):
        return False
    return bool((load_checkpoint(path).get("trainer") or {}).get("rolling"))


def stored_run_seed(directory: str) -> int | None:
    """The seed of the run whose checkpoints lie in ``directory``/<model name>/, or None.

    It is needed before the data are drawn, hence before the models' names are known.
    """
    for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else ():
        folder = os.path.join(directory, name)
        for epoch in list_epochs(folder)[-1:]:
            try:
                seed = (load_checkpoint(os.path.join(folder, epoch_file(epoch))).get("trainer") or {}).get("run_seed")
            except CheckpointError:
                continue  # resuming will say what is wrong with it
            if seed is not None:
                return seed
    return None
