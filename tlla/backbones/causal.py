"""A causal text encoder for prompts that begin with the same tokens.

In a causal encoder a token's output depends only on itself and the tokens before it. K prompts that share their first
P tokens (SOS and the context) therefore share the keys and values of these tokens in every layer: they are computed
once per context, and each class's own tokens attend to them. The last layer computes only EOS. This is exact, including
the gradients.

Letters in shapes: R contexts, K classes, P shared tokens, S own tokens, D text width, E joint space, H heads.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .blocks import add_attention, add_mlp, norm, project


@dataclass(frozen=True)
class CausalTower:
    """A text encoder of residual blocks that is read at EOS.

    Attributes:
        blocks: The blocks; `computes_plainly` holds for each.
        positions: Positional embeddings, (context length, D).
        dtype: Dtype of the residual stream.
        finish: Final norm and projection, (..., D) -> (..., E).
    """

    blocks: Sequence[Any]
    positions: Tensor
    dtype: torch.dtype
    finish: Callable[[Tensor], Tensor]

    def prefix(self, x: Tensor) -> Tensor:
        """Keys and values of the shared tokens.

        Args:
            x: Embeddings of these tokens without positions, (R, P, D).

        Returns:
            (layers, 2, R, H, P, D / H).
        """
        x = (x + self.positions[: x.shape[1]]).to(self.dtype)
        states = []
        for number, block in enumerate(self.blocks):
            queries, keys, values = (part.transpose(1, 2) for part in project(block.attn, norm(block.ln_1, x), 0, 2))
            states.append(torch.stack([keys, values]))
            if number + 1 < len(self.blocks):  # the last block's output for these tokens is not used
                attended = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
                x = add_mlp(block, add_attention(block, x, attended.transpose(1, 2)))
        return torch.stack(states)

    def suffix(self, x: Tensor, states: Tensor, eos: Tensor) -> Tensor:
        """Features of prompts from their own tokens.

        Args:
            x: Embeddings of these tokens without positions, (R, K, S, D).
            states: The output of `prefix` for R contexts.
            eos: Index of EOS in `x`, (K,), int64.

        Returns:
            (R, K, E), not normalised; gradients flow to `x` and `states`.
        """
        n_before, n_own = states.shape[-2], x.shape[2]
        x = (x + self.positions[n_before : n_before + n_own]).to(self.dtype)
        place = torch.arange(n_own, device=x.device)
        later = place > place[:, None]  # (S, S)
        for block, shared in zip(self.blocks[:-1], states[:-1], strict=True):
            queries, keys, values = project(block.attn, norm(block.ln_1, x), 0, 2)
            x = add_mlp(block, add_attention(block, x, _attend(queries, keys, values, shared, later)))
        block = self.blocks[-1]
        classes = torch.arange(len(eos), device=x.device)
        y = norm(block.ln_1, x)
        (queries,) = project(block.attn, y[:, classes, eos][:, :, None], 0, 0)
        keys, values = project(block.attn, y, 1, 2)
        later = (place > eos[:, None])[:, None, None]  # (K, 1, 1, S)
        attended = _attend(queries, keys, values, states[-1], later)  # (R, K, 1, H, D / H)
        x = add_mlp(block, add_attention(block, x[:, classes, eos][:, :, None], attended))
        return self.finish(x[:, :, 0])


def _attend(queries: Tensor, keys: Tensor, values: Tensor, shared: Tensor, later: Tensor) -> Tensor:
    """Attention of a prompt's own tokens to the shared tokens and, except `later` ones, to each other.

    Computed in two parts with one softmax, so that the shared keys are not copied for each class.

    Args:
        queries: (R, K, Q, H, D / H).
        keys: (R, K, S, H, D / H).
        values: (R, K, S, H, D / H).
        shared: Keys and values of the shared tokens, (2, R, H, P, D / H).
        later: Own keys that are masked for a query; broadcasts to (R, K, H, Q, S).

    Returns:
        (R, K, Q, H, D / H).
    """
    shared_keys, shared_values = shared
    n_contexts, n_classes, n_queries = queries.shape[:3]
    queries = queries * queries.shape[-1] ** -0.5
    to_shared = queries.flatten(1, 2).transpose(1, 2) @ shared_keys.mT  # (R, H, K * Q, P)
    to_own = queries.transpose(2, 3) @ keys.permute(0, 1, 3, 4, 2)  # (R, K, H, Q, S)
    to_shared = to_shared.view(n_contexts, -1, n_classes, n_queries, shared_keys.shape[2]).transpose(1, 2)
    scores = torch.cat([to_shared, to_own.masked_fill(later, -torch.inf)], dim=-1)  # (R, K, H, Q, P + S)
    weights = scores.softmax(dim=-1).to(values.dtype)
    of_shared, of_own = weights[..., : shared_keys.shape[2]], weights[..., shared_keys.shape[2] :]
    found: Tensor = of_shared.transpose(1, 2).flatten(2, 3) @ shared_values  # (R, H, K * Q, D / H)
    found = found.view(n_contexts, -1, n_classes, n_queries, found.shape[-1]).permute(0, 2, 3, 1, 4)
    found += (of_own @ values.transpose(2, 3)).transpose(2, 3)
    return found
