"""A faster forward pass of the transformer blocks of OpenAI and open_clip, with the modules' own parameters.

Returns the same numbers as the modules' forward, up to rounding, with fewer passes over memory: tokens stay contiguous
with the batch first, QuickGELU is one kernel (its factors move into the adjacent matrix products), norms compute in the
dtype of their input (with float32 statistics), and the last block computes only the token that is read.

Letters in shapes: N images or texts, T tokens, D width, H heads.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

QUICK = 1.702  # QuickGELU(x) = x * sigmoid(1.702 x)


def computes_plainly(block: nn.Module) -> bool:
    """Whether the functions here compute a block: attention and MLP, each after a norm, and nothing else.

    >>> computes_plainly(model.transformer.resblocks[0]), computes_plainly(nn.Linear(2, 2))
    (True, False)
    """
    attn, mlp = getattr(block, "attn", None), getattr(block, "mlp", None)
    return (
        type(block).__name__ == "ResidualAttentionBlock"
        and not hasattr(block, "ln_1_kv")
        and isinstance(attn, nn.MultiheadAttention)
        and attn.in_proj_weight is not None
        and attn.in_proj_bias is not None
        and attn.bias_k is None
        and isinstance(mlp, nn.Sequential)
        and [name for name, _ in mlp.named_children()] == ["c_fc", "gelu", "c_proj"]
        and all(type(mlp.get_submodule(name)) is nn.Linear for name in ("c_fc", "c_proj"))
    )


def norm(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer norm in the dtype of `x` with float32 statistics; other layers are called unchanged.

    >>> norm(nn.LayerNorm(2), torch.tensor([1.0, 3.0], dtype=torch.float16)).detach()
    tensor([-1.,  1.], dtype=torch.float16)
    """
    if not isinstance(layer, nn.LayerNorm) or layer.weight is None or layer.bias is None:
        return cast(Tensor, layer(x))
    weight, bias = layer.weight.to(x.dtype), layer.bias.to(x.dtype)
    # Not F.layer_norm, which autocast would compute in float32.
    return torch.native_layer_norm(x, list(layer.normalized_shape), weight, bias, layer.eps)[0]


def project(attn: nn.MultiheadAttention, x: Tensor, first: int, last: int) -> tuple[Tensor, ...]:
    """Queries (0), keys (1) and values (2), from `first` to `last`: tokens (..., T, D) -> (..., T, H, D / H) each.

    >>> queries, keys = project(nn.MultiheadAttention(8, num_heads=2), torch.zeros(5, 8), 0, 1)
    >>> queries.shape
    torch.Size([5, 2, 4])
    """
    width = attn.embed_dim
    rows = slice(first * width, (last + 1) * width)
    found = F.linear(x, cast(Tensor, attn.in_proj_weight)[rows], cast(Tensor, attn.in_proj_bias)[rows])
    return found.view(*x.shape[:-1], last - first + 1, attn.num_heads, attn.head_dim).unbind(-3)


def add_attention(block: Any, x: Tensor, attended: Tensor) -> Tensor:
    """The residual stream (..., D) plus the projected output of the heads, (..., H, D / H).

    >>> block = model.transformer.resblocks[0]
    >>> add_attention(block, torch.zeros(5, 128), torch.zeros(5, 2, 64)).equal(block.attn.out_proj.bias.expand(5, -1))
    True
    """
    found = block.attn.out_proj(attended.flatten(-2))
    return x.add(block.ls_1(found) if hasattr(block, "ls_1") else found)


def add_mlp(block: Any, x: Tensor) -> Tensor:
    """The residual stream (..., D) plus the output of the block's norm and MLP.

    >>> x, block = torch.ones(5, 128), model.transformer.resblocks[0]
    >>> torch.allclose(add_mlp(block, x), x + block.mlp(block.ln_2(x)), atol=1e-4)
    True
    """
    y = norm(block.ln_2, x)
    found = _quick_mlp(block.mlp, y) if _is_quick(block.mlp.gelu) else block.mlp(y)
    return x.add(block.ls_2(found) if hasattr(block, "ls_2") else found)


def _is_quick(activation: nn.Module) -> bool:
    return type(activation).__name__ == "QuickGELU"  # of either package


def _quick_mlp(mlp: Any, x: Tensor) -> Tensor:
    """c_proj(QuickGELU(c_fc(x))), as QuickGELU(h) = silu(1.702 h) / 1.702."""
    fc, proj = mlp.c_fc, mlp.c_proj
    hidden = torch.addmm(fc.bias * QUICK, x.flatten(0, -2), fc.weight.t(), alpha=QUICK)
    found = torch.addmm(proj.bias, F.silu(hidden), proj.weight.t(), alpha=1 / QUICK)
    return found.view(*x.shape[:-1], -1)


def _run_block(block: Any, x: Tensor, only_first: bool = False) -> Tensor:
    """One block without a mask: (N, T, D) -> (N, T, D), or (N, 1, D) if `only_first` token is read."""
    y = norm(block.ln_1, x)
    if only_first:
        (queries,) = project(block.attn, y[:, :1], 0, 0)
        keys, values = project(block.attn, y, 1, 2)
        x = x[:, :1]
    else:
        queries, keys, values = project(block.attn, y, 0, 2)
    attended = F.scaled_dot_product_attention(queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2))
    return add_mlp(block, add_attention(block, x, attended.transpose(1, 2)))


def is_plain_vit(visual: Any) -> bool:
    """Whether `encode_vit` computes this image encoder: OpenAI's ViT, or a ViT of open_clip with the same layers.

    >>> from clip.model import VisionTransformer
    >>> is_plain_vit(VisionTransformer(32, 16, 64, 2, 1, 24)), is_plain_vit(model.visual)
    (True, False)
    """
    blocks = getattr(getattr(visual, "transformer", None), "resblocks", ())
    return (
        type(visual).__name__ == "VisionTransformer"
        and len(blocks) > 0
        and all(map(computes_plainly, blocks))
        and getattr(visual, "attn_pool", None) is None
        and getattr(visual, "pool_type", "tok") == "tok"
        and not getattr(visual, "final_ln_after_pool", False)
        and not getattr(visual, "output_tokens", False)
        and isinstance(getattr(visual, "patch_dropout", nn.Identity()), nn.Identity)
    )


def encode_vit(visual: Any, image: Tensor) -> Tensor:
    """Features of a ViT, read at the class token: (N, 3, size, size) -> (N, E), not normalised.

    >>> from clip.model import VisionTransformer
    >>> encode_vit(VisionTransformer(32, 16, 64, 2, 1, 24), torch.zeros(5, 3, 32, 32)).shape
    torch.Size([5, 24])
    """
    patches = visual.conv1(image).flatten(2).transpose(1, 2)
    first = visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
    x = torch.cat([first, patches], dim=1) + visual.positional_embedding.to(patches.dtype)
    x = norm(visual.ln_pre, x)  # (N, T, D)
    *blocks, last = visual.transformer.resblocks
    for block in blocks:
        x = _run_block(block, x)
    x = norm(visual.ln_post, _run_block(last, x, only_first=True)[:, 0])
    return x if visual.proj is None else x @ visual.proj
