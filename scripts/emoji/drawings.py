"""What each emoji is: label, tags, Unicode subgroup, the benchmark's class; and each style's drawings of it."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from .fetch import fetch
from .rasterize import Source, iconify_svg


@dataclass(frozen=True)
class EmojiEntry:
    """One emoji: `code` is its code points in lower-case hex joined by '-', without variation selectors."""

    code: str
    label: str
    tags: tuple[str, ...]
    subgroup: str

    @property
    def concept(self) -> str:
        """The label less who does it: man, woman and person surfing are one concept and never split up."""
        return re.sub(r"^(man|woman|person|men|women|people) ", "", self.label)


def normal_code(code: str) -> str:
    """Lower case, without the variation selector FE0F, which styles write or leave out as they like."""
    return "-".join(p for p in code.lower().split("-") if p != "fe0f")


def iconify_name(label: str) -> str:
    """The name Iconify gives an emoji: 'woman’s hat' -> 'womans-hat'."""
    bare = re.sub(r"[’'“”!.]", "", label.lower()).replace("&", "and")
    return re.sub(r"[^a-z0-9]+", "-", bare).strip("-")


class Catalog:
    """All emoji of Unicode with English names, after emojibase."""

    def __init__(self, work: Path) -> None:
        self.work = work
        folder = fetch("emojibase-data", work)
        groups = json.loads((folder / "meta/groups.json").read_text(encoding="utf-8"))["subgroups"]
        data = json.loads((folder / "en/data.json").read_text(encoding="utf-8"))
        rows = [e for e in data if "subgroup" in e]
        self.emoji = {e.code: e for e in (self._emoji(row, groups) for row in rows)}
        self.by_slug = self._slugs()

    @staticmethod
    def _emoji(row: dict, groups: dict[str, str]) -> EmojiEntry:
        tags, subgroup = tuple(row.get("tags", ())), groups[str(row["subgroup"])]
        return EmojiEntry(normal_code(row["hexcode"]), row["label"].lower(), tags, subgroup)

    def _slugs(self) -> dict[str, str]:
        """Slug -> code, by emojibase's labels first and Unicode's older names after."""
        slugs: dict[str, str] = {}
        for emoji in self.emoji.values():
            slugs.setdefault(iconify_name(emoji.label), emoji.code)
        path = fetch("unicode-emoji-json", self.work) / "data-by-emoji.json"
        for char, row in json.loads(path.read_text(encoding="utf-8")).items():
            code = normal_code("-".join(f"{ord(c):x}" for c in char))
            if code in self.emoji:
                slugs.setdefault(iconify_name(row["name"]), code)
        return slugs

    def iconify(self, name: str) -> dict[str, Source]:
        """Code -> drawing, for an emoji style packed by Iconify."""
        folder = fetch(f"@iconify-json/{name}", self.work)
        icons = json.loads((folder / "icons.json").read_text(encoding="utf-8"))
        found: dict[str, str] = {}
        if (folder / "chars.json").exists():
            chars = json.loads((folder / "chars.json").read_text(encoding="utf-8"))
            for code, icon in chars.items():
                if normal_code(code) in self.emoji and icon in icons["icons"]:
                    found.setdefault(normal_code(code), icon)
        for icon, parent in self._icon_names(icons):
            if icon in self.by_slug:
                found.setdefault(self.by_slug[icon], parent)
        return {code: iconify_svg(icons, icon) for code, icon in sorted(found.items())}

    @staticmethod
    def _icon_names(icons: dict) -> list[tuple[str, str]]:
        aliases = [(a, v["parent"]) for a, v in icons.get("aliases", {}).items() if v["parent"] in icons["icons"]]
        return [(n, n) for n in icons["icons"]] + aliases

    def files(self, package: str, pattern: str) -> dict[str, Source]:
        """Code -> file, for a package with one file per emoji named by its code points."""
        paths = sorted(fetch(package, self.work).glob(pattern))
        found = {normal_code(p.stem): p for p in paths}
        return {code: path for code, path in sorted(found.items()) if code in self.emoji}

    def style(self, name: str) -> dict[str, Source]:
        """Code -> drawing, for one of the benchmark's seven styles."""
        if name.startswith("openmoji"):
            return self.files("openmoji", f"{'black' if name.endswith('black') else 'color'}/svg/*.svg")
        if name == "fluent_3d":
            return self.files("@lobehub/fluent-emoji-3d", "assets/*.webp")
        iconify = {"fluent_flat": "fluent-emoji-flat", "fluent_contrast": "fluent-emoji-high-contrast"}
        return self.iconify(iconify.get(name, name))
