"""Builds the transforms that INPUT.TRANSFORMS names. The order is fixed; that of the names plays no role."""

from collections.abc import Callable, Sequence
from difflib import get_close_matches

import torchvision.transforms as T
from torchvision.transforms import InterpolationMode
from yacs.config import CfgNode

from .ops import Cutout, GaussianNoise, InstanceNormalization, Random2DTranslation
from .randaugment import RandAugment, RandAugment2, RandAugmentFixMatch

INTERPOLATION_MODES = {
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
    "nearest": InterpolationMode.NEAREST,
}


def get_interpolation(name: str) -> InterpolationMode:
    """Returns the mode of that name.

    Raises:
        ValueError: Unknown name.
    """
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


def _policy(name: str, policy: T.AutoAugmentPolicy) -> Callable[[CfgNode], tuple[str, Callable]]:
    return lambda cfg: (name, T.AutoAugment(policy))


# Name -> function of cfg to (what is printed, the transform), in the order of application.
_ON_IMAGES = {
    "random_translation": lambda cfg: ("random translation", Random2DTranslation(*cfg.INPUT.SIZE)),
    "random_crop": lambda cfg: (
        f"random crop (padding = {cfg.INPUT.CROP_PADDING})",
        T.RandomCrop(cfg.INPUT.SIZE, padding=cfg.INPUT.CROP_PADDING),
    ),
    "random_resized_crop": _random_resized_crop,
    "random_flip": lambda cfg: ("random flip", T.RandomHorizontalFlip()),
    "imagenet_policy": _policy("imagenet policy", T.AutoAugmentPolicy.IMAGENET),
    "cifar10_policy": _policy("cifar10 policy", T.AutoAugmentPolicy.CIFAR10),
    "svhn_policy": _policy("svhn policy", T.AutoAugmentPolicy.SVHN),
    "randaugment": lambda cfg: (
        f"randaugment (n={cfg.INPUT.RANDAUGMENT_N}, m={cfg.INPUT.RANDAUGMENT_M})",
        RandAugment(cfg.INPUT.RANDAUGMENT_N, cfg.INPUT.RANDAUGMENT_M),
    ),
    "randaugment_fixmatch": lambda cfg: (
        f"randaugment_fixmatch (n={cfg.INPUT.RANDAUGMENT_N})",
        RandAugmentFixMatch(cfg.INPUT.RANDAUGMENT_N),
    ),
    "randaugment2": lambda cfg: (
        f"randaugment2 (n={cfg.INPUT.RANDAUGMENT_N})",
        RandAugment2(cfg.INPUT.RANDAUGMENT_N),
    ),
    "colorjitter": _colorjitter,
    "randomgrayscale": lambda cfg: ("random gray scale", T.RandomGrayscale(p=cfg.INPUT.RGS_P)),
    "gaussian_blur": lambda cfg: (
        f"gaussian blur (kernel={cfg.INPUT.GB_K})",
        T.RandomApply([T.GaussianBlur(cfg.INPUT.GB_K)], p=cfg.INPUT.GB_P),
    ),
}
_ON_TENSORS = {
    "cutout": lambda cfg: (
        f"cutout (n_holes={cfg.INPUT.CUTOUT_N}, length={cfg.INPUT.CUTOUT_LEN})",
        Cutout(cfg.INPUT.CUTOUT_N, cfg.INPUT.CUTOUT_LEN),
    ),
    "normalize": _normalize,
    "gaussian_noise": lambda cfg: (
        f"gaussian noise (mean={cfg.INPUT.GN_MEAN}, std={cfg.INPUT.GN_STD})",
        GaussianNoise(cfg.INPUT.GN_MEAN, cfg.INPUT.GN_STD),
    ),
    "instance_norm": lambda cfg: ("instance normalization", InstanceNormalization()),
}
_AT_TEST = ("normalize", "instance_norm")
# center_crop is always applied in testing; its name is accepted, and changes nothing.
AVAI_CHOICES = (*_ON_IMAGES, *_ON_TENSORS, "center_crop")


def build_transform(cfg: CfgNode, is_train: bool = True, choices: Sequence[str] | None = None) -> T.Compose | None:
    """Builds the transform from a PIL image to a float tensor of shape (3, *INPUT.SIZE).

    Args:
        cfg: The configuration tree.
        is_train: For training. For testing: the shorter side to max(INPUT.SIZE), centre crop, and of the choices only
            normalize and instance_norm.
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
    steps = _train_steps(cfg, choices) if is_train else _test_steps(cfg, choices)
    for text, _ in steps:
        print(f"+ {text}")
    return T.Compose([transform for _, transform in steps])


def _train_steps(cfg: CfgNode, choices: Sequence[str]) -> list[tuple[str, Callable]]:
    steps = []
    if "random_crop" not in choices and "random_resized_crop" not in choices:
        size = cfg.INPUT.SIZE
        resize = T.Resize(size, interpolation=get_interpolation(cfg.INPUT.INTERPOLATION))
        steps.append((f"resize to {size[0]}x{size[1]}", resize))
    steps += [build(cfg) for name, build in _ON_IMAGES.items() if name in choices]
    steps.append(("to torch tensor of range [0, 1]", T.ToTensor()))
    return steps + [build(cfg) for name, build in _ON_TENSORS.items() if name in choices]


def _test_steps(cfg: CfgNode, choices: Sequence[str]) -> list[tuple[str, Callable]]:
    size = cfg.INPUT.SIZE
    resize = T.Resize(max(size), interpolation=get_interpolation(cfg.INPUT.INTERPOLATION))
    return [
        (f"resize the smaller edge to {max(size)}", resize),
        (f"{size[0]}x{size[1]} center crop", T.CenterCrop(size)),
        ("to torch tensor of range [0, 1]", T.ToTensor()),
    ] + [_ON_TENSORS[name](cfg) for name in _AT_TEST if name in choices]


def _check(setting: str, value: str, allowed: Sequence[str]) -> None:
    """Refuses a value that is not allowed, and names the nearest that is."""
    if value not in allowed:
        near = get_close_matches(str(value), allowed, n=1)
        hint = f" (do you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"{setting} must be among {tuple(allowed)}, but got {value!r}{hint}")
