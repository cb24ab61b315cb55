"""STSS on precomputed features, without images or a model (arXiv 2501.18864, section 4.2).

Letters in shapes: B images, V views, K classes, E joint space, R perturbations.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .arguments import floats, number, whole
from .errors import InputError
from .prompts.choose import PromptLike, make_classifier
from .selection import score_views, select_and_vote
from .sharpness import check_sharpness


@torch.no_grad()
def stss(
    view_features: Tensor | np.ndarray,
    text_features: Tensor | np.ndarray,
    logit_scale: Tensor | float = 100.0,
    *,
    top_s: int = 16,
    lam: float = 1.0,
    vote: str = "mean_prob",
) -> Tensor:
    """Class probabilities from the views whose entropy is low and stays low when the prompt is perturbed.

    Features may have any precision, in torch or NumPy, and need not be normalised.

    Args:
        view_features: Features of one image's views, (V, E), or of several images, (B, V, E).
        text_features: Class features, (R + 1, K, E): first those of the prompt itself, then those of R perturbed
            prompts, as `perturbed_text_features` returns them.
        logit_scale: CLIP's inverse temperature, 100 for OpenAI's models.
        top_s: Views that vote.
        lam: Weight of the sharpness; 0 selects by entropy alone.
        vote: "majority", "mean_prob" or "mean_logit".

    Returns:
        (K,) or (B, K), float32; rows sum to 1.

    Raises:
        InputError: a shape or setting is invalid, or a feature is not finite.

    >>> views, text = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]), torch.eye(2)[None]
    >>> stss(views, text, logit_scale=2.0, top_s=1, lam=0.0).round(decimals=2)
    tensor([0.8800, 0.1200])
    """
    check_sharpness(0.0, lam)
    top_s, scale = whole("top_s", top_s, 1), number("logit_scale", logit_scale)
    view_features = floats("view_features", view_features)
    text_features = floats("text_features", text_features).to(view_features.device)
    single = view_features.dim() == 2
    if view_features.dim() not in (2, 3) or text_features.dim() != 3:
        raise InputError(
            "view features must be (V, E) or (B, V, E), and text features (R + 1, K, E), but got "
            f"{tuple(view_features.shape)} and {tuple(text_features.shape)}"
        )
    if view_features.shape[-1] != text_features.shape[-1]:
        raise InputError(
            f"view features of width {view_features.shape[-1]} and text features of width {text_features.shape[-1]} "
            "are not from the same CLIP"
        )
    if 0 in (*view_features.shape[-2:], *text_features.shape):
        raise InputError(
            "there must be at least one view and one class, but got features of shape "
            f"{tuple(view_features.shape)} and {tuple(text_features.shape)}"
        )
    views, text = (F.normalize(x, dim=-1) for x in (view_features, text_features))
    probability = select_and_vote(score_views(views[None] if single else views, text, scale, lam), top_s, vote)
    return probability[0] if single else probability


@torch.no_grad()
def perturbed_text_features(
    model: nn.Module,
    class_names: Sequence[str],
    prompt: PromptLike = "a photo of a {}.",
    n_perturb: int = 8,
    rho: float = 0.5,
    seed: int = 0,
) -> Tensor:
    """Class features of a prompt and of random perturbations of it, for `stss`.

    Args:
        model: CLIP.
        class_names: One name per class.
        prompt: A template or a learned prompt, see `tlla.prompts.make_classifier`; not an ensemble, nor CoCoOp's
            prompt, which depends on the image.
        n_perturb: R.
        rho: Norm of a perturbation, over all context vectors.
        seed: Seed of the perturbations.

    Returns:
        (R + 1, K, E), normalised, float32, on the model's device.

    Raises:
        InputError: the prompt depends on the image or has no context vectors, or an argument is invalid.

    >>> perturbed_text_features(model, ["cat", "dog"], n_perturb=8).shape
    torch.Size([9, 2, 128])
    """
    n_perturb, seed = whole("n_perturb", n_perturb), whole("seed", seed)
    check_sharpness(rho, 0.0)
    return make_classifier(model, class_names, prompt).perturbed(rho, n_perturb, seed).squeeze(1)
