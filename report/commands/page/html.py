"""The page as one file: template, style and script from this folder, data as JSON; no data is ever put into markup."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


def as_json(value: Any) -> str:
    """JSON that can stand inside a script element, whatever the names in it: plain ASCII without "<"."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def page(runs: Sequence[dict[str, Any]]) -> str:
    """The HTML of a page for one or more runs, as `run_data` gives them."""
    data = "\n".join(f'<script type="application/json" class="run">{as_json(run)}</script>' for run in runs)
    script = "\n".join(_asset(name) for name in ("page.js", "gallery.js"))
    # The data last: what stands in it is not searched for marks.
    parts = {"/* style */": _asset("page.css"), "/* script */": script, "<!-- data -->": data}
    text = _asset("page.html")
    for mark, content in parts.items():
        before, after = text.split(mark)
        text = f"{before}{content}{after}"
    return text


def _asset(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")
