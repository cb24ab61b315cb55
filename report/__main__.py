"""Pictures and pages from finished runs: python -m report WHAT RUN ... --out DIR (python -m report WHAT --help).

Every picture is written as SVG and PNG, with its numbers beside it. Exit codes: 0 done, 2 the input was wrong.
"""

import argparse
import ast
import importlib
import importlib.util
import pkgutil
import sys
from pathlib import Path

from tlla import command_line

if __name__ == "__main__":
    command_line.start(__file__)


def commands() -> dict[str, str]:
    """The modules of report/commands/ by the name of their command."""
    from . import commands as package

    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    return {name.replace("_", "-"): f"{package.__name__}.{name}" for name in names}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command and its arguments, which its own module adds; that of no other command is imported."""
    parser = argparse.ArgumentParser(
        prog="report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    subparsers = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    meant = sys.argv[1:] if argv is None else argv
    for name, module_name in commands().items():
        text = _docstring(module_name)
        sub = subparsers.add_parser(
            name,
            help=text.splitlines()[0],
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.add_argument("--out", type=Path, default=Path("output/report"), help="folder of what is written")
        if name in meant:
            module = importlib.import_module(module_name)
            module.add_arguments(sub)
            sub.set_defaults(run=module.run)
    return parser.parse_args(argv)


def _docstring(module_name: str) -> str:
    path = Path(importlib.util.find_spec(module_name).origin)
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def run(args: argparse.Namespace) -> None:
    """Runs a command, and prints the path of each file that it writes."""
    for path in args.run(args):
        print(path)


def main(argv: list[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    return command_line.call(lambda: run(parse_args(argv)), stopped="stopped")


if __name__ == "__main__":
    sys.exit(main())
