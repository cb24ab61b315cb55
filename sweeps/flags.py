"""Runs many trainings and tests: python -m sweeps PLAN [arguments in CoOp's order] [flags].

    python -m sweeps train oxford_pets vit_b16_c4_ep50 end 4 16 False --data ~/data --out output
    python -m sweeps domain-generalization vit_b16_c4_ep50 --jobs 4 --dry-run
    python -m sweeps grid my_grid.yaml --submit slurm --submit-with slurm_partition=gpu gpus_per_node=1

Complete runs are skipped, cut ones resume, failed ones are listed at the end with their logs; the same command again
does what is missing. A test comes after the training of the prompt that it tests. Names of configs may be files, too.
Exit codes: 0 all complete, 1 some are not, 2 the input was wrong, 130 stopped. The table afterwards:
python parse_test_res.py OUT --table
"""

import argparse
import os
from pathlib import Path

LONG, SHORT = "vit_b16_c4_ep50", "vit_b16_c4_ep5"  # configs of SAPT: domain generalization, cross-dataset transfer
RHOS = (0.05, 0.1, 0.3, 0.5, 0.7)  # the paper's
PLANS = {
    "train": "DATASET CFG [CTP NCTX SHOTS CSC]: trains prompts, as CoOp's main.sh",
    "rho-grid": "DATASET CFG [SHOTS]: chooses SAPT's rho on the source's val images, writes rho.json",
    "base2new-train": "DATASET [SEED]: trains on the first half of the classes",
    "base2new-test": "DATASET [SEED]: tests those prompts on the other half",
    "eval": "DATASET CFG: a trainer's test of the source's prompt on one dataset, as CoOp's eval.sh",
    "domain-generalization": "[CFG]: TLLA on ImageNet and its four variants",
    "cross-dataset": "[CFG]: TLLA on ten other datasets",
    "ablation": "[CFG]: CoOp, SAPT, STSS on CoOp's prompt, and TLLA, on ImageNet and its four variants",
    "table1": "all rows of the paper's domain generalization",
    "table2": "all rows of the paper's cross-dataset transfer",
    "grid": "FILE.yaml: the combinations of a file (sweeps/grid.py)",
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Plan, its arguments in CoOp's order, and the flags of all plans."""
    flags = argparse.ArgumentParser(add_help=False)
    env = os.environ
    flags.add_argument("--data", default=env.get("DATA", ""), help="folder of the datasets (or DATA)")
    flags.add_argument("--out", type=Path, default=Path(env.get("OUT") or "output"), help="folder of the runs (or OUT)")
    flags.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    flags.add_argument(
        "--jobs",
        type=int,
        default=env.get("JOBS") or None,
        help="runs at the same time (or JOBS; default: 1, with --submit all that can be)",
    )
    flags.add_argument("--dry-run", action="store_true", help="print the commands and what is missing, run nothing")
    flags.add_argument("--redo", action="store_true", help="move runs of other settings aside, and do them anew")
    flags.add_argument("--source", default="imagenet", help="dataset that prompts are trained on")
    flags.add_argument("--targets", nargs="+", default=[], help="datasets to test on (default: the protocol's)")
    flags.add_argument("--rho", help="SAPT's rho: a number, or the rho.json of rho-grid (default: the config's)")
    several = {"nargs": "+", "action": "extend", "default": []}
    text = "prompts to test that are there, perhaps CoOp's own: FOLDER/seed<s>/prompt_learner; none are trained then"
    flags.add_argument("--prompts", **several, metavar="TRAINER=FOLDER", help=text)
    flags.add_argument("--submit", choices=("slurm", "local"), help="hand the runs to submitit")
    flags.add_argument("--submit-with", **several, metavar="KEY=VALUE", help="submitit's parameters")
    flags.add_argument("--opts", **several, metavar="KEY VALUE", help="config pairs for every run")

    parser = argparse.ArgumentParser(
        prog="sweeps", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="plan", required=True, metavar="PLAN")
    parsers = {name: commands.add_parser(name, help=text, parents=[flags]) for name, text in PLANS.items()}
    for name in ("train", "rho-grid", "base2new-train", "base2new-test", "eval"):
        parsers[name].add_argument("dataset")
    for name in ("train", "rho-grid", "eval"):
        parsers[name].add_argument("cfg")
    for name, default in (("domain-generalization", LONG), ("cross-dataset", SHORT), ("ablation", LONG)):
        parsers[name].add_argument("cfg", nargs="?", default=default)
    parsers["train"].add_argument("ctp", nargs="?", default="end", choices=("end", "middle", "front"))
    parsers["train"].add_argument("nctx", nargs="?", type=int)
    for name in ("train", "rho-grid"):
        parsers[name].add_argument("shots", nargs="?", type=int, default=16)
    parsers["train"].add_argument("csc", nargs="?", default="False", choices=("False", "True"))
    parsers["rho-grid"].add_argument("--values", type=float, nargs="+", default=RHOS, help="default: the paper's")
    for name in ("base2new-train", "base2new-test"):
        parsers[name].add_argument("seed", nargs="?", type=int)
        parsers[name].add_argument("--cfg", default=env.get("CFG") or LONG, help="config of the trainer (or CFG)")
    for name in ("base2new-train", "base2new-test", "train", "rho-grid"):
        parsers[name].add_argument("--trainer", default=env.get("TRAINER") or "SAPT", help="(or TRAINER)")
    parsers["eval"].add_argument("--trainer", default="TLLA", help="who tests: one that learns prompts, TPT, ZERO ...")
    parsers["eval"].add_argument("--test-cfg", help="config of the test (default: CFG)")
    for name in ("table1", "table2"):
        text = "more rows: methods at test time; NAME=<cfg> for a trainer that trains"
        parsers[name].add_argument("--also", **several, metavar="NAME", help=text)
        text = "authors: each method at test time with the views, templates and settings of its authors"
        parsers[name].add_argument("--protocol", choices=("common", "authors"), default="common", help=text)
        text = "rehearse on the embedded benchmark, in minutes"
        parsers[name].add_argument("--smoke", action="store_true", help=text)
    parsers["grid"].add_argument("file")
    return parser.parse_args(argv)
