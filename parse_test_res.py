r"""Means over seeds: CoOp's parse_test_res.py, and with --table one table over datasets, methods and seeds.

As in CoOp, from the log.txt of a folder of runs (CoOp's, CoCoOp's, MaPLe's or ours), with its flags and its output:

    python parse_test_res.py output/imagenet/CoOp/vit_b16                 # the folder holds seed1/, seed2/, seed3/
    python parse_test_res.py output/imagenet_r/CoOp/vit_b16 --test-log    # logs of --eval-only
    python parse_test_res.py output/imagenet/CoOp --multi-exp --ci95      # a folder of such folders

From the results.json of all runs in and below some folders:

    python parse_test_res.py output --table
    python parse_test_res.py output/imagenet output/imagenet_r --format latex --require-seeds 1 2 3
    python parse_test_res.py output --mcnemar TLLA CoOp --keyword accuracy

One folder without a flag of the table always means CoOp's way. Several folders, --format, --require-seeds and --mcnemar
imply --table. --ci95 is CoOp's formula there (1.96 std / sqrt n, std over n), and Student's interval in the table,
whose standard deviation is the sample's (over n - 1). In text *best* and _second_ stand for bold and underlined.

Runs that crashed, were cut, are NaN or came twice are named and left out. Exit codes: 0; 1 if --require-seeds is not
met (a seed is missing, or a run was left out); 2 if the input was wrong.
"""

import argparse
import sys
from pathlib import Path

from report.tables.cells import build
from report.tables.logs import report
from report.tables.paired import compare
from report.tables.render import FORMATS, Report, render
from report.tables.runs import read_runs
from tlla import command_line
from tlla.errors import InputError, nearest


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """CoOp's flags, then the table's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="+", help="folder of runs")
    parser.add_argument("--ci95", action="store_true", help="95%% confidence interval instead of standard deviation")
    parser.add_argument("--test-log", action="store_true", help="the logs are of tests only (--eval-only)")
    parser.add_argument("--multi-exp", action="store_true", help="the folder holds several folders of runs")
    parser.add_argument(
        "--keyword", default="accuracy", help="which number: accuracy, macro_f1; in the table ece, nll ..."
    )
    parser.add_argument("--table", action="store_true", help="a table from results.json")
    parser.add_argument("--format", choices=FORMATS, help="of the table (default: text)")
    parser.add_argument("--require-seeds", type=int, nargs="+", metavar="SEED", help="exit 1 unless all are there")
    parser.add_argument("--mcnemar", nargs=2, metavar=("FIRST", "SECOND"), help="paired test between two rows")
    return parser.parse_args(argv)


def print_table(args: argparse.Namespace) -> int:
    """Prints the table; returns the exit code."""
    if args.test_log or args.multi_exp:
        raise InputError("--test-log and --multi-exp are for logs: the table reads all results.json below the folders")
    runs, unread = read_runs(args.directory)
    tables, rejected = build(runs, args.keyword, args.require_seeds or ())
    defects = [*unread, *rejected]
    if not tables:
        metrics = sorted({name for run in runs for name in run.metrics})
        if metrics and args.keyword not in metrics:
            raise InputError(f"--keyword {args.keyword!r} is in no results.json: {nearest(args.keyword, metrics)}")
        refused = [file for folder in args.directory for file in sorted(Path(folder).rglob("refused.log"))]
        why = "".join(f"; {defect}" for defect in defects)
        why += f"; {refused[0]} says why a command was refused" if refused else ""
        raise InputError(f"there is no complete run below {', '.join(args.directory)}{why}")
    pairs = compare(tables, *args.mcnemar) if args.mcnemar else []
    content = Report(tables, defects, pairs, tuple(args.mcnemar or ("", "")), args.ci95)
    print(render(content, args.format or "text"))
    if args.format == "csv":
        print(*content.notes(), sep="\n", end="\n" if content.notes() else "", file=sys.stderr)
    missing = any(cell.missing for t in tables for row in t.rows for cell in row.cells.values())
    return int(bool(args.require_seeds) and (missing or bool(defects)))


def run(args: argparse.Namespace) -> int:
    """Prints what is asked for; returns the exit code."""
    if args.table or args.format or args.require_seeds or args.mcnemar or len(args.directory) > 1:
        return print_table(args)
    for line in report(args.directory[0], args.keyword, args.test_log, args.ci95, args.multi_exp):
        print(line)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    return command_line.call(lambda: run(parse_args(argv)), stopped="stopped")


if __name__ == "__main__":
    sys.exit(main())
