"""Zero-shot CLIP with a hand-written template (Radford et al., arXiv 2103.00020). Nothing is trained.

Upstream: KaiyangZhou/CoOp@ff61507, trainers/zsclip.py, ZeroshotCLIP and (ensembles) ZeroshotCLIP2.
"""

import torch
from torch import Tensor
from yacs.config import CfgNode

from tlla.clip import logit_scale
from tlla.prompts.templates import zeroshot_features

from .base import ClipTrainer, registered
from .prompt_source import find_templates


def add_config(cfg: CfgNode) -> None:
    """Adds TRAINER.ZSCLIP."""
    cfg.TRAINER.ZSCLIP = CfgNode()
    cfg.TRAINER.ZSCLIP.TEMPLATE = ""  # "": the dataset's own; or a template, imagenet7, imagenet80, a .json file
    cfg.TRAINER.ZSCLIP.PREC = "auto"  # auto (amp on a GPU), fp32, fp16, bf16, amp


@registered
class ZeroshotCLIP(ClipTrainer):
    """Classifies by the similarity of image features and the text features of a template or an ensemble."""

    config_node = "ZSCLIP"
    deterministic = True

    def build_model(self) -> None:
        """Encodes the class names once; registers no model, as there is nothing to train."""
        templates = find_templates(self.method_cfg.TEMPLATE, self.dm.dataset)
        with torch.no_grad(), self.autocast():
            self.text_features = zeroshot_features(  # (K, E)
                self.clip_model, self.dm.dataset.classnames, templates, self.on_shared
            )

    def model_inference(self, images: Tensor) -> Tensor:
        """Logits, (B, 3, H, W) -> (B, K)."""
        return logit_scale(self.clip_model) * self.encode_image(images) @ self.text_features.t()

    def prompt(self) -> Tensor:
        """The text features."""
        return self.text_features
