"""FPP: flatness-aware prompt pretraining (Jang et al., CVPR 2026, arXiv 2604.27715): learns from class names alone.

Upstream: YonseiML/fpp@bb9917f, fpp_classification.py, init_prompts, whose objective, schedule and defaults these are.
There a prompt is made for each test set, for TPT, C-TPT or O-TPT to start from; here it is trained like any other, and
any method tests it with --model-dir. Differences:
- Upstream trains in fp32 with noise in fp16; here PREC auto is amp on a GPU, and the noise is fp32, drawn on the CPU by
  the seed and the epoch.
- The target may be any template or ensemble (TEMPLATE). MODEL.INIT_WEIGHTS names a prompt whose class features are it;
  the start is random all the same, as upstream's is, unless CTX_INIT has words.

An epoch is STEPS steps, after which a checkpoint is written. The images of the dataset are tested, not learned from.
"""

import torch
from torch import Tensor
from yacs.config import CfgNode

from tlla.arguments import number, whole
from tlla.errors import InputError, within
from tlla.prompts.learner import PromptLearner
from tlla.prompts.templates import zeroshot_features
from tlla.sharpness import loss_and_gradient
from tlla.training.flat_prompt import flat_prompt_loss, noisy_features

from .base import registered
from .harness import distributed
from .harness.by_steps import build_by_steps
from .prompt_source import DEFAULT_TEMPLATE, find_templates, refuse_descriptions
from .prompt_trainer import PromptTrainer, prompt_config


def add_config(cfg: CfgNode) -> None:
    """Adds TRAINER.FPP with the authors' values."""
    node = prompt_config(n_ctx=4)
    node.TEMPLATE = DEFAULT_TEMPLATE  # whose class features are the target; "": the dataset's own; or an ensemble
    node.WEIGHT = -1.0  # of the flatness; -1: 1 + 15 / K for K classes. The authors' for ImageNet's variants is 1.25
    node.DRAWS = 4  # draws of noise in a step
    node.CTX_STD = 0.0707105  # standard deviation of the noise on the context vectors
    node.TOKEN_STD = 0.141421  # standard deviation of the noise on all other tokens
    node.INIT_STD = 0.141421  # standard deviation of the random context that the training starts from
    node.STEPS = 100  # steps of an epoch: with OPTIM.MAX_EPOCH 10 the authors' 1000
    node.MIN_LR = 1e-4  # learning rate at which the schedule ends
    cfg.TRAINER.FPP = node


@registered
class FPP(PromptTrainer):
    """Keeps the class features near to a template's, and where they change little under noise on the tokens."""

    config_node = "FPP"
    learns_from_images = False

    def check_cfg(self, cfg: CfgNode) -> None:
        """Also what is FPP's own."""
        super().check_cfg(cfg)
        node = cfg.TRAINER[self.config_node]
        with within("TRAINER.FPP"):
            refuse_descriptions(node.TEMPLATE, "FPP")
            for key in ("DRAWS", "STEPS"):
                whole(key, node[key], 1)
            for key in ("CTX_STD", "TOKEN_STD", "INIT_STD", "MIN_LR"):
                number(key, node[key])
            if node.WEIGHT != -1:
                number("WEIGHT", node.WEIGHT)

    def build_data_loader(self) -> None:
        """In place of batches of images, as many empty ones as an epoch has steps."""
        super().build_data_loader()
        self.train_loader_x = [{}] * self.method_cfg.STEPS

    def build_model(self) -> None:
        """Also encodes the target, then draws the context."""
        super().build_model()
        node, learner, names = self.method_cfg, self.model.prompt_learner, self.dm.dataset.classnames
        with torch.no_grad(), self.autocast():
            if self.cfg.MODEL.INIT_WEIGHTS:
                self.target = self.model.encode_text()  # (K, E)
            else:
                templates = find_templates(node.TEMPLATE, self.dm.dataset)
                self.target = zeroshot_features(self.clip_model, names, templates, self.on_shared)
            if not node.CTX_INIT:  # on the CPU, so that a seed yields the same prompt on every device
                learner.ctx.copy_(node.INIT_STD * torch.randn(learner.ctx.shape))
        self.weight = 1 + 15 / len(names) if node.WEIGHT == -1 else node.WEIGHT

    def build_optim(self, learner: PromptLearner) -> tuple:
        """As OPTIM says, by steps, but for where the schedule ends. InputError with another toolkit's schedule."""
        optim, sched = build_by_steps(learner, self.cfg.OPTIM, len(self.train_loader_x))
        if not hasattr(sched, "lr_at"):
            raise InputError("FPP's schedule (TRAINER.FPP.MIN_LR) needs the toolkit of this repository: see toolkit/")
        least, rate = self.method_cfg.MIN_LR, sched.lr_at
        sched.lr_at = lambda step, base: least + rate(step, base - least)
        sched.step(0)
        return optim, sched

    def forward_backward(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """One step; the batch is empty. Each of several processes encodes its share of the classes."""
        node, model, prompt = self.method_cfg, self.model, self.learned_vector()
        shapes = ((node.CTX_STD, prompt.shape[-2:]), (node.TOKEN_STD, model.prompt_learner.embeddings.shape[1:]))
        noise = [(std * torch.randn(node.DRAWS, *shape)).to(self.device) for std, shape in shapes]
        noisy = self.spread_classes(lambda own: noisy_features(model, prompt, *noise, own))  # (K, R, E)
        parts: list[Tensor] = []

        def loss_fn(ctx: Tensor) -> Tensor:
            loss, *parts[:] = flat_prompt_loss(self.class_features(ctx), self.target, noisy, self.weight)
            return loss

        scale = self.scaler.get_scale() if self.scaler else 1.0
        loss, gradient = loss_and_gradient(loss_fn, prompt, scale, distributed.sum_gradient)
        norm = gradient.norm() / scale
        # A GPU is waited for once.
        finite, *found = torch.stack([torch.isfinite(loss) & torch.isfinite(norm), loss, *parts]).tolist()
        self.apply_gradients([gradient], loss, norm, bool(finite), scale)
        self.update_lr()
        return dict(zip(("loss", "distance", "cosine"), found, strict=True))
