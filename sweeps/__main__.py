"""Runs many trainings and tests: python -m sweeps PLAN [arguments in CoOp's order] [flags].

    python -m sweeps train oxford_pets vit_b16_c4_ep50 end 4 16 False --data ~/data --out output
    python -m sweeps domain-generalization vit_b16_c4_ep50 --jobs 4 --dry-run
    python -m sweeps grid my_grid.yaml --submit slurm --submit-with slurm_partition=gpu gpus_per_node=1

Complete runs are skipped, cut ones go on, failed ones are listed at the end with their logs; the same command again
does what is missing. A test comes after the training of the prompt that it tests. Names of configs may be files, too.
Exit codes: 0 all complete, 1 some are not, 2 the input was wrong, 130 stopped. The table afterwards:
python parse_test_res.py OUT --table
"""

import argparse
import dataclasses
import os
import shlex
import sys
from pathlib import Path

import train
from tlla import command_line
from tlla.errors import InputError

from . import cluster, plans, rho, traits
from .grid import grid
from .job import COMPLETE, Job, check, ordered
from .plans import LONG, SHORT, Prompt, Settings
from .preflight import missing
from .processes import Local
from .runner import Sweep

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
    flags.add_argument(
        "--prompts",
        nargs="+",
        action="extend",
        default=[],
        metavar="TRAINER=FOLDER",
        help="prompts to test that are there, perhaps CoOp's own: FOLDER/seed<s>/prompt_learner; none are trained then",
    )
    flags.add_argument("--submit", choices=("slurm", "local"), help="hand the runs to submitit")
    pairs = {"nargs": "+", "action": "extend", "default": []}
    flags.add_argument("--submit-with", **pairs, metavar="KEY=VALUE", help="submitit's parameters")
    flags.add_argument("--opts", **pairs, metavar="KEY VALUE", help="config pairs for every run")

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
    parsers["rho-grid"].add_argument("--values", type=float, nargs="+", default=rho.PAPER, help="default: the paper's")
    for name in ("base2new-train", "base2new-test"):
        parsers[name].add_argument("seed", nargs="?", type=int)
        parsers[name].add_argument("--cfg", default=env.get("CFG") or LONG, help="config of the trainer (or CFG)")
    for name in ("base2new-train", "base2new-test", "train"):
        parsers[name].add_argument("--trainer", default=env.get("TRAINER") or "SAPT", help="(or TRAINER)")
    parsers["eval"].add_argument("--trainer", default="TLLA", help="who tests: one that learns prompts, TPT, ZERO ...")
    parsers["eval"].add_argument("--test-cfg", help="config of the test (default: CFG)")
    for name in ("table1", "table2"):
        parsers[name].add_argument(
            "--also",
            nargs="+",
            action="extend",
            default=[],
            metavar="NAME",
            help="more rows: methods at test time; NAME=<cfg> for a trainer that trains",
        )
        parsers[name].add_argument(
            "--smoke", action="store_true", help="rehearse on the embedded benchmark, in minutes"
        )
    parsers["grid"].add_argument("file")
    return parser.parse_args(argv)


def make_plan(args: argparse.Namespace) -> tuple[Settings, list[Job]]:
    """The settings and all jobs in order. InputError if the input is wrong."""
    if args.jobs is not None and args.jobs < 1:
        raise InputError(f"--jobs must be at least 1, but got {args.jobs}")
    if len(args.opts) % 2:
        raise InputError(f"--opts takes pairs of KEY VALUE, but got {len(args.opts)} words: {' '.join(args.opts)}")
    seed = getattr(args, "seed", None)
    own = args.plan in ("train", "rho-grid")
    s = Settings(
        out=args.out.resolve(),
        data=str(Path(args.data).expanduser().resolve()) if args.data else "",
        seeds=tuple(args.seeds) if seed is None else (seed,),
        shots=getattr(args, "shots", 16),
        source=args.dataset if own else args.source,
        targets=tuple(args.targets),
        opts=tuple(args.opts),
        prompts=given_prompts(args.prompts),
        also=tuple(getattr(args, "also", ())),
    )
    if getattr(args, "smoke", False):
        s = plans.rehearsal(s)
    if args.rho is not None:
        if args.plan == "rho-grid":
            raise InputError("rho-grid tries several rho: give them by --values, and leave --rho out")
        s = dataclasses.replace(s, rho=rho.read(args.rho, s.source))
    jobs = ordered(_jobs(args, s))
    _check_used(args, s, jobs)
    check(jobs)
    return s, jobs


