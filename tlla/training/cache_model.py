"""Tip-Adapter's cache model (Zhang et al., arXiv 2111.03930 and 2207.09519).

Follows gaopengcuhk/Tip-Adapter, main.py and utils.py: with A = z @ keys^T the logits are
``scale * z @ text^T + alpha * exp(-beta * (1 - A)) @ one_hot(labels)``. A key is the mean of an image's features over
augmented passes, normalised only after the mean (as in the code; the papers use a single feature).
Differs: fp32 throughout (upstream: fp16), and the zero-shot logits use the model's own scale (upstream: 100).

Letters in shapes: B images, N cached images, K classes, E joint space.
"""

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..fingerprint import class_order
from ..prompts.checkpoint import Checkpoint
from ..prompts.info import PromptInfo

SEARCH_CHUNK = 1024  # images whose affinities are in memory at once


class Choice(NamedTuple):
    """Values of beta and alpha, and their accuracy in %."""

    beta: float
    alpha: float
    accuracy: float


def make_keys(passes: Iterable[Tensor]) -> Tensor:
    """Keys from unnormalised features of the same images in several augmented passes, (N, E) each -> (N, E).

    >>> make_keys([torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 4.0]])])
    tensor([[0.6000, 0.8000]])
    """
    return F.normalize(reduce(torch.add, (features.float() for features in passes)), dim=-1)


def _cache_logits(affinity: Tensor, values: Tensor, beta: Tensor | float) -> Tensor:
    """Logits of the cache without alpha: affinities (B, N) and one-hot labels (N, K) -> (B, K)."""
    return torch.exp(-beta * (1 - affinity)) @ values


def search_grid(largest: float, steps: int) -> list[float]:
    """Candidates of the search: `steps` values from 0.1, without `largest` itself.

    >>> [round(value, 2) for value in search_grid(0.7, 3)]
    [0.1, 0.3, 0.5]
    """
    return [0.1 + i * (largest - 0.1) / steps for i in range(steps)]


