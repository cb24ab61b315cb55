"""Builds the transforms that INPUT.TRANSFORMS names. The order is fixed; that of the names plays no role."""

from collections.abc import Callable, Sequence
from difflib import get_close_matches

import torchvision.transforms as T
from torchvision.transforms import InterpolationMode
from yacs.config import CfgNode

INTERPOLATION_MODES = {
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
    "nearest": InterpolationMode.NEAREST,
}


def get_interpolation(name: str) -> InterpolationMode:
    """Returns the mode of that name. ValueError if it is unknown."""
    _check("INPUT.INTERPOLATION", name, INTERPOLATION_MODES)
    return INTERPOLATION_MODES[name]


def _colorjitter(cfg: CfgNode) -> tuple[str, Callable]:
    i = cfg.INPUT
    b, c, s, h = i.COLORJITTER_B, i.COLORJITTER_C, i.COLORJITTER_S, i.COLORJITTER_H
    return f"color jitter (brightness={b}, contrast={c}, saturation={s}, hue={h})", T.ColorJitter(b, c, s, h)


def _random_resized_crop(cfg: CfgNode) -> tuple[str, Callable]:
    size, scale = cfg.INPUT.SIZE, cfg.INPUT.RRCROP_SCALE
    crop = T.RandomResizedCrop(size, scale=scale, interpolation=get_interpolation(cfg.INPUT.INTERPOLATION))
    return f"random resized crop (size={size}, scale={scale})", crop


def _normalize(cfg: CfgNode) -> tuple[str, Callable]:
    mean, std = cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD
    return f"normalization (mean={mean}, std={std})", T.Normalize(mean=mean, std=std)


# Name -> function of cfg to (what is printed, the transform), in the order of application.
_ON_IMAGES = {
    "random_crop": lambda cfg: (
        f"random crop (padding = {cfg.INPUT.CROP_PADDING})",
        T.RandomCrop(cfg.INPUT.SIZE, padding=cfg.INPUT.CROP_PADDING),
    ),
    "random_resized_crop": _random_resized_crop,
    "random_flip": lambda cfg: ("random flip", T.RandomHorizontalFlip()),
    "colorjitter": _colorjitter,
    "randomgrayscale": lambda cfg: ("random gray scale", T.RandomGrayscale(p=cfg.INPUT.RGS_P)),
    "gaussian_blur": lambda cfg: (
        f"gaussian blur (kernel={cfg.INPUT.GB_K})",
        T.RandomApply([T.GaussianBlur(cfg.INPUT.GB_K)], p=cfg.INPUT.GB_P),
    ),
}
# center_crop is always applied in testing; its name is accepted, and changes nothing.
AVAI_CHOICES = (*_ON_IMAGES, "normalize", "center_crop")


def build_transform(cfg: CfgNode, is_train: bool = True, choices: Sequence[str] | None = None) -> T.Compose | None:
    """Builds the transform from a PIL image to a float tensor of shape (3, *INPUT.SIZE).

    Args:
        cfg: The configuration tree.
        is_train: For training. For testing: the shorter side to max(INPUT.SIZE), centre crop, and of the choices only
            normalize.
        choices: Names that take the place of INPUT.TRANSFORMS.

    Returns:
        The transform, or None with INPUT.NO_TRANSFORM.

    Raises:
        ValueError: Unknown name.
    """
    if cfg.INPUT.NO_TRANSFORM:
        print("Note: no transform is applied!")
        return None
    choices = cfg.INPUT.TRANSFORMS if choices is None else choices
    if isinstance(choices, str):
        raise ValueError(f"INPUT.TRANSFORMS must be a list of names, but got the text {choices!r}")
    for choice in choices:
        _check("INPUT.TRANSFORMS", choice, AVAI_CHOICES)
    print(f"Building transform_{'train' if is_train else 'test'}")
    steps = _train_steps(cfg, choices) if is_train else _test_steps(cfg)
    steps.append(("to torch tensor of range [0, 1]", T.ToTensor()))
    if "normalize" in choices:
        steps.append(_normalize(cfg))
    for text, _ in steps:
        print(f"+ {text}")
    return T.Compose([transform for _, transform in steps])


def _train_steps(cfg: CfgNode, choices: Sequence[str]) -> list[tuple[str, Callable]]:
    steps = []
    if "random_crop" not in choices and "random_resized_crop" not in choices:
        size = cfg.INPUT.SIZE
        resize = T.Resize(size, interpolation=get_interpolation(cfg.INPUT.INTERPOLATION))
        steps.append((f"resize to {size[0]}x{size[1]}", resize))
    return steps + [build(cfg) for name, build in _ON_IMAGES.items() if name in choices]


def _test_steps(cfg: CfgNode) -> list[tuple[str, Callable]]:
    size = cfg.INPUT.SIZE
    resize = T.Resize(max(size), interpolation=get_interpolation(cfg.INPUT.INTERPOLATION))
    return [
        (f"resize the smaller edge to {max(size)}", resize),
        (f"{size[0]}x{size[1]} center crop", T.CenterCrop(size)),
    ]


def _check(setting: str, value: str, allowed: Sequence[str]) -> None:
    """Refuses a value that is not allowed, and names the nearest that is."""
    if value not in allowed:
        near = get_close_matches(str(value), allowed, n=1)
        hint = f" (do you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"{setting} must be among {tuple(allowed)}, but got {value!r}{hint}")
