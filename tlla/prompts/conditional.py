"""CoCoOp's conditional context (Zhou et al., arXiv 2203.05557).

Has the logits of CustomCLIP in KaiyangZhou/CoOp, trainers/cocoop.py. Differs: the net is always fp32 (upstream uses
fp16 with an fp16 backbone), and the prompts of all images of a batch are encoded in chunks.

Letters in shapes: B images, K classes, L context tokens, D text width, E joint space.
"""

from collections import OrderedDict
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .learner import PromptLearner
from .prompted import PromptedCLIP
from .tokens import OnShared, refuse_shared


class MetaNet(nn.Sequential):
    """Maps image features to a shift of all context vectors: (B, E) -> (B, D). Named as in CoOp's checkpoints.

    Args:
        embed_dim: E, width of the joint space.
        ctx_dim: D, width of the text encoder.
    """

    def __init__(self, embed_dim: int, ctx_dim: int):
        hidden = embed_dim // 16
        layers = (
            ("linear1", nn.Linear(embed_dim, hidden)),
            ("relu", nn.ReLU()),
            ("linear2", nn.Linear(hidden, ctx_dim)),
        )
        super().__init__(OrderedDict(layers))

    def forward(self, features: Tensor) -> Tensor:
        """Shift of the context for each image."""
        return cast(Tensor, super().forward(features))  # type: ignore[no-untyped-call]


class ConditionalPromptLearner(PromptLearner):
    """A shared context and the net that shifts it for each image.

    Its state dict holds ``ctx`` and ``meta_net.*``, as CoOp's checkpoints do.

    Args:
        clip_model: Any CLIP; not modified.
        classnames: One name per class; underscores are read as spaces.
        n_ctx: Number of context tokens L; ignored if `ctx_init` has words.
        ctx_init: Words whose embeddings initialise the context; empty: normal, std 0.02.
        on_shared: See `tlla.prompts.tokens.check_shared`.
    """

    def __init__(
        self,
        clip_model: nn.Module,
        classnames: list[str],
        n_ctx: int = 4,
        ctx_init: str = "",
        on_shared: OnShared = refuse_shared,
    ):
        super().__init__(clip_model, classnames, n_ctx, ctx_init, on_shared=on_shared)
        # Drawn on the CPU, like the context, so that a seed yields the same net on every device.
        self.meta_net = MetaNet(self._clip[0].embed_dim, self.ctx.shape[-1]).to(self.ctx.device)

    def shifted(self, image_features: Tensor, learned: Tensor | None = None) -> Tensor:
        """The context of each image, (B, E) -> (B, L, D).

        Args:
            image_features: Normalised features.
            learned: All parameters in one vector, in place of the own ones.
        """
        if learned is None:
            shift: Tensor = self.meta_net(image_features)
            return self.ctx + shift[:, None]
        own = dict(self.named_parameters())
        parts = torch.split(learned, [value.numel() for value in own.values()])
        given = {name: part.view_as(own[name]) for name, part in zip(own, parts, strict=True)}
        net = {name.removeprefix("meta_net."): value for name, value in given.items() if name != "ctx"}
        moved: Tensor = given["ctx"] + functional_call(self.meta_net, net, (image_features,))[:, None]
        return moved


class ConditionalCLIP(PromptedCLIP):
    """A frozen CLIP whose class features depend on the image."""

    prompt_learner: ConditionalPromptLearner

    def __init__(self, clip_model: nn.Module, prompt_learner: ConditionalPromptLearner, text_chunk: int = 0):
        super().__init__(clip_model, prompt_learner, text_chunk)

    def logits(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        """Scaled cosine similarities of images and their own class features: (B, E) and (B, K, E) -> (B, K)."""
        return self.logit_scale * torch.einsum("be,bke->bk", image_features, text_features)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images, each under its own context: (B, 3, H, W) -> (B, K)."""
        features = self.encode_image(images)
        return self.logits(features, self.encode_text(self.prompt_learner.shifted(features)))
