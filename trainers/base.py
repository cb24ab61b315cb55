"""What all trainers share: a frozen CLIP, its precision, and a test that leaves a record."""

import contextlib
import time
from pathlib import Path
from typing import Any

import torch
from dassl.engine import TRAINER_REGISTRY, TrainerX
from torch import Tensor
from torch.utils.data import Dataset
from yacs.config import CfgNode

from tlla.backbones import Backbone
from tlla.checkpoint import choose_checkpoint
from tlla.clip import encode_images, load_clip
from tlla.errors import InputError
from tlla.fingerprint import tensor_sha256
from tlla.registry import register
from tlla.workers import fit_workers

from . import distributed
from .evaluation import evaluate
from .parts import Meter, Part
from .results import RunRecord
from .sharing import share_loader

PRECISIONS = ("fp32", "fp16", "bf16", "amp")
PIXEL_TOLERANCE = 1e-3  # configs round

registered = register(TRAINER_REGISTRY)


def check_input(node: CfgNode, clip_model: Backbone) -> None:
    """Raises InputError if the config makes images of another size or normalisation than the model takes."""
    expected, name = clip_model.preprocessing, clip_model.name
    size = expected.size
    if tuple(node.SIZE) != (size, size):
        raise InputError(
            f"INPUT.SIZE is {tuple(node.SIZE)}, but {name} takes images of {size} x {size}: "
            f'add INPUT.SIZE "({size}, {size})" to the command or the config'
        )
    for key, own in (("PIXEL_MEAN", expected.mean), ("PIXEL_STD", expected.std)):
        found = list(node[key])
        same = len(found) == len(own) and all(abs(a - b) < PIXEL_TOLERANCE for a, b in zip(found, own, strict=True))
        if "normalize" in node.TRANSFORMS and not same:
            raise InputError(
                f"INPUT.{key} is {found}, but {name} takes images normalised by {list(own)}: "
                f'add INPUT.{key} "{list(own)}" to the command or the config'
            )


