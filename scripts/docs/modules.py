"""Pages of the API reference: one for each public module of tlla, which mkdocstrings fills from its docstrings."""

import ast

from .pages import ROOT

FOLDER = "reference/modules"


def public_modules() -> dict[str, str]:
    """Dotted name and first sentence of every module of tlla without an underscore, sorted."""
    found = {}
    for path in sorted((ROOT / "tlla").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if not any(part.startswith("_") for part in name.split(".")):
            text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            found[name] = " ".join(text.split("\n\n")[0].split())
    return found


def page_of(name: str) -> str:
    """A module's page."""
    return f"{FOLDER}/{name}.md"


def pages() -> dict[str, str]:
    """Text of every page by its path in the site, the overview first."""
    modules = public_modules()
    rows = [f"| [`{name}`]({name}.md) | {text} |" for name, text in modules.items()]
    head = "# Modules of tlla\n\nPlain torch: neither Dassl nor yacs is imported.\n\n| module | what |\n|---|---|\n"
    made = {f"{FOLDER}/index.md": head + "\n".join(rows) + "\n"}
    return made | {page_of(name): f"# {name}\n\n::: {name}\n" for name in modules}
