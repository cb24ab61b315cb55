"""Whether a config makes the images that a CLIP takes."""

from yacs.config import CfgNode

from tlla.backbones import Backbone
from tlla.errors import InputError

PIXEL_TOLERANCE = 1e-3  # configs round


def check_input(node: CfgNode, clip_model: Backbone) -> None:
    """Raises InputError if the config makes images of another size or normalisation than the model takes."""
    expected, name = clip_model.preprocessing, clip_model.name
    size = expected.size
    if tuple(node.SIZE) != (size, size):
        raise InputError(
            f"INPUT.SIZE is {tuple(node.SIZE)}, but {name} takes images of {size} x {size}: "
            f'add INPUT.SIZE "({size}, {size})" to the command or the config'
        )
    for key, own in (("PIXEL_MEAN", expected.mean), ("PIXEL_STD", expected.std)):
        found = list(node[key])
        same = len(found) == len(own) and all(abs(a - b) < PIXEL_TOLERANCE for a, b in zip(found, own, strict=True))
        if "normalize" in node.TRANSFORMS and not same:
            raise InputError(
                f"INPUT.{key} is {found}, but {name} takes images normalised by {list(own)}: "
                f'add INPUT.{key} "{list(own)}" to the command or the config'
            )
