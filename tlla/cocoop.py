"""CoCoOp's conditional context (Zhou et al., "Conditional Prompt Learning for Vision-Language Models", arXiv 2203.05557)."""

from collections import OrderedDict

from torch import Tensor, nn


class MetaNet(nn.Sequential):
    """From image features to a shift of all context vectors: (B, E) -> (B, D). Named as in CoOp's checkpoints.

    Args:
        embed_dim: E, width of the joint space.
        ctx_dim: D, width of the text encoder.
    """

    def __init__(self, embed_dim: int, ctx_dim: int):
        hidden = embed_dim // 16
        layers = (("linear1", nn.Linear(embed_dim, hidden)), ("relu", nn.ReLU()), ("linear2", nn.Linear(hidden, ctx_dim)))
        super().__init__(OrderedDict(layers))

    def forward(self, features: Tensor) -> Tensor:
        """Shift of the context for each image."""
        return super().forward(features)
