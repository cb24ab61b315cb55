"""A faster forward pass of CLIP's ResNets, of OpenAI and open_clip, with the modules' own parameters.

Returns the same numbers as the modules' forward, up to rounding: a batch norm that uses stored statistics is a factor
and a term of each channel, and both move into the convolution before it, so that they need no pass over memory.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STAGES = ("layer1", "layer2", "layer3", "layer4")


def is_plain_resnet(visual: Any) -> bool:
    """Whether `encode_resnet` computes this image encoder: a ModifiedResNet whose norms use stored statistics.

    >>> is_plain_resnet(model.visual), is_plain_resnet(nn.Linear(2, 2))
    (True, False)
    """
    return type(visual).__name__ == "ModifiedResNet" and all(
        type(layer) is nn.BatchNorm2d and layer.affine and layer.running_var is not None and not layer.training
        for layer in visual.modules()
        if "Norm" in type(layer).__name__
    )


def encode_resnet(visual: Any, image: Tensor) -> Tensor:
    """Features of a ResNet: (N, 3, size, size) -> (N, E), not normalised.

    >>> encode_resnet(model.visual, torch.zeros(5, 3, 64, 64)).shape
    torch.Size([5, 128])
    """
    x = image
    for i in (1, 2, 3):
        x = _convolve(getattr(visual, f"conv{i}"), getattr(visual, f"bn{i}"), x).relu_()
    x = visual.avgpool(x)
    for name in STAGES:
        for block in getattr(visual, name):
            x = _run_bottleneck(block, x)
    found: Tensor = visual.attnpool(x)
    return found


def _run_bottleneck(block: Any, x: Tensor) -> Tensor:
    y = _convolve(block.conv1, block.bn1, x).relu_()
    y = block.avgpool(_convolve(block.conv2, block.bn2, y).relu_())
    y = _convolve(block.conv3, block.bn3, y)
    if block.downsample is not None:
        pool, conv, norm = block.downsample
        x = _convolve(conv, norm, pool(x))
    return y.add_(x).relu_()


def _convolve(conv: nn.Conv2d, norm: Any, x: Tensor) -> Tensor:
    """norm(conv(x))."""
    factor = norm.weight * torch.rsqrt(norm.running_var + norm.eps)  # (C,)
    weight = (conv.weight * factor[:, None, None, None]).to(x.dtype)
    bias = (norm.bias - norm.running_mean * factor).to(x.dtype)
    return F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)