def search(
    features: Tensor,
    labels: Tensor,
    clip_logits: Tensor,
    keys: Tensor,
    values: Tensor,
    betas: Sequence[float],
    alphas: Sequence[float],
) -> Choice:
    """The most accurate beta and alpha; ties go to the smallest beta, then the smallest alpha, as in upstream's loops.

    Args:
        features: Normalised features of the validation images, (B, E).
        labels: Labels of these images, (B,).
        clip_logits: Zero-shot logits, (B, K).
        keys: Keys of the cache, (N, E).
        values: One-hot labels of the keys, (N, K).
        betas: Candidates for beta.
        alphas: Candidates for alpha.

    >>> z, label = torch.eye(2), torch.tensor([0, 1])
    >>> search(z, label, torch.zeros(2, 2), keys=z, values=z, betas=[1.0, 5.5], alphas=[0.5, 1.0])
    Choice(beta=1.0, alpha=0.5, accuracy=100.0)
    """
    hits = torch.zeros(len(betas), len(alphas), dtype=torch.int64, device=features.device)
    parts = (torch.split(tensor, SEARCH_CHUNK) for tensor in (features, labels, clip_logits))
    for z, label, zero_shot in zip(*parts, strict=True):
        affinity = z @ keys.t()
        for b, beta in enumerate(betas):
            cached = _cache_logits(affinity, values, beta)
            for a, alpha in enumerate(alphas):
                hits[b, a] += ((zero_shot + alpha * cached).argmax(dim=1) == label).sum()
    best = int(hits.argmax())  # the first maximum
    beta, alpha = betas[best // len(alphas)], alphas[best % len(alphas)]
    return Choice(beta, alpha, 100 * hits.max().item() / len(labels))


class Cache(nn.Module):
    """Tip-Adapter's cache. The state dict also holds the class names, as a cache serves no others.

    Args:
        n_images: Number of cached images, N.
        embed_dim: Width of the joint space, E.
        classnames: K class names.
        beta: Sharpness of the affinities.
        alpha: Weight of the cache.
        class_ids: What tells the classes apart, if names repeat; () if the names do.
    """

    labels: Tensor
    beta: Tensor
    alpha: Tensor

    def __init__(
        self,
        n_images: int,
        embed_dim: int,
        classnames: Sequence[str],
        beta: float,
        alpha: float,
        class_ids: Sequence[str] = (),
    ):
        super().__init__()
        self.classnames, self.class_ids = list(classnames), list(class_ids)
        self.keys = nn.Parameter(torch.zeros(n_images, embed_dim))
        self.register_buffer("labels", torch.zeros(n_images, dtype=torch.int64))
        self.register_buffer("beta", torch.tensor(float(beta)))
        self.register_buffer("alpha", torch.tensor(float(alpha)))

    @property
    def values(self) -> Tensor:
        """One-hot labels, (N, K)."""
        return F.one_hot(self.labels, len(self.classnames)).float()

    @torch.no_grad()
    def fill(self, keys: Tensor, labels: Tensor) -> None:
        """Sets keys (N, E) and labels (N,), for any N."""
        self.keys.data = keys.to(self.keys, copy=True)  # copied, as training modifies it
        self.labels = labels.to(self.labels, copy=True)

    def set_strength(self, beta: float, alpha: float) -> None:
        """Sets beta and alpha."""
        self.beta.fill_(beta)
        self.alpha.fill_(alpha)

    def forward(self, features: Tensor, clip_logits: Tensor) -> Tensor:
        """Logits: normalised features (B, E) and zero-shot logits (B, K) -> (B, K)."""
        return clip_logits + self.alpha * _cache_logits(features @ self.keys.t(), self.values, self.beta)

    def get_extra_state(self) -> dict[str, Any]:
        """The class names and ids."""
        return {"classnames": self.classnames, "class_ids": self.class_ids}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Refuses a cache for other classes, or for the same in another order, which `load_cache` can sort."""
        if class_order("the cache", state["classnames"], self.classnames) != list(range(len(self.classnames))):
            raise InputError("the cache has the same classes in another order: load it by load_cache")


def load_cache(checkpoint: Checkpoint, cache: Cache, clip_model: nn.Module) -> None:
    """Loads a checkpoint's cache, with any number of images, into `cache`: those of the classes that `cache` has.

    Classes are the same by their ids, if both have them, else by their names.

    Raises:
        InputError: the file does not hold a cache, or one for another backbone, or one without a class of `cache`.

    >>> cache = Cache(2, 128, ["cat", "dog"], beta=5.5, alpha=1.0)
    >>> load_cache(Checkpoint(Path("a.pt"), cache.state_dict()), cache, model)
    """
    path, state = checkpoint.path, checkpoint.state
    expected = cache.state_dict()
    if sorted(state) != sorted(expected):
        raise InputError(f"{path} holds {list(state) or 'nothing'}, expected a cache of Tip-Adapter: {list(expected)}")
    keys, labels = state["keys"], state["labels"]
    if not all(isinstance(value, Tensor) for name, value in state.items() if name != "_extra_state"):
        raise InputError(f"{path} holds something else than tensors as a cache of Tip-Adapter")
    if keys.shape[1:] != cache.keys.shape[1:] or keys.shape[:1] != labels.shape:
        raise InputError(
            f"{path} holds keys of shape {tuple(keys.shape)} and labels of shape {tuple(labels.shape)}, but this run "
            f"needs (N, {cache.keys.shape[1]}) and (N,): use the same backbone as in training"
        )
    if not torch.isfinite(keys).all():
        raise InputError(f"the keys in {path} are not finite (NaN or infinite): train again")
    info = PromptInfo.read(checkpoint)
    info.note_unknown(path)
    info.check_weights(path, clip_model)
    extra = state["_extra_state"] if isinstance(state["_extra_state"], dict) else {}
    names, ids = extra.get("classnames"), extra.get("class_ids", [])
    if not isinstance(names, list) or not isinstance(ids, list) or not all(isinstance(x, str) for x in (*names, *ids)):
        raise InputError(f"{path} does not name the classes of its cache: train again")
    there, here = (ids, cache.class_ids) if ids and cache.class_ids else (names, cache.classnames)
    if labels.is_floating_point() or not all(0 <= label < len(there) for label in labels.tolist()):
        raise InputError(f"{path} has labels that are not numbers of its {len(there)} classes: train again")
    places = torch.full((len(there),), -1)
    places[class_order(f"{path}: the cache", there, here, some=True)] = torch.arange(len(here))
    own = places[labels] >= 0
    cache.fill(keys[own], places[labels[own]])
    cache.set_strength(state["beta"].item(), state["alpha"].item())
