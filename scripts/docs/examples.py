"""An extension of griffe, which reads docstrings for the site: the example at a docstring's end gets its heading."""

import textwrap
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Turns ``>>>`` lines, which have no heading in the code, into a section that griffe knows."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Changes a function's docstring once it is loaded."""
        if func.docstring and "\n\n>>> " in func.docstring.value:
            text, example = func.docstring.value.split("\n\n>>> ", 1)
            func.docstring.value = f"{text}\n\nExamples:\n{textwrap.indent('>>> ' + example, '    ')}"