class ClipTrainer(TrainerX):
    """Loads CLIP before the data, so that a wrong image size is found at once; test() writes ``results.json``.

    A subclass names its config node in `config_node` and gives `build_model` and `model_inference`.
    """

    config_node = ""

    @property
    def method_cfg(self) -> CfgNode:
        """The method's own config node, TRAINER.<config_node>."""
        return self.cfg.TRAINER[self.config_node]

    def check_cfg(self, cfg: CfgNode) -> None:
        """Refuses values of the method's node that cannot work."""
        precision = cfg.TRAINER[self.config_node].PREC
        if precision not in PRECISIONS:
            raise InputError(f"TRAINER.{self.config_node}.PREC must be one of {PRECISIONS}, but got {precision!r}")

    def build_data_loader(self) -> None:
        """Loads CLIP, then the data."""
        name = self.cfg.MODEL.BACKBONE.NAME
        print(f"Loading CLIP (backbone: {name})")
        if not name:
            raise InputError("MODEL.BACKBONE.NAME is empty: name a CLIP in the config or by --backbone, e.g. ViT-B/16")
        self.precision = self._available_precision()
        self.clip_model = load_clip(name, self.device, half=self.precision == "fp16")
        check_input(self.cfg.INPUT, self.clip_model)
        super().build_data_loader()
        if distributed.world_size() > 1 and self.train_loader_x:
            self.train_loader_x = share_loader(self.train_loader_x)
        for loader in (self.train_loader_x, self.train_loader_u, self.val_loader, self.test_loader):
            if loader is not None:
                fit_workers(loader)
        self.record = RunRecord(self.cfg, self.dm.dataset)
        if hasattr(self, "run_seed"):  # our toolkit's: the number that was drawn if SEED is negative
            self.record.update(seed=self.run_seed)

    def _available_precision(self) -> str:
        wanted = self.method_cfg.PREC
        if self.device.type == "cpu" and wanted in ("fp16", "amp"):
            print(f"PREC {wanted} needs a GPU: computing in fp32 on the CPU")
            return "fp32"
        return wanted

    def autocast(self) -> contextlib.AbstractContextManager:
        """Mixed precision for PREC amp (fp16) and bf16; otherwise nothing."""
        dtype = {"amp": torch.float16, "bf16": torch.bfloat16}.get(self.precision)
        return torch.autocast(self.device.type, dtype, enabled=dtype is not None)

    def encode_image(self, images: Tensor) -> Tensor:
        """Normalised features in the configured precision, (B, 3, H, W) -> (B, E), float32.

        Only the encoders run in mixed precision: a product of features in fp16 would round the logits to 1/64, which
        is more than the differences of entropy that STSS looks at.
        """
        with torch.no_grad(), self.autocast():
            return encode_images(self.clip_model, images)

    def encode_batch(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Features (B, E) and labels (B,) of a training batch, of which each process has loaded its share."""
        if batch:
            images, labels = batch["img"].to(self.device), batch["label"].to(self.device)
            features = self.encode_image(images)
        else:  # fewer images than processes
            features = torch.empty(0, self.clip_model.embed_dim, device=self.device)
            labels = torch.empty(0, dtype=torch.long, device=self.device)
        total = int(distributed.sum_over_processes([labels.new_tensor(len(labels))])[0])
        return distributed.gather_rows(features, total), distributed.gather_rows(labels, total)

    def eval_dataset(self, split: str) -> Dataset:
        """The *val* or *test* split; items are dicts with img, label and index."""
        return (self.val_loader if split == "val" else self.test_loader).dataset

    def eval_batch_size(self) -> int:
        """Images of a test batch."""
        return self.cfg.DATALOADER.TEST.BATCH_SIZE

    def eval_order(self, total: int) -> list[int]:
        """Indices of a split's images in the order in which they are tested."""
        return list(range(total))

    def before_test(self) -> None:
        """Hook: prepares what all batches of a test share."""

    def parts(self) -> list[Part]:
        """What is tested in this pass: one part, unless several methods share it."""
        self.evaluator.reset()
        return [Part(self.record, self.evaluator, Meter(self.device), {"prompt_sha256": tensor_sha256(self.prompt())})]

    def prepare(self, batch: dict[str, Tensor]) -> Any:
        """What all parts need of a batch: here the images, (B, 3, H, W)."""
        return batch["img"].to(self.device, non_blocking=True)

    def probabilities(self, prepared: Any, part: Part) -> Tensor:
        """Class probabilities of a batch under one part: (B, K)."""
        return self.model_inference(prepared).softmax(dim=-1)

    @torch.no_grad()
    def test(self, split: str | None = None) -> float:
        """Evaluates a split (default: TEST.SPLIT) and records it.

        Returns:
            The evaluator's first value, of the first part if there are several: accuracy in %.
        """
        split = split or self.cfg.TEST.SPLIT
        if split == "val" and self.val_loader is None:
            split = "test"
        self.set_model_mode("eval")
        print(f"Evaluate on the *{split}* set")
        shared = Meter(self.device)
        with shared:
            self.before_test()
            parts = self.parts()
        found = evaluate(self, split, parts, shared)
        for part, results in zip(parts, found, strict=True):
            for name, value in results.items():
                self.write_scalar("/".join(filter(None, (split, part.title, name))), value, self.epoch)
        if distributed.is_first():
            self.after_test(parts, split)
        return next(iter(found[0].values()))

    def after_test(self, parts: list[Part], split: str) -> None:
        """Hook: what is to be said about all parts together."""

    def save_model(self, *args: Any, **kwargs: Any) -> None:
        """Saves; of several processes the first one does, while the others wait."""
        if self.writes:
            super().save_model(*args, **kwargs)
        distributed.wait()

    def init_writer(self, log_dir: str) -> None:
        """Starts tensorboard's log; only the first of several processes does."""
        if self.writes:
            super().init_writer(log_dir)

    @property
    def writes(self) -> bool:
        """Whether this process writes checkpoints and logs: the first one does."""
        return distributed.is_first()

    def _choose_run_seed(self) -> int:
        """The toolkit's; if it is drawn, then once for all processes."""
        return distributed.from_first(super()._choose_run_seed())

    def prompt(self) -> Tensor:
        """What identifies the text side in the record: the context vectors, or the text features of a template."""
        raise NotImplementedError


class LearningTrainer(ClipTrainer):
    """Learns something, saved under `learned`; records how long that took, and where what is tested comes from."""

    learned = ""  # name of the registered model

    def after_train(self) -> None:
        """Records the time of this process's part of the training, then tests."""
        self.record.update(train_seconds=round(time.time() - self.time_start, 1))
        super().after_train()

    def checkpoint(self, directory: str, epoch: int | None) -> Path:
        """A run's checkpoint of a 1-based epoch; default: the newest, or the best on val if TEST.FINAL_MODEL is so."""
        return choose_checkpoint(Path(directory) / self.learned, epoch, self.cfg.TEST.FINAL_MODEL == "best_val")

    def note_loaded(self, what: str, path: Path, epoch: int | None) -> None:
        """Says and records what was loaded."""
        print(f"Loaded the {what} of epoch {epoch} from {path}")
        self.record.update(loaded_from={"path": str(path), "epoch": epoch})


class UntrainedTrainer(ClipTrainer):
    """Has nothing to train: train() tests at once, on every toolkit."""

    trains = False

    def train(self) -> None:
        """Tests."""
        print(f"{type(self).__name__} has nothing to train")
        self.time_start = time.time()
        self.after_train()

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """There is nothing to load."""
        print(f"{type(self).__name__} has nothing to load")
