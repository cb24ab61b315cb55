"""CoCoOp: conditional context optimization (Zhou et al., arXiv 2203.05557).

Same logits and updates as KaiyangZhou/CoOp@ff61507, trainers/cocoop.py. Differences: context and meta-net are fp32 for
every PREC (upstream: fp16 for PREC fp16), the text is cut at the longest EOS, image features are computed without a
graph, and checkpoints hold the context and the meta-net alone and load strictly.

A step encodes B * K prompts, hence upstream's batch of one image. Here they pass the text encoder in chunks of bounded
memory (`tlla.prompts.chunks`), in training and in a test. Each of several processes takes a share of the images of a
batch, so that more than BATCH_SIZE of them gain nothing.

With TRAINER.COCOOP.RHO the step is SAPT's, which the reviews of its paper ask for; nobody's published method. The
perturbation's norm is over all that is learned, as SAM's is over all parameters.
"""

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector
from yacs.config import CfgNode

from tlla.prompts.conditional import ConditionalCLIP, ConditionalPromptLearner
from tlla.variants import SAM

from .base import registered
from .harness import distributed
from .prompt_trainer import PromptTrainer, add_training_keys


def add_config(cfg: CfgNode) -> None:
    """Adds TRAINER.COCOOP with CoOp's defaults."""
    if "COCOOP" in cfg.TRAINER:  # a CoOp fork has its own
        return
    node = CfgNode()
    node.N_CTX = 16  # number of context vectors; not used with CTX_INIT, whose tokens are counted instead
    node.CTX_INIT = ""  # initial words, e.g. "a photo of a"; "": random
    node.PREC = "auto"  # auto (amp on a GPU), fp32, fp16, bf16, amp; context and meta-net are always fp32
    node.RHO = 0.0  # radius of SAPT's perturbation, over context and meta-net together; 0 is CoCoOp
    node.LAMBDA = 1.0  # weight of the sharpness, if RHO is positive
    node.VARIANT = SAM.name  # of the sharpness-aware step, as in TRAINER.SAPT
    add_training_keys(node)
    cfg.TRAINER.COCOOP = node


@registered
class CoCoOp(PromptTrainer):
    """Cross entropy on the context vectors and on the net that shifts them for each image; with RHO by SAPT's step."""

    config_node = "COCOOP"
    model_class = ConditionalCLIP

    @property
    def step_name(self) -> str:
        """The sharpness-aware step; "" by default, which is CoCoOp's own."""
        return str(self.variant) if self.rho > 0 and self.lam > 0 else ""

    def build_learner(self) -> ConditionalPromptLearner:
        """The context vectors and the meta-net."""
        node = self.method_cfg
        return ConditionalPromptLearner(
            self.clip_model, self.dm.dataset.classnames, node.N_CTX, node.CTX_INIT, self.on_shared
        )

    def take_step(self, image_features: Tensor, labels: Tensor) -> dict[str, float]:
        """One step on one batch; returns what to print. Each of several processes computes the logits of its share."""
        return self.descend(
            lambda learned: distributed.spread(image_features, lambda own: self.conditional_logits(own, learned)),
            labels,
        )

    def conditional_logits(self, image_features: Tensor, learned: Tensor | None = None) -> Tensor:
        """Logits of images by their features, (B, E) -> (B, K), float32; `learned` is what is learned in one vector."""
        context = self.model.prompt_learner.shifted(image_features, learned)  # (B, L, D)
        with self.autocast():
            text_features = self.model.encode_text(context)  # (B, K, E)
        return self.model.logits(image_features, text_features)

    def before_test(self) -> None:
        """Nothing is shared: each image has its own class features."""

    def model_inference(self, images: Tensor) -> Tensor:
        """Logits, (B, 3, H, W) -> (B, K), of so many images at once that memory does not depend on the batch."""
        at_once = max(1, self.model.prompts_at_once // len(self.model.prompt_learner.classnames))
        return torch.cat([self.conditional_logits(z) for z in self.encode_image(images).split(at_once)])

    def prompt(self) -> Tensor:
        """The context vectors and the net's weights in one vector."""
        return parameters_to_vector(self.model.prompt_learner.parameters())
