"""A frozen CLIP with a prompt: text features of context vectors, in chunks that fit into memory."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..backbones import as_backbone
from ..clip import encode_images, logit_scale
from .chunks import PlacedChunks, place_chunks, token_limit
from .learner import PromptLearner


class PromptedCLIP(nn.Module):
    """A frozen CLIP whose text encoder is prompted by context vectors; has the logits of CoOp's CustomCLIP.

    Args:
        clip_model: Any CLIP; it is frozen and put in evaluation mode.
        prompt_learner: The context vectors and class names.
        text_chunk: Maximum number of prompts that are encoded, and whose activations a graph stores, at once; 0: as
            many as fit into a fixed budget of memory, see `chunks`.
    """

    def __init__(self, clip_model: nn.Module, prompt_learner: PromptLearner, text_chunk: int = 0):
        super().__init__()
        self.clip = as_backbone(clip_model).eval().requires_grad_(False)
        self.prompt_learner: PromptLearner = prompt_learner
        self.text_chunk = text_chunk

    def train(self, mode: bool = True) -> "PromptedCLIP":
        """Sets the mode of the prompt only: a frozen backbone must not update its batch-norm statistics."""
        super().train(mode)
        self.clip.eval()
        return self

    @property
    def logit_scale(self) -> Tensor:
        """CLIP's inverse temperature, a float32 scalar."""
        return logit_scale(self.clip)

    @torch.no_grad()
    def encode_image(self, images: Tensor) -> Tensor:
        """Normalised image features, (B, 3, H, W) -> (B, E), float32, without gradients."""
        return encode_images(self.clip, images)

    @property
    def prompts_at_once(self) -> int:
        """Number of prompts of the maximum length that are encoded at once."""
        return self.text_chunk or token_limit(self.clip) // (max(self.prompt_learner.lengths) - self._start)

    @property
    def _start(self) -> int:
        """The first token that is encoded for each class, after those that are encoded once per context."""
        return 0 if self.clip.causal_tower is None else self.prompt_learner.n_shared

    def encode_text(self, ctx: Tensor | None = None, classes: Sequence[int] | None = None) -> Tensor:
        """Normalised class features under one context or R contexts.

        Args:
            ctx: (L, D) -> (K, E), or (R, L, D) -> (R, K, E); class-specific contexts are (K, L, D) and
                (R, K, L, D). Default: the learner's own context.
            classes: Classes to encode. Default: all K.

        Returns:
            float32 features; gradients flow to `ctx`.
        """
        learner = self.prompt_learner
        ctx = learner.ctx if ctx is None else ctx
        single = ctx.dim() == learner.ctx.dim()
        contexts = ctx[None] if single else ctx
        classes = range(len(learner.lengths)) if classes is None else classes
        own = tuple(learner.lengths[k] - self._start for k in classes)
        limits = self.text_chunk, token_limit(self.clip)
        plan = place_chunks(tuple(classes), own, len(contexts), *limits, learner.tokens.device)
        features = torch.cat([self._encode_group(group, plan) for group in torch.split(contexts, plan.contexts)])
        return features[0] if single else features

    def _encode_group(self, contexts: Tensor, plan: PlacedChunks) -> Tensor:
        """Features of all classes under contexts that are encoded together: (R, K, E)."""
        tower = self.clip.causal_tower
        states = tower.prefix(self.prompt_learner.prefix(contexts)) if tower else None
        features = []
        for classes, longest in plan.classes:
            args = contexts, states, classes, self._start + longest
            if plan.many and torch.is_grad_enabled():
                # CLIP's text encoder uses no random numbers.
                features.append(checkpoint(self._encode_chunk, *args, use_reentrant=False, preserve_rng_state=False))
            else:
                features.append(self._encode_chunk(*args))
        return torch.cat(features, dim=1)[:, plan.order]

    def _encode_chunk(self, contexts: Tensor, states: Tensor | None, classes: Tensor, longest: int) -> Tensor:
        """Features of K classes under R contexts, given the `states` of the shared tokens: (R, K, E)."""
        learner, tower = self.prompt_learner, self.clip.causal_tower
        if tower is None or states is None:
            x = learner(contexts, classes, 0, longest)
            tokens = learner.tokens[classes, :longest].repeat(len(contexts), 1)
            features = self.clip.encode_embeddings(x.flatten(0, 1), tokens).view(*x.shape[:2], -1)
        else:
            x = learner(contexts, classes, learner.n_shared, longest)
            features = tower.suffix(x, states, learner.eos[classes] - learner.n_shared)
        return F.normalize(features.float(), dim=-1)

    def logits(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        """Scaled cosine similarities: (..., E) and (K, E) -> (..., K), float32."""
        return self.logit_scale * image_features @ text_features.t()

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images under the learner's own context: (B, 3, H, W) -> (B, K)."""
        return self.logits(self.encode_image(images), self.encode_text())
