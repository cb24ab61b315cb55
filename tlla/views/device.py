"""The views of `tlla.views.make`, made on the device of the decoded image, with the same crops and flips.

Pillow resizes 8-bit images in two passes, each with weights of 22 fractional bits and sums rounded to whole levels.
Here a pass is two matrix products for all views at once, with crops and flips in the matrices: a weight is split into a
coarse part of its upper bits and a fine part of its lower 12. In units of the last bit all partial sums are then whole
numbers below 2 ** 24, exact in float32, and all factors have at most 11 bits, exact in TF32: no order of summation
changes a result. (This is guaranteed for filters of up to 28 pixels, that is crops of 13 times the view's side and
centre crops of 6 times, and holds in practice beyond that.)

Rows come first, as in Pillow before version 13, and the views equal Pillow's. Pillow 13 starts with the columns for
crops that shrink much more in height than in width, which changes some pixels by one level.

torchvision's `resized_crop` rounds differently and needs several kernel launches for each view.
"""

import torch
from torch import Tensor

from ..errors import InputError
from ..precision import float32_products
from .make import ViewConfig, centre_crop_geometry

WEIGHT_BITS = 22  # Pillow's
FINE_BITS = 12
COARSE_BITS = WEIGHT_BITS - FINE_BITS


@torch.no_grad()
def make_views_on_device(image: Tensor, crops: Tensor, config: ViewConfig) -> Tensor:
    """All views of one image: those of `make_views`, exactly or within one level of 255 (see above).

    Args:
        image: (3, H, W), uint8, on the device on which to make the views.
        crops: (V - 1, 5), from `draw_crops`, on the CPU.
        config: Settings without AugMix, whose operations need Pillow.

    Returns:
        (V, 3, size, size) uint8, channels last in memory.

    >>> pixels = torch.full((3, 20, 30), 128, dtype=torch.uint8)
    >>> make_views_on_device(pixels, torch.tensor([[0, 0, 20, 20, 1]]), ViewConfig(size=16)).shape
    torch.Size([2, 3, 16, 16])
    """
    if config.augmix:
        raise InputError("AUGMIX is only available for views made on the CPU: set AUGMIX False or ON_DEVICE False")
    _, height, width = image.shape
    size, n_views = config.size, len(crops) + 1
    geometry = _geometry(width, height, crops, size)
    n_taps = _n_taps(geometry)
    columns, rows = (-(-(n + n_taps) // 8) * 8 for n in (width, height))  # padded for all weights; aligned is faster
    padded = image.new_zeros((3, rows, columns), dtype=torch.float32)
    padded[:, :height, :width] = image
    # In TF32 on a GPU, which is exact here and several times as fast.
    precision = "tf32" if image.device.type == "cuda" else "ieee"
    if image.device.type == "cuda":  # from pinned memory the host does not wait for the copy
        geometry = geometry.pin_memory()
    geometry = geometry.to(image.device, non_blocking=True)
    with torch.autocast(image.device.type, enabled=False), float32_products(image.device, precision):
        (x_at, y_at), (x_coarse, y_coarse), (x_fine, y_fine) = _weights(geometry, size, n_taps)
        coarse, fine = (_dense(part, x_at, columns).view(1, -1, columns) for part in (x_coarse, x_fine))
        half = _resample(coarse, fine, padded.view(1, -1, columns).transpose(1, 2))  # (1, V * size, 3 * rows)
        coarse, fine = (_dense(part, y_at, rows) for part in (y_coarse, y_fine))
        views = _resample(coarse, fine, half.view(n_views, -1, rows).transpose(1, 2))  # (V, size, size * 3)
    return views.to(torch.uint8).view(n_views, size, size, 3).permute(0, 3, 1, 2)


def _geometry(width: int, height: int, crops: Tensor, size: int) -> Tensor:
    """Parameters of resizing along x and y for each view: (2, V, 6) float64.

    Start and length of the box, its length after resizing, the first output pixel, the step to the next one, and the
    radius of the filter.
    """
    geometry = torch.empty(2, len(crops) + 1, 6, dtype=torch.float64)
    resized, first = centre_crop_geometry(width, height, size)
    left, top, right, bottom, flip = torch.as_tensor(crops).unbind(1)
    for axis, (length, box_start, box_end) in enumerate(((width, left, right), (height, top, bottom))):
        geometry[axis, 0] = torch.tensor((0, length, resized[axis], first[axis], 1, 2))  # bicubic
        flipped = flip * (axis == 0)
        fixed = torch.full_like(flip, size), flipped * (size - 1), 1 - 2 * flipped, torch.ones_like(flip)  # bilinear
        geometry[axis, 1:] = torch.stack((box_start, box_end - box_start, *fixed), dim=1)
    return geometry


def _n_taps(geometry: Tensor) -> int:
    _, length, resized, _, _, radius = geometry.unbind(-1)
    return 2 * int((radius * (length / resized).clamp(min=1)).max().ceil()) + 1


def _weights(geometry: Tensor, size: int, n_taps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Input pixels of each output pixel, and the coarse and fine parts of their weights: (2, V, size, taps) each."""
    start, length, resized, first, step, radius = geometry[:, :, None, None].unbind(-1)
    scale = length / resized
    stretch = scale.clamp(min=1)
    centre = (first + step * torch.arange(size, device=geometry.device) + 0.5).transpose(2, 3).mul(scale)
    low = (centre - radius * stretch + 0.5).trunc().clamp(min=0)
    high = torch.minimum((centre + radius * stretch + 0.5).trunc(), length)
    at = low + torch.arange(n_taps, device=geometry.device)
    x = ((at - centre + 0.5) * (1 / stretch)).abs()
    weights = torch.where(radius == 2, _cubic(x), (1 - x).clamp(min=0)).mul(at < high)
    weights = weights / weights.sum(dim=-1, keepdim=True)
    fixed = (weights * 2**WEIGHT_BITS + torch.where(weights < 0, -0.5, 0.5)).trunc()
    coarse = (fixed / 2**FINE_BITS).round()
    fine = fixed - coarse * 2**FINE_BITS
    return (start + at).long(), coarse / 2**COARSE_BITS, fine / 2**FINE_BITS


def _cubic(x: Tensor) -> Tensor:
    """Keys' kernel with a = -1/2, for x >= 0."""
    inner = (1.5 * x - 2.5) * x * x + 1
    outer = (((x - 5) * x + 8) * x - 4) * -0.5
    return torch.where(x < 1, inner, torch.where(x < 2, outer, 0.0))


def _dense(weights: Tensor, at: Tensor, n: int) -> Tensor:
    return weights.new_zeros((*weights.shape[:2], n), dtype=torch.float32).scatter_(2, at, weights.float())


def _resample(coarse: Tensor, fine: Tensor, pixels: Tensor) -> Tensor:
    """Rounded levels of (coarse + fine / 2 ** 10) @ pixels: the fine sums come first and carry into the coarse ones."""
    half = pixels.new_full((1, 1, 1), 2.0 ** (COARSE_BITS - 1))
    levels = torch.baddbmm(half, fine, pixels).floor_()
    return levels.baddbmm_(coarse, pixels, beta=2.0**-COARSE_BITS).floor_().clamp_(0, 255)
