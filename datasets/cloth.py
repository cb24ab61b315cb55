"""Three kinds of cloth, woven by program: classes that EmojiCLIP was not pre-trained on, nor on their names.

A thread crosses over two and under two others, one further in each row; the kinds differ in the colours of the threads.
"""

import numpy as np

from .scene_pictures import Array, Dice

SIZE = 96
CLOTH = ("twill", "tartan", "houndstooth")


def _threads(name: str, dice: Dice, light: Array, dark: Array) -> tuple[list[Array], list[Array]]:
    """Colours of the threads along and across, which repeat."""
    if name == "twill":  # one colour along, another across: fine diagonal lines
        return [light], [dark]
    if name == "houndstooth":  # four light and four dark threads in both directions: broken checks with pointed corners
        bands = [light] * 4 + [dark] * 4
    else:  # bands of three to five colours, the same in both directions
        colours = [light, dark, *(dice.colour(20, 250) for _ in range(dice.between(1, 3)))]
        bands = [colour for colour in colours for _ in range(dice.between(2, 9))]
    return bands, bands


def weave(name: str, seed: str) -> Array:
    """A picture of a cloth, the same on every machine: (96, 96, 3) uint8."""
    dice = Dice(f"{name} {seed}")
    along, across = _threads(name, dice, dice.colour(150, 250), dice.colour(10, 120))
    wide, left, top = dice.between(2, 4), dice.below(64), dice.below(64)
    y, x = np.mgrid[:SIZE, :SIZE]
    column, row = (x + left) // wide, (y + top) // wide
    over = (column - row) % 4 < 2
    picture = np.where(over[..., None], np.array(along)[column % len(along)], np.array(across)[row % len(across)])
    return np.clip(picture + dice.numbers(-8, 8, SIZE, SIZE, 1), 0, 255).astype(np.uint8)
