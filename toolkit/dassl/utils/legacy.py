"""Reads checkpoints of Dassl 0.6 whose warm-up schedule was pickled as an object, as those of CoOp's authors are.

No code of a file is run here either: torch's reader for plain values makes inert stand-ins of a few named classes, and
refuses all others.
"""

from typing import Any

import torch

_CLASSES = {
    "torch.optim.lr_scheduler": ("StepLR", "MultiStepLR", "CosineAnnealingLR"),
    "torch.optim.sgd": ("SGD",),
    "torch.optim.adam": ("Adam",),
    "torch.optim.adamw": ("AdamW",),
    "torch.optim.rmsprop": ("RMSprop",),
    "dassl.optim.radam": ("RAdam",),
}


def load_legacy(fpath: str) -> dict[str, Any]:
    """Reads such a file; its schedule becomes the state of an LRSchedule after as many epochs.

    Raises:
        Exception: As torch.load(weights_only=True), if the file holds anything else.
    """
    stand_ins = [type(name, (), {"__module__": module}) for module, names in _CLASSES.items() for name in names]
    stand_ins += [dict, _defaultdict()]
    before = list(torch.serialization.get_safe_globals())
    torch.serialization.add_safe_globals(stand_ins)
    try:
        checkpoint = torch.load(fpath, map_location="cpu", weights_only=True)
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)
    schedule = checkpoint["scheduler"]
    checkpoint["scheduler"] = {"last_epoch": checkpoint["epoch"], "base_lrs": schedule["base_lrs"]}
    return checkpoint


def _defaultdict() -> Any:
    """A stand-in for collections.defaultdict that makes a plain dict, the only kind that the reader fills."""

    def make(factory: Any = None) -> dict:
        return {}

    make.__module__, make.__name__, make.__qualname__ = "collections", "defaultdict", "defaultdict"
    return make