def given_prompts(words: list[str]) -> tuple[tuple[str, str], ...]:
    """--prompts CoOp=FOLDER: trainer and absolute folder."""
    found = {}
    for word in words:
        name, equals, folder = word.partition("=")
        if not equals or not folder:
            raise InputError(f"--prompts takes TRAINER=FOLDER, e.g. CoOp=~/coop/imagenet, but got {word!r}")
        if not traits.learns_prompt(name):
            raise InputError(f"--prompts {word}: {name} learns no prompt: name one of {traits.prompt_learners()}")
        found[name] = str(Path(folder).expanduser().resolve())
    return tuple(found.items())


def _check_used(args: argparse.Namespace, s: Settings, jobs: list[Job]) -> None:
    """Raises InputError for a setting that no run of the plan takes."""
    tested = {job.source.trainer for job in jobs if job.source and job.source.given}
    for name, _ in s.prompts:
        if name not in tested:
            raise InputError(f"--prompts {name}=...: {args.plan} tests no prompt of {name} that it does not train")
    trained = [job for job in jobs if job.trains]
    if s.rho is not None and not any(traits.rho_key(job.trainer) in job.opts[::2] for job in trained):
        names = ", ".join(dict.fromkeys(job.trainer for job in trained)) or "nothing"
        raise InputError(f"--rho {args.rho}: {args.plan} trains {names} here, which has no rho: leave it out")


def _jobs(args: argparse.Namespace, s: Settings) -> list[Job]:
    if args.plan == "train":
        if not traits.learns_prompt(args.trainer):
            raise InputError(
                f"--trainer {args.trainer} learns no prompt, whose arguments train takes: name one of "
                f"{', '.join(traits.prompt_learners())}, or use a grid file"
            )
        return plans.trainings(s, Prompt(args.trainer, args.cfg, args.ctp, args.nctx, args.csc == "True"), args.dataset)
    if args.plan == "rho-grid":
        return rho.plan(s, args.cfg, tuple(args.values))
    if args.plan.startswith("base2new"):
        plan = plans.base2new_train if args.plan == "base2new-train" else plans.base2new_test
        return plan(s, args.dataset, args.cfg, args.trainer)
    if args.plan == "eval":
        prompt = Prompt(traits.learner_of(args.trainer), args.cfg)
        return plans.evaluations(s, prompt, args.trainer, args.test_cfg or args.cfg, [args.dataset])
    if args.plan == "grid":
        return grid(s, args.file)
    plan = getattr(plans, args.plan.replace("-", "_"))
    return plan(s, args.cfg) if "cfg" in args else plan(s)


def show(jobs: list[Job]) -> None:
    """The commands; those of complete runs as comments."""
    script = train.HERE / "train.py"
    script = script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script
    for job in jobs:
        done = "# complete: " if job.state() == COMPLETE else ""
        print(f"{done}{shlex.join(['python', str(script), *job.argv])}")


def run(args: argparse.Namespace) -> int:
    """Runs a plan; returns the exit code."""
    s, jobs = make_plan(args)
    if args.dry_run:
        show(jobs)
        for sentence in missing(jobs, s.out, fetch=False):
            print(f"missing: {sentence}", file=sys.stderr)
        return 0
    if lacks := missing(jobs, s.out, fetch=True):
        raise InputError(f"nothing is run, as not all is there: {'; '.join(lacks)}")
    if args.submit:
        backend = cluster.Cluster(args.submit, s.out / "submitit", cluster.parameters(args.submit_with))
    else:
        backend = Local()
    slots = args.jobs or (len(jobs) if args.submit else 1)
    summary = Sweep(jobs, backend, slots, args.redo).run()
    print(summary.text())
    if args.plan == "rho-grid" and summary.good:
        choice = rho.choose(s, args.cfg, jobs)
        path = rho.folder_of(s, args.cfg) / rho.RECORD
        print(f"rho {choice['rho']:g} (mean accuracy on val: {choice['mean_val_accuracy']}), kept in {path}")
    return 0 if summary.good else 1


def main(argv: list[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    return command_line.call(lambda: run(parse_args(argv)))


if __name__ == "__main__":
    command_line.start(__file__)
    sys.exit(main())
