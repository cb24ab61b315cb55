"""Part encoder: OpenAI's own image encoder, ours, and OpenAI's compiled, beside the ceiling of matrix products."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tlla.backbones import as_backbone

from .. import common
from .card import PRECISIONS, kernels, product_rate, tf32
from .sizes import Rows, Sizes

OPENAI, OURS, COMPILED = "OpenAI's", "ours", "OpenAI's, compiled"


def measure(sizes: Sizes) -> Rows:
    """The precisions of the aims first; compiling, which takes longest, last."""
    ways = [(n, precision, way) for n in sizes.at_once for precision in reversed(PRECISIONS) for way in (OPENAI, OURS)]
    for n, precision, way in ways + [(sizes.at_once[0], precision, COMPILED) for precision in ("fp16", "amp")]:
        yield {"views": n, "precision": precision, "forward": way}, rate, n, precision, way, sizes
    for way in (OPENAI, OURS):
        yield {"views": sizes.at_once[0], "precision": "amp", "kernels of": way}, largest_kernels, way, sizes


def forward_of(way: str, precision: str, sizes: Sizes) -> Callable[[Tensor], Tensor]:
    """The encoder, from images to features."""
    model = common.random_clip(sizes.backbone, sizes.device, precision)
    if way == COMPILED:
        compiled = torch.compile(model.visual, backend=sizes.compiler)
        return lambda images: compiled(images.type(model.dtype))
    return (model if way == OPENAI else as_backbone(model)).encode_image


def normal_images(n: int, device: str) -> Tensor:
    """As the views come: channels last in memory."""
    return torch.randn(n, 3, 224, 224, device=device).to(memory_format=torch.channels_last)


@torch.no_grad()
def rate(n: int, precision: str, way: str, sizes: Sizes) -> dict[str, Any]:
    """Time, images a second, and which share of the rate of matrix products that is."""
    images, forward = normal_images(n, sizes.device), forward_of(way, precision, sizes)
    counted = forward_of(OPENAI, precision, sizes) if way == COMPILED else forward
    with tf32(sizes.device, precision == "tf32"), common.in_precision(sizes.device, precision):
        found = common.measure(lambda: forward(images), sizes.device, sizes.repeats)
        with FlopCounterMode(display=False) as counter:
            counted(images[:1])
    operations = n * counter.get_total_flops() / found["median"]
    share = operations / product_rate(sizes.device, precision, sizes.product)
    return found | {"images/s": n / found["median"], "TFLOP/s": operations / 1e12, "of the ceiling": share}


@torch.no_grad()
def largest_kernels(way: str, sizes: Sizes) -> dict[str, Any]:
    """The kernels that need most time, in amp."""
    images, forward = normal_images(sizes.at_once[0], sizes.device), forward_of(way, "amp", sizes)
    with common.in_precision(sizes.device, "amp"):
        return kernels(lambda: forward(images), sizes.device)
