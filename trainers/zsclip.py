"""Zero-shot CLIP with a hand-written template (arXiv 2103.00020). Nothing is trained."""

import time

import torch
from torch import Tensor
from yacs.config import CfgNode

from tlla.clip import logit_scale
from tlla.prompt import zeroshot_features

from .base import ClipTrainer, registered

DEFAULT_TEMPLATE = "a photo of a {}."


def add_config(cfg: CfgNode) -> None:
    """Adds TRAINER.ZSCLIP."""
    cfg.TRAINER.ZSCLIP = CfgNode()
    cfg.TRAINER.ZSCLIP.TEMPLATE = ""  # "": the dataset's own template, else "a photo of a {}."
    cfg.TRAINER.ZSCLIP.PREC = "fp16"  # fp32, fp16, bf16, amp


@registered
class ZeroshotCLIP(ClipTrainer):
    """Classifies by the similarity of image features and the text features of one template."""

    config_node = "ZSCLIP"

    def build_model(self) -> None:
        """Encodes the class names once; registers no model, as there is nothing to train."""
        dataset = self.dm.dataset
        template = self.method_cfg.TEMPLATE or getattr(dataset, "template", DEFAULT_TEMPLATE)
        with torch.no_grad(), self.autocast():
            self.text_features = zeroshot_features(self.clip_model, dataset.classnames, template)  # (K, E)
        print(f"Template: {template!r}, for example {template.format(dataset.classnames[0])!r}")

    def train(self) -> None:
        """There is nothing to train: tests at once, on every toolkit."""
        print("Zero-shot CLIP has nothing to train")
        self.time_start = time.time()
        self.after_train()

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """There is nothing to load."""
        print("Zero-shot CLIP has nothing to load")

    def model_inference(self, images: Tensor) -> Tensor:
        """Logits, (B, 3, H, W) -> (B, K)."""
        return logit_scale(self.clip_model) * self.encode_image(images) @ self.text_features.t()

    def prompt(self) -> Tensor:
        """The text features."""
        return self.text_features
