"""Pre-training pictures: drawings on white or in scenes, and what is true of each (size, ground, number, colour ...).

All on batches of tensors; nothing here serves the test scenes, whose grounds and clutter are those of
datasets/scene_pictures.py.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(1, 3, 1, 1)  # OpenAI's CLIP
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(1, 3, 1, 1)
COLOURS = {
    "red": (0.85, 0.15, 0.15),
    "orange": (0.95, 0.55, 0.1),
    "yellow": (0.97, 0.85, 0.25),
    "green": (0.25, 0.65, 0.3),
    "blue": (0.2, 0.4, 0.85),
    "purple": (0.5, 0.25, 0.7),
    "pink": (0.95, 0.55, 0.75),
    "brown": (0.45, 0.3, 0.18),
    "grey": (0.55, 0.55, 0.55),
    "black": (0.07, 0.07, 0.07),
    "white": (1.0, 1.0, 1.0),
}
NAMES = tuple(COLOURS)
# What a caption can say of a picture. A picture's value is an index into these words, UNKNOWN where neither a word nor
# its opposite is clearly true, NONE where every word is false. Of the companion, the value is its label or category.
WORDS = {
    "size": ("small", "large"),
    "position": ("left", "right", "top", "bottom", "middle"),
    "ground": NAMES,
    "pattern": ("plain", "shaded", "striped", "dotted", "busy"),
    "number": ("one", "two"),
    "paint": (*NAMES, "colourful"),
    "companion": (),
    "companion category": (),
}
ATTRIBUTES = {name: k for k, name in enumerate(WORDS)}
UNKNOWN, NONE = -1, -2
SIZE = 64
PALETTE = torch.tensor(list(COLOURS.values()))
BLACK, WHITE = NAMES.index("black"), NAMES.index("white")
GREYS = tuple(NAMES.index(c) for c in ("grey", "black", "white"))
# Upper ends of the hues (in sixths of the circle) of the named colours; beyond the last it is red again.
HUES = ((0.25, "red"), (0.7, "orange"), (1.15, "yellow"), (2.8, "green"), (4.3, "blue"), (5.0, "purple"), (5.7, "pink"))


def normalize_pixels(images: Tensor) -> Tensor:
    """uint8 or 0..1 float (B, 3, H, W) -> what the image encoder takes."""
    images = images.float() / 255 if images.dtype == torch.uint8 else images
    return ((images - MEAN) / STD).contiguous(memory_format=torch.channels_last)


def _uniform(n: int, low: float, high: float) -> Tensor:
    return torch.empty(n).uniform_(low, high)


def _log_uniform(n: int, low: float, high: float) -> Tensor:
    return _uniform(n, math.log(low), math.log(high)).exp()


def _some(n: int, share: float) -> Tensor:
    return (torch.rand(n) < share).view(-1, 1, 1, 1)


def backgrounds(images: Tensor) -> Tensor:
    """White pixels connected with the border: (N, 3, H, W) uint8 -> (N, H, W) bool. What a scene shows through."""
    white = (images.amin(1) >= 240).permute(1, 2, 0).contiguous()  # (H, W, N): a row of all images is one operation
    seen = white.clone()
    seen[1:-1, 1:-1] = False
    while True:
        before = seen.clone()
        for line, open_line in ((seen, white), (seen.transpose(0, 1), white.transpose(0, 1))):
            for k in range(1, len(line)):
                line[k] |= line[k - 1] & open_line[k]
                line[-1 - k] |= line[-k] & open_line[-1 - k]
        if torch.equal(before, seen):
            return seen.permute(2, 0, 1).contiguous()


@dataclass
class Layer:
    """Drawings in 0..1 with their opacity, and whether each is a black one that can take any paint."""

    rgb: Tensor  # (N, 3, H, W)
    alpha: Tensor  # (N, 1, H, W)
    mono: Tensor  # (N,) bool


def cut_out(images: Tensor, is_outside: Tensor, mono: Tensor) -> Layer:
    """Drawings without their white surroundings; of three in ten, white inside is open, too."""
    rgb = images.float() / 255
    open_white = ((rgb.amin(1, keepdim=True) - 0.88) / 0.1).clamp(0, 1)
    alpha = torch.where(_some(len(images), 0.3), 1 - open_white, 1 - is_outside[:, None].float())
    return Layer(rgb, alpha, mono)


def recolour(layer: Layer) -> Tensor:
    """Change the tone of drawings, paint black ones; the value of `paint` that is then true of each: (N,)."""
    n, x = len(layer.rgb), layer.rgb
    x = torch.where(_some(n, 0.5), x * (1 + 0.2 * torch.randn(n, 1, 1, 1)), x).clamp(0, 1)
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * _uniform(n, 0.2, 1.6).view(-1, 1, 1, 1)
    harder = ((grey - 0.6) * _uniform(n, 1, 4).view(-1, 1, 1, 1) + 0.6).clamp(0, 1).expand_as(x)
    x = torch.where(_some(n, 0.2), harder, x)
    x = torch.where(_some(n, 0.12), x[:, torch.randperm(3)], x).clamp(0, 1)
    paint = torch.where(torch.rand(n) < 0.6, torch.randint(len(NAMES) - 1, (n,)), torch.tensor(BLACK))
    painted = 1 - (1 - x) * (1 - PALETTE[paint] * 0.98)[:, :, None, None]
    layer.rgb = torch.where(layer.mono.view(-1, 1, 1, 1), painted, x)
    return torch.where(layer.mono, paint, _seen_colour(layer))


def _seen_colour(layer: Layer) -> Tensor:
    """The hue that nearly all of a drawing's colour has, `colourful` if it has many: (N,)."""
    high, low = layer.rgb.amax(1), layer.rgb.amin(1)
    r, g, b = layer.rgb.unbind(1)
    chroma = (high - low).clamp(min=1e-6)
    sixth = torch.where(
        high == r, (g - b) / chroma % 6, torch.where(high == g, (b - r) / chroma + 2, (r - g) / chroma + 4)
    )
    weight = (high - low) * layer.alpha[:, 0]
    total = weight.sum((1, 2)).clamp(min=1e-6)
    angle = sixth * (math.pi / 3)
    east, north = ((weight * f(angle)).sum((1, 2)) / total for f in (torch.cos, torch.sin))
    strength = total / layer.alpha.sum((1, 2, 3)).clamp(min=1)
    hue = torch.atan2(north, east) / (math.pi / 3) % 6
    bounds = torch.tensor([end for end, _ in HUES])
    named = torch.tensor([NAMES.index(name) for _, name in HUES] + [0])[torch.bucketize(hue, bounds)]
    pure = (east**2 + north**2).sqrt()
    value = torch.full_like(named, UNKNOWN)
    value = torch.where((pure > 0.9) & (strength > 0.2), named, value)
    return torch.where((pure < 0.75) & (strength > 0.15), WORDS["paint"].index("colourful"), value)


