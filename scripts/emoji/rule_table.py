"""Which views to keep: every selection rule inside the methods that choose views, beside one view and all of them.

Nothing is chosen here. Compare tests all rules in one pass, on the views and prompts of scripts/demo.py if it has run
in the same folder. Differences are STSS's score less the rule inside the same method, paired over emoji, on the mean of
the shifted styles. The rule `oracle` uses the test labels: it is the ceiling, not a method.

    python -m scripts.emoji.rule_table --output output/emoji --seeds 1 2 3
    python -m scripts.emoji.rule_table --output output/emoji --seeds 1 2 3 --scenes
    python -m scripts.emoji.rule_table --output output/emoji --methods TPS DPE TPT --hand-written
"""

import sys

from tabulate import tabulate

from tlla.command_line import call
from tlla.files import write_text
from tlla.methods import METHODS
from tlla.rules import RULES

from .study import (
    PROMPTS,
    WORDS,
    Family,
    StudyTest,
    by_emoji,
    chosen_family,
    comparison,
    interval,
    run,
    study_parser,
    study_plan,
    tested,
)

OTHERS = ("SingleView", "MeanViews", "MTA")  # choose no views


def keys(methods: list[str]) -> tuple[str, ...]:
    """Of Compare: these methods under all rules, each keeping a quarter of the views, as STSS does."""
    shares = [part for name in methods if name != "STSS" for part in (f"TRAINER.{name.upper()}.TOP", "0.25")]
    names = repr([*OTHERS, *methods])
    return "TRAINER.COMPARE.METHODS", names, "TRAINER.COMPARE.RULES", repr(list(RULES)), *shares


def entry(method: str, rule: str) -> str:
    """Name of Compare's entry."""
    return METHODS[method](rule=rule).title


def rule_rows(tests: list[StudyTest], prompt: str, methods: list[str], family: Family) -> list[list[str]]:
    """For each rule its accuracy inside each method on source and shifted styles, and STSS's score less it there."""
    own = [t for t in tests if t.prompt == prompt]

    def shares(name: str, styles: list[str]) -> list[float]:
        return by_emoji([t for t in own if t.method == name and t.style in styles])

    def accuracy(name: str, styles: list[str]) -> str:
        hits = shares(name, styles)
        return f"{100 * sum(hits) / len(hits):.1f}"

    places = [family.source], family.shifted
    rows = [[name, *(accuracy(name, styles) for styles in places), ""] for name in OTHERS]
    for method in methods:
        stss = shares(entry(method, "stss"), family.shifted)
        for rule in RULES:
            name = entry(method, rule)
            gain = "-" if rule == "stss" else interval(stss, shares(name, family.shifted))
            said = f"{method}, {rule}{' (uses labels)' * RULES[rule].uses_labels}"
            rows.append([said, *(accuracy(name, styles) for styles in places), gain])
    return rows


def main() -> int:
    """Tests what is missing and prints a table for each prompt."""
    parser = study_parser(__doc__, "output/emoji")
    known = [name for name, method in METHODS.items() if method().chooses_views]
    parser.add_argument("--methods", nargs="+", choices=known, default=["STSS", "ZERO", "VTE"], metavar="METHOD")
    parser.add_argument("--hand-written", action="store_true", help="only that prompt, which is not trained")
    args = parser.parse_args()
    family, output, opts = chosen_family(args), args.output.resolve(), keys(args.methods)
    if args.hand_written:
        name, prompts = "Rules_hand-written", (WORDS,)
        jobs = comparison(output, args.seeds[0], {WORDS: None}, family, *opts, name=name)
    else:
        name, prompts = "Rules", PROMPTS
        jobs = study_plan(output, args.seeds, family, *opts, name=name)
    if not run(jobs):
        return 1
    tests, pages = tested(jobs), []
    for prompt in prompts:
        headers = [f"{family.name}, {prompt} prompt", "source, %", "shifted, %", "STSS's score less this rule, shifted"]
        rows = rule_rows(tests, prompt, args.methods, family)
        pages.append(tabulate(rows, headers, tablefmt="github", disable_numparse=True))
    write_text(args.output / family.name / f"{name.lower()}.md", "\n\n".join(pages) + "\n")
    print("\n" + "\n\n".join(pages))
    return 0


if __name__ == "__main__":
    sys.exit(call(main))
