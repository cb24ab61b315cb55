"""Pictures and pages from finished runs: python -m report WHAT RUN ... --out DIR (python -m report WHAT --help).

Every picture is written as SVG and PNG, with its numbers beside it. Exit codes: 0 done, 2 the input was wrong.
"""

import argparse
import importlib
import pkgutil
import sys
from pathlib import Path

if __name__ == "__main__":
    from tlla.startup import before_torch

    before_torch()

import train
from tlla.errors import InputError


def commands() -> dict[str, object]:
    """The modules of report/commands/ by the name of their command."""
    from . import commands as package

    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    return {name.replace("_", "-"): importlib.import_module(f"{package.__name__}.{name}") for name in names}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command and its arguments; each command adds its own."""
    parser = argparse.ArgumentParser(
        prog="report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    subparsers = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    for name, module in commands().items():
        summary = module.__doc__.splitlines()[0]
        sub = subparsers.add_parser(
            name,
            help=summary,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.add_argument("--out", type=Path, default=Path("output/report"), help="folder of what is written")
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    train.stop_at_sigterm()
    args = parse_args(argv)
    try:
        for path in args.run(args):
            print(path)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
