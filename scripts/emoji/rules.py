"""Compares rules of selecting views on the test images, for the prompts that scripts/demo.py has trained.

Reports only; nothing is chosen here. Views (of seed 0) are encoded once for each style and serve every rule and prompt;
s, R, rho' and the vote are STSS's defaults.

    python -m scripts.emoji.rules --runs output/demo --seeds 1 2 3
"""

import argparse
import sys
from pathlib import Path

from tabulate import tabulate

from tlla.command_line import call

from .study import (
    LEARNED,
    SHIFTED,
    SOURCE,
    WORDS,
    StudyTest,
    by_emoji,
    comparison,
    interval,
    only,
    run,
    tested,
    training,
)

RULES = {  # and the methods that follow them
    "one view": "SingleView",
    "mean of all views": "MeanViews",
    "entropy selection": "EntropyMean",
    "STSS": "STSS",
}
AS_MANY = ("TRAINER.ENTROPYMEAN.TOP", "0.25")  # as STSS: 16 of 64 views


def rules_table(tests: list[StudyTest], prompts: dict[str, list[str]]) -> str:
    """Accuracy on the source and on the mean of the shifted styles, and STSS against the other rules there."""
    rows = []
    for prompt, names in prompts.items():
        shares = {}
        for rule, method in RULES.items():
            own = [t for t in tests if t.method == method and t.prompt in names]
            shares[rule] = [by_emoji([t for t in own if t.style in styles]) for styles in ([SOURCE], SHIFTED)]
        for rule, found in shares.items():
            row = [prompt, rule]
            for share, stss in zip(found, shares["STSS"], strict=True):
                row += [100 * sum(share) / len(share), "-" if rule == "STSS" else interval(stss, share)]
            rows.append(row)
    headers = ["prompt", "rule", "source", "STSS less this rule", "mean of the shifted", "STSS less this rule"]
    return tabulate(rows, headers, tablefmt="github", floatfmt=".1f", disable_numparse=[0, 1, 3, 5])


def main() -> int:
    """Measures all rules and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("output/demo"), help="--output of scripts/demo.py")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    args = parser.parse_args()
    output = args.runs.resolve()
    learned = {f"{name}{seed}": training(name, output, seed) for name in LEARNED for seed in args.seeds}
    jobs = comparison(output, 0, {WORDS: None, **learned}, *only(RULES.values()), *AS_MANY)
    if not run(jobs):
        return 1
    prompts = {WORDS: [WORDS], **{name: [f"{name}{seed}" for seed in args.seeds] for name in LEARNED}}
    print(f"\n{rules_table(tested(jobs), prompts)}")
    return 0


if __name__ == "__main__":
    sys.exit(call(main))
