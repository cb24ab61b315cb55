"""Looks for what a built page would load from another host: python -m scripts.docs.check_site FOLDER.

Links that a reader may click are no matter. Exit codes: 0 nothing found, 1 something, 2 there are no pages.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

LOADED = ("src", "srcset", "href", "xlink:href", "data", "poster")  # the browser fetches them by itself, but for links
CLICKED = ("a", "area")
QUIET = {"canonical", "prev", "next", "alternate"}  # kinds of <link> that load nothing
OUTSIDE = re.compile(r"(?:^|[\s,])(?:https?:)?//", re.I)
IN_STYLES = re.compile(r"(?:url\(|@import)\s*['\"]?((?:https?:)?//[^'\")\s]+)", re.I)


class _Page(HTMLParser):
    """Collects the addresses that a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes what the tag loads, and what its style does."""
        values = {name: value or "" for name, value in attrs}
        kinds = set(values.get("rel", "").split())
        for name in () if tag in CLICKED or (kinds and kinds <= QUIET) else LOADED:
            if OUTSIDE.search(values.get(name, "")):
                self.found.append(values[name])
        self.found += IN_STYLES.findall(values.get("style", ""))

    def handle_data(self, data: str) -> None:
        """Notes what a <style> loads."""
        if self.lasttag == "style":
            self.found += IN_STYLES.findall(data)


def external_links(folder: Path) -> list[str]:
    """``file: address`` of everything that the pages and style sheets of a folder load from elsewhere."""
    found = []
    for path in sorted(folder.rglob("*.html")):
        page = _Page()
        page.feed(path.read_text(encoding="utf-8"))
        found += [f"{path.relative_to(folder)}: {address}" for address in page.found]
    for path in sorted(folder.rglob("*.css")):
        addresses = IN_STYLES.findall(path.read_text(encoding="utf-8"))
        found += [f"{path.relative_to(folder)}: {address}" for address in addresses]
    return found


def main(folder: str) -> int:
    """Prints what was found; returns the exit code."""
    pages = len(list(Path(folder).rglob("*.html")))
    found = external_links(Path(folder))
    print(*found, f"{pages} pages, {len(found)} addresses that are loaded from elsewhere", sep="\n")
    return 2 if not pages else int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
