"""Helpers for modules."""

import warnings
from collections.abc import Iterable

from torch import Tensor, nn

from .checkpoint import load_checkpoint, resume_from_checkpoint, save_checkpoint

__all__ = [
    "count_num_param",
    "init_network_weights",
    "load_checkpoint",
    "load_pretrained_weights",
    "open_all_layers",
    "open_specified_layers",
    "resume_from_checkpoint",
    "save_checkpoint",
]


def count_num_param(model: nn.Module | None = None, params: Iterable[Tensor | dict] | None = None) -> int:
    """Counts the numbers in a module's parameters, or in an iterable of parameters or optimizer groups.

    Raises:
        ValueError: Neither is given.
    """
    if model is not None:
        return sum(p.numel() for p in model.parameters())
    if params is None:
        raise ValueError("count_num_param() needs a model or params, but got neither")
    return sum(_count(item["params"] if isinstance(item, dict) else item) for item in params)


def _count(value: Tensor | Iterable[Tensor]) -> int:
    return value.numel() if isinstance(value, Tensor) else sum(p.numel() for p in value)


def load_pretrained_weights(model: nn.Module, weight_path: str) -> None:
    """Loads those weights of a checkpoint that fit a model by name and shape; says which do not.

    Args:
        model: Changed in place.
        weight_path: A checkpoint of a run, or a plain state dict.

    Raises:
        CheckpointError: The file is missing or unreadable.
    """
    checkpoint = load_checkpoint(weight_path)
    weights = checkpoint.get("state_dict", checkpoint)
    weights = {(k[7:] if k.startswith("module.") else k): v for k, v in weights.items()}
    own = model.state_dict()
    fitting = {k: v for k, v in weights.items() if k in own and own[k].shape == v.shape}
    if not fitting:
        warnings.warn(f"Cannot load {weight_path} (check the key names manually)", stacklevel=2)
        return
    model.load_state_dict(fitting, strict=False)
    print(f"Successfully loaded pretrained weights from {weight_path}")
    discarded = [k for k in weights if k not in fitting]
    if discarded:
        print(f"Layers discarded due to unmatched keys or size: {discarded}")


def open_all_layers(model: nn.Module) -> None:
    """Puts a model in training mode, with gradients everywhere."""
    model.train().requires_grad_(True)


def open_specified_layers(model: nn.Module, open_layers: str | list[str]) -> None:
    """Trains the named children of a model only; all others are frozen and in evaluation mode.

    Raises:
        ValueError: The model has no child of such a name.
    """
    if isinstance(model, nn.DataParallel):
        model = model.module
    names = [open_layers] if isinstance(open_layers, str) else list(open_layers)
    children = dict(model.named_children())
    unknown = [name for name in names if name not in children]
    if unknown:
        raise ValueError(f"open_layers must be among {tuple(children)}, but got {unknown}")
    for name, module in children.items():
        module.train(name in names).requires_grad_(name in names)


def init_network_weights(model: nn.Module, init_type: str = "normal", gain: float = 0.02) -> None:
    """Initialises convolutions and linear layers by ``init_type``, and norms to 1 and 0.

    Args:
        model: Changed in place.
        init_type: normal, xavier, kaiming or orthogonal.
        gain: Standard deviation (normal) or gain (xavier, orthogonal).

    Raises:
        ValueError: Unknown ``init_type``.
    """
    inits = {
        "normal": lambda w: nn.init.normal_(w, 0.0, gain),
        "xavier": lambda w: nn.init.xavier_normal_(w, gain=gain),
        "kaiming": lambda w: nn.init.kaiming_normal_(w, a=0, mode="fan_in"),
        "orthogonal": lambda w: nn.init.orthogonal_(w, gain=gain),
    }
    if init_type not in inits:
        raise ValueError(f"init_type must be one of {tuple(inits)}, but got {init_type!r}")
    for module in model.modules():
        kind = type(module).__name__
        weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
        if ("Conv" in kind or "Linear" in kind) and weight is not None:
            inits[init_type](weight)
        elif ("BatchNorm" in kind or "InstanceNorm" in kind) and weight is not None:
            nn.init.ones_(weight)
        else:
            continue
        if bias is not None:
            nn.init.zeros_(bias)
