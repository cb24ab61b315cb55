"""An epoch over labelled data, and the line on its progress."""

import datetime
import time

from torch import Tensor

from dassl.utils import AverageMeter, MetricMeter

from .simple import SimpleTrainer


class _Progress:
    """Times the batches of an epoch, prints the progress line, writes scalars."""

    def __init__(self, trainer: SimpleTrainer):
        self.trainer = trainer
        self.losses, self.batch_time, self.data_time = MetricMeter(), AverageMeter(), AverageMeter()
        self.end = time.time()

    def loaded(self) -> None:
        """A batch has been loaded."""
        self.data_time.update(time.time() - self.end)

    def trained(self, loss_summary: dict[str, float] | None) -> None:
        """A batch has been trained on."""
        self.batch_time.update(time.time() - self.end)
        self.losses.update(loss_summary)
        trainer, freq = self.trainer, self.trainer.cfg.TRAIN.PRINT_FREQ
        if freq > 0 and ((trainer.batch_idx + 1) % freq == 0 or trainer.num_batches < freq):
            print(self._line())
        step = trainer.epoch * trainer.num_batches + trainer.batch_idx
        for name, meter in self.losses.meters.items():
            trainer.write_scalar(f"train/{name}", meter.avg, step)
        trainer.write_scalar("train/lr", trainer.get_current_lr(), step)
        self.end = time.time()

    def _line(self) -> str:
        t, batch_time, data_time = self.trainer, self.batch_time, self.data_time
        batches_left = (t.max_epoch - t.epoch) * t.num_batches - t.batch_idx - 1
        return (
            f"epoch [{t.epoch + 1}/{t.max_epoch}] batch [{t.batch_idx + 1}/{t.num_batches}] "
            f"time {batch_time.val:.3f} ({batch_time.avg:.3f}) data {data_time.val:.3f} ({data_time.avg:.3f}) "
            f"{self.losses} lr {t.get_current_lr():.4e} "
            f"eta {datetime.timedelta(seconds=int(batch_time.avg * batches_left))}"
        )


class TrainerX(SimpleTrainer):
    """Trains on labelled data; a subclass has ``forward_backward(batch)``."""

    def run_epoch(self) -> None:
        """One pass over the labelled images."""
        if self.train_loader_x is None:
            raise ValueError(
                f'{type(self).__name__} trains on the "train_x" split, but dataset {self.cfg.DATASET.NAME!r} has no '
                "images there; test only, or choose another dataset"
            )
        self.num_batches = len(self.train_loader_x)
        self.set_model_mode("train")
        progress = _Progress(self)
        for batch_idx, batch in enumerate(self.train_loader_x):
            self.batch_idx = batch_idx
            progress.loaded()
            progress.trained(self.forward_backward(batch))

    def parse_batch_train(self, batch: dict) -> tuple[Tensor, Tensor, Tensor]:
        """Images, labels and domains of a batch, on the device."""
        return tuple(batch[key].to(self.device) for key in ("img", "label", "domain"))
