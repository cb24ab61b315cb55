"""Augmentation of pre-training batches, on tensors: crop, turn, flip, and changes of colour and tone."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(1, 3, 1, 1)  # OpenAI's CLIP
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(1, 3, 1, 1)


def normalize(images: Tensor) -> Tensor:
    """uint8 or 0..1 float (B, 3, H, W) -> what the image encoder takes."""
    images = images.float() / 255 if images.dtype == torch.uint8 else images
    return ((images - MEAN) / STD).contiguous(memory_format=torch.channels_last)


def _uniform(n: int, low: float, high: float) -> Tensor:
    return torch.empty(n).uniform_(low, high)


def _scales(n: int) -> Tensor:
    """Share of the image's area that is seen: mostly 0.35-1.8 (above 1: zoomed out), a fifth 0.08-0.5."""
    usual = _uniform(n, math.log(0.35), math.log(1.8)).exp()
    small = _uniform(n, math.log(0.08), math.log(0.5)).exp()
    return torch.where(torch.rand(n) < 0.2, small, usual)


def geometry(images: Tensor) -> Tensor:
    """Random crop or zoom-out, aspect, turn and flip of images in 0..1; white outside."""
    n = len(images)
    side, ratio, angle = _scales(n).sqrt(), _uniform(n, -0.25, 0.25).exp(), torch.randn(n) * 0.12
    width, height = side * ratio, side / ratio
    x, y = (_uniform(n, -1, 1) * (1 - s).abs() for s in (width, height))
    flip = torch.where(torch.rand(n) < 0.5, -1.0, 1.0)
    row0 = torch.stack([width * angle.cos() * flip, -height * angle.sin(), x], 1)
    row1 = torch.stack([width * angle.sin() * flip, height * angle.cos(), y], 1)
    grid = F.affine_grid(torch.stack([row0, row1], 1), images.shape, align_corners=False)
    # grid_sample pads with zeros: invert, so that zero is white.
    return 1 - F.grid_sample(1 - images, grid, align_corners=False)


def _some(n: int, share: float) -> Tensor:
    return (torch.rand(n) < share).view(-1, 1, 1, 1)


def colours(images: Tensor) -> Tensor:
    """Brightness, saturation, grey with more contrast, swapped channels, a tinted ground, inversion."""
    n = len(images)
    images = torch.where(_some(n, 0.5), images * (1 + 0.2 * torch.randn(n, 1, 1, 1)), images).clamp(0, 1)
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * _uniform(n, 0.2, 1.6).view(-1, 1, 1, 1)
    harder = ((grey - 0.6) * _uniform(n, 1, 4).view(-1, 1, 1, 1) + 0.6).clamp(0, 1).expand_as(images)
    images = torch.where(_some(n, 0.2), harder, images)
    images = torch.where(_some(n, 0.15), images[:, torch.randperm(3)], images)
    tint = torch.rand(n, 3, 1, 1) * 0.6
    images = torch.where(_some(n, 0.1), images * (1 - tint) + tint * torch.rand(n, 3, 1, 1), images)
    return torch.where(_some(n, 0.03), 1 - images, images).clamp(0, 1)


def augment(images: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) -> augmented and normalized."""
    return normalize(colours(geometry(images.float() / 255)))