@dataclass
class Placement:
    """Where drawings stand: centre in -1..1 of the picture, side as a share of the picture's."""

    x: Tensor
    y: Tensor
    side: Tensor

    def attribute(self) -> Tensor:
        """The value of `position`: (N,)."""
        value = torch.where(self.x.abs() > self.y.abs(), (self.x > 0).long(), 2 + (self.y > 0).long())
        far, near = (torch.maximum(self.x.abs(), self.y.abs()) > 0.35), torch.minimum(self.x.abs(), self.y.abs())
        value = torch.where(far & (near < 0.6 * torch.maximum(self.x.abs(), self.y.abs())), value, UNKNOWN)
        middle = torch.maximum(self.x.abs(), self.y.abs()) < 0.12
        return torch.where(middle, WORDS["position"].index("middle"), value)


def place(area: Tensor) -> Placement:
    """Random places of drawings that take these shares of the picture's area (above 1: the picture is a detail)."""
    side = area.sqrt()
    room = (1 - side).abs() + 0.15 * side  # up to a seventh of a drawing may be cut off
    room = torch.where(torch.rand(len(area)) < 0.25, 0.1 * room, room)
    return Placement(_uniform(len(area), -1, 1) * room, _uniform(len(area), -1, 1) * room, side)


def paste(picture: Tensor, layer: Layer, where: Placement) -> Tensor:
    """Draw the layer over the picture, a little turned and stretched, at times mirrored."""
    n = len(picture)
    ratio, angle = _uniform(n, -0.2, 0.2).exp(), torch.randn(n) * 0.12
    flip = torch.where(torch.rand(n) < 0.5, -1.0, 1.0)
    wide, high = 1 / (where.side * ratio), ratio / where.side
    cos, sin = angle.cos(), angle.sin()
    row0 = torch.stack([wide * cos * flip, wide * sin * flip, -wide * flip * (cos * where.x + sin * where.y)], 1)
    row1 = torch.stack([-high * sin, high * cos, -high * (cos * where.y - sin * where.x)], 1)
    theta = torch.stack([row0, row1], 1)
    over = torch.cat([layer.rgb * layer.alpha, layer.alpha], 1)
    drawn = torch.empty(n, 4, SIZE, SIZE)
    for shrunk in (False, True):  # without it, small drawings would be read between their pixels
        chosen = (where.side < 0.6) == shrunk
        if chosen.any():
            source = F.avg_pool2d(over[chosen], 2) if shrunk else over[chosen]
            grid = F.affine_grid(theta[chosen], [len(source), 4, SIZE, SIZE], align_corners=False)
            drawn[chosen] = F.grid_sample(source, grid, align_corners=False)
    return drawn[:, :3] + picture * (1 - drawn[:, 3:])


