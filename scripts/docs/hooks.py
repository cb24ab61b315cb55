"""What mkdocs calls while it builds the site: generated pages, included files, links, formulas."""

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # `mkdocs` is started from the checkout, but not in it

from scripts.docs import config_reference, modules, pages  # noqa: E402

CONFIG_PAGE = "reference/config.md"


def mathml(source: str, *_: Any, **__: Any) -> str:
    """A ```math block, LaTeX, as MathML, which browsers draw by themselves."""
    from latex2mathml.converter import convert

    return f'<div class="formula">{convert(source, display="block")}</div>'


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Lists the modules in the navigation and has formulas drawn."""
    fence = {"name": "math", "class": "math", "format": mathml}
    config.mdx_configs.setdefault("pymdownx.superfences", {})["custom_fences"] = [fence]
    names = modules.public_modules()
    reference = next(part["Reference"] for part in config.nav if "Reference" in part)
    reference.append({"Modules": [f"{modules.FOLDER}/index.md", *({n: modules.page_of(n)} for n in names)]})
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Adds the pages that are no files in docs/."""
    made = {page: (pages.ROOT / file).read_text(encoding="utf-8") for page, file in pages.GENERATED.items()}
    made |= {CONFIG_PAGE: config_reference.reference_page(), **modules.pages()}
    for path, text in made.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Puts in what a page includes and points its links to the site's pages."""
    uri = page.file.src_uri
    if uri.startswith(modules.FOLDER):
        return markdown
    file = pages.GENERATED.get(uri, f"docs/{uri}")
    fitted = pages.fit_links(pages.include(markdown, file), file)
    return re.sub(r"(?<=\d) ± (?=\d)", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}", fitted)
