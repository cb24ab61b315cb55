"""EmojiCLIP's pre-training images: other emoji styles and icon sets, never a shifted style.

Rules, checked by `check_rules`: no drawing of Twemoji, OpenMoji or Fluent; of Noto and Noto v1 (the source's family)
no benchmark emoji of any split. A benchmark emoji's concept may appear in the pre-training-only styles.
"""

import json
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tlla.files import one_at_a_time, whole_file
from tlla.fingerprint import key_of

from . import rasterize as render
from .drawings import Catalog
from .fetch import fetch, packages
from .lexicon import Categories
from .rasterize import Source, draw_all, iconify_svg
from .split import CLASSES, Split

SOURCE_FAMILY = ("noto", "noto-v1")
OTHER_STYLES = ("emojione", "emojione-v1", "emojione-monotone", "fxemoji")
# Of sets that draw each icon in several weights: the endings to keep (cut from the name), or to leave out.
KEEP_ENDINGS = {"ph": ("-fill", "-duotone"), "solar": ("-bold-duotone", "-linear"), "mingcute": ("-fill", "-line")}
KEEP_ENDINGS |= {"ri": ("-fill",), "la": ("-solid",)}
DROP_ENDINGS = ("-sharp", "-rounded", "-outline", "-outlined", "-negative", "-24px", "-16", "-20", "-24")
DROP_WORDS = set(
    "off remove plus minus alert check cancel lock box circle variant square add delete edit logo align border "
    "arrow chevron number letter alpha beta wifi signal format text sort filter user account file database git "
    "currency brand bitcoin api css html cloud-download table-column select cursor gesture-tap badge".split()
)


@dataclass
class CorpusItem:
    """One pre-training image: where it is drawn from, what its captions can say, how often it is drawn."""

    style: str
    code: str  # empty for an icon
    label: str
    tags: tuple[str, ...]
    category: str | None
    weight: float
    source: Source


def emoji_items(catalog: Catalog, categories: Categories, split: Split) -> list[CorpusItem]:
    """Drawings of the other emoji styles, and of the source's family outside the benchmark."""
    benchmark = {code for parts in split.values() for codes in parts.values() for code in codes}
    items = []
    for style in SOURCE_FAMILY + OTHER_STYLES:
        for code, source in catalog.iconify(style).items():
            if style in SOURCE_FAMILY and code in benchmark:
                continue
            emoji = catalog.emoji[code]
            category = categories.of_subgroup.get(emoji.subgroup)
            weight = {"country-flag": 0.1, "time": 0.3, "subdivision-flag": 0.1}.get(emoji.subgroup, 1.0)
            weight *= 2.5 if category in CLASSES and style in OTHER_STYLES else 1.0
            items.append(CorpusItem(style, code, emoji.label, emoji.tags, category, weight, source))
    return items


def _icon_label(package: str, name: str) -> str | None:
    """Plain words of an icon's name, or None for a variant or a user-interface glyph that is left out."""
    endings = KEEP_ENDINGS.get(package)
    if endings:
        ending = next((e for e in endings if name.endswith(e)), None)
        if ending is None:
            return None
        name = name.removesuffix(ending)
    elif name.endswith(DROP_ENDINGS):
        return None
    words = [w for w in re.sub(r"\b\d+\w?\b", "", name).split("-") if w and w not in ("fill", "flat", "duo", "bold")]
    if not words or len(words) > 4 or DROP_WORDS.intersection(words):
        return None
    return " ".join(words)


def icon_items(catalog: Catalog, categories: Categories) -> list[CorpusItem]:
    """Icons of the general sets. One with a known category is drawn more often than one without."""
    items = []
    names = [n for n, p in packages().items() if p["role"] == "icons"] + ["@iconify-json/streamline-emojis"]
    for package in names:
        icons = json.loads((fetch(package, catalog.work) / "icons.json").read_text(encoding="utf-8"))
        short = package.removeprefix("@iconify-json/")
        for name in sorted(icons["icons"]):
            label = _icon_label(short, name)
            if label is None:
                continue
            category = categories.of_icon(label)
            weight = (0.6 if category else 0.12) * (3.0 if short == "streamline-emojis" else 1.0)
            items.append(CorpusItem(short, "", label, (), category, weight, iconify_svg(icons, name)))
    return items


def sampling_weights(items: list[CorpusItem]) -> np.ndarray:
    """Chance of each item: half of the draws are emoji, a tenth are icons of no known category.

    Crowded categories (office supplies, weather ...) are tempered by a square root.
    """
    share = {"emoji": 0.5, "icon": 0.4, "other": 0.1}
    kinds = ["other" if not item.category else "emoji" if item.code else "icon" for item in items]
    total: dict[str | None, float] = defaultdict(float)
    for item in items:
        total[item.category] += item.weight
    weights = np.array([item.weight / total[item.category] ** 0.5 for item in items])
    for kind, part in share.items():
        chosen = np.array([k == kind for k in kinds])
        weights[chosen] *= part / weights[chosen].sum()
    return weights


def check_rules(items: list[CorpusItem], split: Split) -> None:
    """The promise of the docs, tested on the list that is drawn: raises when a forbidden drawing got in."""
    benchmark = {code for parts in split.values() for codes in parts.values() for code in codes}
    for item in items:
        if item.style in SOURCE_FAMILY and item.code in benchmark:
            raise ValueError(
                f"pre-training list: {item.style} {item.label} is a benchmark emoji of the source's family"
            )
        if any(item.style.startswith(s) for s in ("twemoji", "openmoji", "fluent")):
            raise ValueError(f"pre-training list: {item.style} is a shifted style")


def load_corpus(work: Path, split: Split) -> tuple[np.ndarray, list[CorpusItem]]:
    """All pre-training images (N, 64, 64, 3) uint8, drawn once and kept in `work`, and their items."""
    catalog = Catalog(work)
    categories = Categories(catalog)
    items = emoji_items(catalog, categories, split) + icon_items(catalog, categories)
    check_rules(items, split)
    path = work / f"corpus-{_key(items, work)}.npz"
    if not path.exists():
        with one_at_a_time(path):  # of the workers, which start together
            if not path.exists():
                _draw(items, path)
    cache = np.load(path)
    return cache["images"], [items[i] for i in cache["kept"]]


def _key(items: list[CorpusItem], work: Path) -> str:
    """Fingerprint of what is drawn, and of the code that draws."""
    sources = [s.relative_to(work).as_posix() if isinstance(s := item.source, Path) else s for item in items]
    return key_of([sources, Path(render.__file__).read_text(encoding="utf-8")])


def _draw(items: list[CorpusItem], path: Path) -> None:
    images = draw_all([item.source for item in items])
    kept = np.array([i for i, image in enumerate(images) if image is not None])
    with whole_file(path) as part, part.open("wb") as file:
        np.savez(file, kept=kept, images=np.stack([images[i] for i in kept]))
