"""FPP's objective: a prompt whose class features change little under noise on its tokens, learned without images.

Flatness-aware prompt pretraining (Jang et al., CVPR 2026, arXiv 2604.27715). With t_k(p) the normalised feature of
class k under the context p, and T_k that of a prompt which the learned one replaces,

    l(p) = mean_k ||t_k(p) - T_k||^2 - w * mean_kr cos(t_k(p), t_k(p + delta_r)),

delta_r normal noise on every token of the text, the same for all classes. No gradient passes t_k(p + delta_r).
Upstream: YonseiML/fpp@bb9917f, fpp_classification.py, init_prompts. There noise is drawn in fp16, here in fp32.

Letters in shapes: K classes, R draws, L context tokens, T text tokens, D text width, E joint space.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..prompts.prompted import PromptedCLIP


def flat_prompt_loss(features: Tensor, target: Tensor, noisy: Tensor, weight: float) -> tuple[Tensor, Tensor, Tensor]:
    """The objective, and its two parts: the squared distance to the target, and the cosine with the noisy features.

    Args:
        features: Normalised class features under the prompt, (K, E); gradients flow to them.
        target: Normalised class features that they stay near to, (K, E).
        noisy: Normalised class features under noise, (K, R, E).
        weight: Of the cosine, w.

    Returns:
        Three scalars.

    >>> flat_prompt_loss(torch.eye(2), torch.eye(2), torch.eye(2)[:, None], weight=1.5)
    (tensor(-1.5000), tensor(0.), tensor(1.))
    """
    distance = (features - target).square().sum(dim=-1).mean()
    cosine = (features[:, None] * noisy).sum(dim=-1).mean()
    return distance - weight * cosine, distance, cosine


@torch.no_grad()
def noisy_features(
    model: PromptedCLIP, ctx: Tensor, on_ctx: Tensor, on_tokens: Tensor, classes: Sequence[int] | None = None
) -> Tensor:
    """Normalised class features under R draws of noise on the context vectors and on all other tokens.

    Args:
        model: The prompted CLIP; as it was, when this returns or fails.
        ctx: Context vectors, (L, D), or (K, L, D) if class-specific.
        on_ctx: Noise on these, (R, L, D).
        on_tokens: Noise on the other tokens by their place, (R, T, D), the same for all classes; SOS and EOS included.
        classes: Classes to encode. Default: all K.

    Returns:
        (K, R, E), float32.

    >>> learner = tlla.prompts.learner.PromptLearner(model, ["cat", "dog"])
    >>> noisy_features(PromptedCLIP(model, learner), learner.ctx, torch.zeros(3, 4, 128), torch.zeros(3, 1, 128)).shape
    torch.Size([2, 3, 128])
    """
    learner = model.prompt_learner
    clean, found = learner.embeddings, []
    try:
        for ctx_noise, token_noise in zip(on_ctx, on_tokens, strict=True):
            learner.embeddings = clean + token_noise
            found.append(model.encode_text(ctx + ctx_noise, classes))
    finally:
        learner.embeddings = clean
    return torch.stack(found, dim=1)
