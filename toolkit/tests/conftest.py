"""A small dataset of random images, a linear trainer on it, and a configuration for both."""

import os

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch is imported: the tests are the CPU's

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer

CLASSES = ("cat", "dog", "owl")


@DATASET_REGISTRY.register()
class Squares(DatasetBase):
    """Images <root>/<split>/<label>_<number>.png."""

    def __init__(self, cfg):
        root = cfg.DATASET.ROOT
        splits = {split: self._read(os.path.join(root, split)) for split in ("train", "val", "test")}
        train = self.generate_fewshot_dataset(splits["train"], num_shots=cfg.DATASET.NUM_SHOTS)
        super().__init__(train_x=train, val=splits["val"], test=splits["test"])

    @staticmethod
    def _read(directory):
        names = sorted(os.listdir(directory)) if os.path.isdir(directory) else []
        return [Datum(os.path.join(directory, n), int(n[0]), classname=CLASSES[int(n[0])]) for n in names]


@TRAINER_REGISTRY.register()
class Linear(TrainerX):
    """A linear classifier with dropout, written as CoOp's trainers are."""

    def build_model(self):
        self.model = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(3 * 8 * 8, self.num_classes))
        self.model.to(self.device)
        self.optim = build_optimizer(self.model, self.cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, self.cfg.OPTIM)
        self.register_model("linear", self.model, self.optim, self.sched)

    def parse_batch_train(self, batch):
        return batch["img"].to(self.device), batch["label"].to(self.device)

    def forward_backward(self, batch):
        image, label = self.parse_batch_train(batch)
        output = self.model(image)
        loss = F.cross_entropy(output, label)
        self.model_backward_and_update(loss)
        if (self.batch_idx + 1) == self.num_batches:
            self.update_lr()
        return {"loss": loss.item(), "acc": compute_accuracy(output, label)[0].item()}


@TRAINER_REGISTRY.register()
class Fixed(TrainerX):
    """Registers no model, as zero-shot CLIP does."""

    def build_model(self):
        self.weight = torch.linspace(-1, 1, 3 * 8 * 8 * self.num_classes).reshape(-1, self.num_classes)

    def model_inference(self, image):
        return image.flatten(1) @ self.weight


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """A folder with 12 training, 6 validation and 9 test images of 10 x 12 pixels."""
    path = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2), ("test", 3)):
        (path / split).mkdir()
        for label in range(len(CLASSES)):
            for number in range(count):
                pixels = rng.integers(0, 200, (10, 12, 3), dtype=np.uint8)
                pixels[..., label] += 50
                Image.fromarray(pixels).save(path / split / f"{label}_{number}.png")
    return str(path)


@pytest.fixture
def make_cfg(root, tmp_path):
    """A function (KEY, VALUE, ...) -> frozen configuration of a run of 4 epochs under tmp_path/out."""

    def make(*options):
        cfg = get_cfg_default()
        cfg.merge_from_list(
            [
                *("OUTPUT_DIR", str(tmp_path / "out"), "SEED", 1, "USE_CUDA", False, "VERBOSE", False),
                *("DATASET.ROOT", root, "DATASET.NAME", "Squares", "TRAINER.NAME", "Linear"),
                *("INPUT.SIZE", (8, 8), "INPUT.TRANSFORMS", ("random_resized_crop", "random_flip", "colorjitter")),
                *("DATALOADER.NUM_WORKERS", 0, "DATALOADER.TRAIN_X.BATCH_SIZE", 5, "DATALOADER.TEST.BATCH_SIZE", 4),
                *("OPTIM.NAME", "sgd", "OPTIM.LR", 0.1, "OPTIM.MAX_EPOCH", 4, "OPTIM.LR_SCHEDULER", "cosine"),
                *("OPTIM.WARMUP_EPOCH", 1, "OPTIM.WARMUP_TYPE", "constant"),
                *options,
            ]
        )
        cfg.freeze()
        return cfg

    return make