def grounds(n: int, white: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Grounds (N, 3, 64, 64), plain white where asked; the values of `ground` and `pattern`."""
    colour = torch.where(white, torch.tensor(WHITE), torch.randint(len(NAMES), (n,)))
    base = (PALETTE[colour] + torch.where(white, 0.0, 0.05)[:, None] * torch.randn(n, 3))[:, :, None, None]
    pattern = torch.multinomial(torch.tensor([0.2, 0.2, 0.1, 0.1, 0.4]), n, replacement=True)
    pattern[white] = 0
    shade = F.interpolate(torch.rand(n, 3, 4, 4) - 0.5, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    amount = torch.where(pattern == 1, 0.5, torch.where(pattern == 4, 0.6, 0.0)).view(-1, 1, 1, 1)
    picture = base + amount * shade * _uniform(n, 0.5, 1.3).view(-1, 1, 1, 1)
    ink = (torch.rand(n, 3) * 0.6 + (base[:, :, 0, 0] < 0.5) * 0.4)[:, :, None, None]
    y, x = torch.meshgrid(torch.linspace(-1, 1, SIZE), torch.linspace(-1, 1, SIZE), indexing="ij")
    u, v = _turned(x, y, _uniform(n, 0, math.pi))
    rate = _uniform(n, 8, 26).view(-1, 1, 1)
    stripes, dots = (rate * u).sin() > 0.2, (rate * u).sin() * (rate * v).sin() > 0.35
    marks = torch.where((pattern == 2).view(-1, 1, 1), stripes, dots & (pattern == 3).view(-1, 1, 1))
    picture = torch.where(marks[:, None], ink, picture)
    busy = pattern == 4
    picture[busy] = _clutter(picture[busy], x, y)
    return picture.clamp(0, 1), colour, pattern


def _turned(x: Tensor, y: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    cos, sin = angle.cos().view(-1, 1, 1), angle.sin().view(-1, 1, 1)
    return cos * x + sin * y, cos * y - sin * x


def _clutter(picture: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Some rectangles, ellipses and lines of any colour."""
    n = len(picture)
    count = torch.randint(2, 9, (n,))
    for k in range(8):
        u, v = _turned(
            x - _uniform(n, -1, 1).view(-1, 1, 1), y - _uniform(n, -1, 1).view(-1, 1, 1), _uniform(n, 0, 3.2)
        )
        wide, high = _log_uniform(n, 0.08, 0.7).view(-1, 1, 1), _log_uniform(n, 0.05, 0.35).view(-1, 1, 1)
        u, v = u.abs() / wide, v.abs() / high
        inside = torch.where(torch.rand(n, 1, 1) < 0.6, torch.maximum(u, v), u**2 + v**2) < 1
        inside &= (k < count).view(-1, 1, 1)
        picture = torch.where(inside[:, None], torch.rand(n, 3, 1, 1), picture)
    return picture


def compose_pictures(main: Layer, companion: Layer, has_companion: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures of the main drawings, some with a second copy or (where asked) a companion, on white or in a scene.

    Args:
        main: N drawings.
        companion: M drawings, of the pictures that have a companion.
        has_companion: Which pictures do: (N,) bool with M true.

    Returns:
        Pictures in 0..1 (N, 3, 64, 64), and the values of all attributes (N, A), without a companion's.
    """
    n = len(main.rgb)
    twice = ~has_companion & (torch.rand(n) < 0.15)
    second = has_companion | twice
    on_white = (torch.rand(n) < 0.4) & ~has_companion
    area = _areas(n, on_white)
    area = torch.where(second, area.clamp(max=0.45), area)
    paint = recolour(main)
    recolour(companion)
    picture, ground, pattern = grounds(n, on_white)
    hidden = (paint >= 0) & ((paint == ground) | ((paint == BLACK) & (PALETTE[ground].mean(1) < 0.3)))
    picture = torch.where(hidden.view(-1, 1, 1, 1), 1 - picture, picture)
    ground = torch.where(hidden, UNKNOWN, ground)
    where = place(area)
    crowded = second & (torch.maximum(where.x.abs(), where.y.abs()) < 0.3)
    where.x = torch.where(crowded, torch.where(where.x > 0, 1.0, -1.0) * _uniform(n, 0.3, 0.6), where.x)
    picture[second] = paste(
        picture[second], _extra(main, companion, has_companion, twice), _opposite(where, second, twice)
    )
    picture = paste(picture, main, where)
    size = torch.where(area < 0.3, 0, torch.where(area > 0.55, 1, UNKNOWN))
    position = torch.where(twice, UNKNOWN, where.attribute())
    rest = torch.full((n,), NONE)
    attributes = torch.stack([size, position, ground, pattern, twice.long(), paint, rest, rest], 1)
    return torch.where(_some(n, 0.3), picture * (1 + 0.15 * torch.randn(n, 1, 1, 1)), picture).clamp(0, 1), attributes


def _areas(n: int, on_white: Tensor) -> Tensor:
    """Shares of the picture's area: a third small (not on white), a fifth so large that a detail is seen."""
    draw = torch.rand(n)
    small = torch.where(on_white, _log_uniform(n, 0.5, 1.3), _log_uniform(n, 0.1, 0.5))
    area = torch.where(draw < 0.35, small, _log_uniform(n, 0.4, 1.3))
    return torch.where(draw > 0.8, _log_uniform(n, 1.2, 6.0), area)


def _extra(main: Layer, companion: Layer, has_companion: Tensor, twice: Tensor) -> Layer:
    """The second drawings, in the order of their pictures."""
    rgb, alpha = main.rgb.clone(), main.alpha.clone()
    rgb[has_companion], alpha[has_companion] = companion.rgb, companion.alpha
    second = has_companion | twice
    return Layer(rgb[second], alpha[second], main.mono[second])


def _opposite(where: Placement, second: Tensor, twice: Tensor) -> Placement:
    """Across the picture's middle; a companion is smaller."""
    side = where.side * torch.where(twice, 1.0, _uniform(len(twice), 0.55, 1.0))
    return Placement(-where.x[second], -where.y[second], side[second])
