"""Classes of the benchmark and the split of their emoji into train, val and test: the same in every style."""

import random
from collections import defaultdict

from .drawings import Catalog, EmojiEntry

# style -> (dataset name, role, title). The source has train, val and test; a shifted style only has test.
STYLES = {
    "noto": ("Emoji", "source", "Noto (source)"),
    "twemoji": ("EmojiTwemoji", "shifted", "Twemoji"),
    "openmoji": ("EmojiOpenMoji", "shifted", "OpenMoji"),
    "openmoji_black": ("EmojiOpenMojiBlack", "shifted", "OpenMoji black"),
    "fluent_flat": ("EmojiFluentFlat", "shifted", "Fluent flat"),
    "fluent_contrast": ("EmojiFluentContrast", "shifted", "Fluent contrast"),
    "fluent_3d": ("EmojiFluent3D", "shifted", "Fluent 3D"),
}

CLASSES = {
    "mammal": ("animal-mammal", "monkey-face"),
    "bird": ("animal-bird",),
    "sea animal": ("animal-marine",),
    "bug": ("animal-bug",),
    "plant": ("plant-flower", "plant-other"),
    "fruit": ("food-fruit",),
    "vegetable": ("food-vegetable",),
    "meal": ("food-prepared", "food-asian"),
    "dessert": ("food-sweet",),
    "drink": ("drink",),
    "land vehicle": ("transport-ground",),
    "clothing": ("clothing",),
    "sports equipment": ("sport",),
    "athlete": ("person-sport",),
    "tool": ("tool",),
    "office supply": ("office", "book-paper", "writing"),
    "household item": ("household", "dishware"),
    "building": ("place-building", "place-religious"),
    "landscape": ("place-other", "place-geographic"),
    "weather": ("sky-weather",),
    "electronic device": ("phone", "computer", "light-video"),
    "happy face": ("face-smiling", "face-affection", "face-tongue", "face-hat", "face-glasses"),
    "unhappy face": ("face-concerned", "face-negative", "face-unwell"),
    "hand gesture": ("hand-fingers-open", "hand-fingers-partial", "hand-single-finger", "hand-fingers-closed", "hands"),
    "heart": ("heart",),
    "sign": ("warning", "transport-sign"),
}
MAX_TEST = 36
VAL_SHARE = 0.15
SEED = 7

Split = dict[str, dict[str, list[str]]]  # class -> split -> codes


def _groups(emoji: list[EmojiEntry]) -> list[list[EmojiEntry]]:
    """Emoji of one concept together, so that a man surfing never trains what a woman surfing tests."""
    groups: dict[str, list[EmojiEntry]] = defaultdict(list)
    for e in sorted(emoji, key=lambda e: e.code):
        groups[e.concept].append(e)
    return list(groups.values())


def _take(groups: list[list[EmojiEntry]], count: int) -> list[str]:
    """Codes of the first groups, until `count` is reached; takes them off the list."""
    codes: list[str] = []
    while groups and len(codes) < count:
        codes += [e.code for e in groups.pop(0)]
    return sorted(codes)


def make_split(catalog: Catalog, styles: dict[str, set[str]]) -> Split:
    """Half of each class (at most MAX_TEST) to test, 15 % to val, the rest to train.

    Args:
        catalog: names and subgroups.
        styles: the codes that each style has drawn; the benchmark keeps what all of them share.
    """
    common = set.intersection(*styles.values())
    split: Split = {}
    for name, subgroups in CLASSES.items():
        emoji = [e for e in catalog.emoji.values() if e.subgroup in subgroups and e.code in common]
        groups = _groups(emoji)
        random.Random(f"{SEED} {name}").shuffle(groups)
        test = _take(groups, min(MAX_TEST, len(emoji) // 2))
        val = _take(groups, round(VAL_SHARE * len(emoji)))
        split[name] = {"train": _take(groups, len(emoji)), "val": val, "test": test}
    return split
