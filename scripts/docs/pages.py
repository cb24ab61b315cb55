"""Texts of the repository as pages of the site: files outside docs/, included sections, and links that fit there."""

import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = {  # file of the repository: page of the site
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "DATASETS.md": "datasets.md",
    "CHANGELOG.md": "changelog.md",
    "assets/emoji/ATTRIBUTION.md": "attribution.md",
}
GENERATED = {page: file for file, page in PAGES.items() if page != "index.md"}
INCLUDE = re.compile(r"^<!-- include (\S+?)(?:#(\S+))? -->$", re.M)
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^()\s]+)(?=\))")
FENCE = re.compile(r"^```.*?^```$", re.M | re.S)


def section(text: str, slug: str) -> str:
    """The part of a Markdown text under the heading whose anchor is `slug`, without the heading.

    Raises:
        ValueError: There is no such heading.
    """
    outside = FENCE.sub(lambda block: re.sub("^#", "-", block[0], flags=re.M), text)  # `#` in code is no heading
    headings = list(re.finditer(r"^(#+) (.+)$", outside, re.M))
    for i, heading in enumerate(headings):
        if re.sub(r"[^\w\- ]", "", heading[2].lower()).replace(" ", "-") == slug:
            later = (h.start() for h in headings[i + 1 :] if len(h[1]) <= len(heading[1]))
            return text[heading.end() : next(later, len(text))].strip()
    raise ValueError(f"there is no heading #{slug}")


def include(text: str, file: str) -> str:
    """Puts files or their sections where `<!-- include PATH -->` or `<!-- include PATH#heading -->` stands.

    Args:
        text: Of a page.
        file: The page's path in the repository, to which PATH is relative.
    """

    def insert(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(file), match[1]))
        found = (ROOT / path).read_text(encoding="utf-8")
        return _outside_code(section(found, match[2]) if match[2] else found, lambda part: _move(part, path, file))

    return INCLUDE.sub(insert, text)


def fit_links(text: str, file: str) -> str:
    """Points the links of a page to pages of the site; a file that is no page becomes plain text.

    Args:
        text: Of the page, Markdown.
        file: Where it lies in the repository, such as docs/start.md.

    Raises:
        ValueError: A link leads nowhere.
    """
    return _outside_code(text, lambda part: _fit(part, file))


def _outside_code(text: str, change) -> str:
    parts, end = [], 0
    for block in FENCE.finditer(text):
        parts += [change(text[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*parts, change(text[end:])])


def _move(text: str, old: str, new: str) -> str:
    """Makes links that are relative to the file `old` relative to `new`."""
    return LINK.sub(lambda link: _relative(_target(link[1], old), new), text)


def _target(link: str, file: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(file), link))


def _relative(target: str, file: str) -> str:
    return posixpath.relpath(target, posixpath.dirname(file) or ".")


def _fit(text: str, file: str) -> str:
    here = "docs/" + PAGES.get(file, posixpath.relpath(file, "docs"))

    def replace(match: re.Match[str]) -> str:
        path, hash_, anchor = _target(match[2], file).partition("#")
        if path in PAGES:
            path = "docs/" + PAGES[path]
        elif not (ROOT / path).exists() and not path.startswith("docs/reference/"):  # those are generated
            raise ValueError(f"{file} has a link to {match[2]}, which is not there")
        if not path.startswith("docs/"):
            return match[1]
        return f"[{match[1]}]({_relative(path, here)}{hash_}{anchor})"

    return re.sub(r"\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\((?!\w+:|#)([^()\s]+)\)", replace, text)
