"""What the benchmarks compare with: every prompt has 77 tokens, all pass the encoder in one batch; OpenAI's code."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tlla.backbones.openai_package import CLIP, clip
from tlla.prompts.prompted import PromptedCLIP


class FullLength:
    """The text features of a prompted CLIP's classes in the plainest way, and the image features by OpenAI's code.

    Args:
        model: Gives the CLIP, the class names and the number of context tokens.
    """

    def __init__(self, model: PromptedCLIP):
        learner = model.prompt_learner
        self.model, self.n_ctx = model.clip, learner.n_ctx
        prompts = [f"{' '.join(['X'] * self.n_ctx)} {name}." for name in learner.classnames]
        tokens = clip.tokenize(prompts).to(learner.tokens.device)
        self.eos = tokens.argmax(dim=-1)
        self.embeddings = self.model.token_embedding(tokens)  # (K, 77, D)

    def __call__(self, contexts: Tensor) -> Tensor:
        """R contexts, (R, L, D) -> (R, K, E)."""
        size = len(contexts), len(self.embeddings)
        before, after = self.embeddings[:, :1], self.embeddings[:, 1 + self.n_ctx :]
        parts = (before.expand(*size, -1, -1), contexts[:, None].expand(*size, -1, -1), after.expand(*size, -1, -1))
        x = torch.cat(parts, dim=2).flatten(0, 1) + self.model.positional_embedding  # (R * K, 77, D)
        x = x.to(self.model.dtype)
        x = self.model.ln_final(self.model.transformer(x.permute(1, 0, 2)).permute(1, 0, 2))
        x = x[torch.arange(len(x)), self.eos.repeat(len(contexts))] @ self.model.text_projection
        return F.normalize(x.float(), dim=-1).unflatten(0, size)

    @torch.no_grad()
    def encode_image(self, images: Tensor) -> Tensor:
        """Normalised image features, (N, 3, H, W) -> (N, E)."""
        return openai_features(self.model, images)


def openai_features(model: CLIP, images: Tensor) -> Tensor:
    """Normalised features of images by OpenAI's own `encode_image`, (N, 3, H, W) -> (N, E)."""
    return F.normalize(CLIP.encode_image(model, images).float(), dim=-1)


def measure_or_fit(cost: Callable[[int], dict[str, Any]], measured: list[int], wanted: list[int]) -> dict[int, dict]:
    """Cost by size: measured where it can be, elsewhere on the line through the measured sizes, and marked so."""
    found = {size: cost(size) | {"how": "measured"} for size in sorted(set(measured))}
    for size in set(wanted) - set(found):
        a = torch.tensor([[1.0, n] for n in found], dtype=torch.float64)
        line = {
            key: torch.linalg.lstsq(a, torch.tensor([[found[n][key]] for n in found], dtype=torch.float64)).solution
            for key in ("median", "peak_mb")
        }
        found[size] = {key: float(x[0] + x[1] * size) for key, x in line.items()} | {"how": "extrapolated"}
    return found
