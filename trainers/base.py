"""What all trainers share: a frozen CLIP, its precision, and a test that leaves a record."""

import contextlib
import time

import torch
from dassl.engine import TRAINER_REGISTRY, TrainerX
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm
from yacs.config import CfgNode

from tlla.clip import encode_images, image_size, load_clip
from tlla.errors import InputError
from tlla.registry import register

from .results import Predictions, RunRecord

PRECISIONS = ("fp32", "fp16", "bf16", "amp")

registered = register(TRAINER_REGISTRY)


class ClipTrainer(TrainerX):
    """Loads CLIP before the data, so that a wrong image size is found at once; test() writes ``results.json``.

    A subclass names its config node in `config_node` and gives `build_model` and `model_inference`.
    """

    config_node = ""
    gives_probabilities = False  # whether model_inference gives probabilities rather than logits

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
        size = image_size(self.clip_model)
        if tuple(self.cfg.INPUT.SIZE) != (size, size):
            raise InputError(
                f"INPUT.SIZE is {tuple(self.cfg.INPUT.SIZE)}, but {name} takes images of {size} x {size}: "
                f'add INPUT.SIZE "({size}, {size})" to the command or the config'
            )
        super().build_data_loader()
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

    def eval_loader(self, split: str) -> DataLoader:
        """Batches of the *val* or *test* split as `model_inference` takes them."""
        return self.val_loader if split == "val" else self.test_loader

    def before_test(self) -> None:
        """Hook: prepares what all batches of a test share."""

    @torch.no_grad()
    def test(self, split: str | None = None) -> float:
        """Evaluates a split (default: TEST.SPLIT) and records it.

        Returns:
            The evaluator's first value: accuracy in %.
        """
        split = split or self.cfg.TEST.SPLIT
        if split == "val" and self.val_loader is None:
            split = "test"
        self.set_model_mode("eval")
        self.evaluator.reset()
        print(f"Evaluate on the *{split}* set")
        start = time.perf_counter()
        predictions = self._predict(split)
        results = self.evaluator.evaluate()
        for name, value in results.items():
            self.write_scalar(f"{split}/{name}", value, self.epoch)
        self.record.add_split(split, predictions, results, time.perf_counter() - start, self.prompt())
        return next(iter(results.values()))

    def _predict(self, split: str) -> Predictions:
        self.before_test()
        loader = self.eval_loader(split)
        predictions = Predictions()
        with tqdm(total=len(loader.dataset), unit="img", desc=split) as bar:
            for batch in loader:
                label = batch["label"].to(self.device)
                output = self.model_inference(batch["img"].to(self.device, non_blocking=True))  # (B, K)
                self.evaluator.process(output, label)
                probability = output if self.gives_probabilities else output.softmax(dim=1)
                predictions.add(batch["index"], label, probability)
                bar.update(len(label))
        return predictions

    def prompt(self) -> Tensor:
        """What identifies the text side in the record: the context vectors, or the text features of a template."""
        raise NotImplementedError
