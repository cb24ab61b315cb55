"""python -m sweeps: the plan of a command line, and its run."""

import argparse
import dataclasses
import shlex
import sys
from pathlib import Path

from tlla import command_line

from .flags import parse_args

if __name__ == "__main__":
    command_line.start(__file__)
    parse_args()  # here first, as --help and a wrong flag need no torch

import train
from tlla.errors import InputError

from . import cluster, paper_tables, plans, rho, traits
from .grid import grid
from .job import COMPLETE, Job, check_jobs, ordered
from .plans import PromptPlan, Settings
from .preflight import missing
from .processes import Local
from .runner import Sweep


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
        protocol=getattr(args, "protocol", "common"),
    )
    if getattr(args, "smoke", False):
        s = paper_tables.rehearsal(s)
    if args.rho is not None:
        if args.plan == "rho-grid":
            raise InputError("rho-grid tries several rho: give them by --values, and leave --rho out")
        s = dataclasses.replace(s, rho=rho.read_rho(args.rho, s.source))
    jobs = ordered(_jobs(args, s))
    _check_used(args, s, jobs)
    check_jobs(jobs)
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
        return plans.trainings(
            s, PromptPlan(args.trainer, args.cfg, args.ctp, args.nctx, args.csc == "True"), args.dataset
        )
    if args.plan == "rho-grid":
        return rho.plan(s, args.cfg, args.trainer, tuple(args.values))
    if args.plan.startswith("base2new"):
        plan = plans.base2new_train if args.plan == "base2new-train" else plans.base2new_test
        return plan(s, args.dataset, args.cfg, args.trainer)
    if args.plan == "eval":
        prompt = PromptPlan(traits.learner_of(args.trainer), args.cfg)
        return plans.evaluations(s, prompt, args.trainer, args.test_cfg or args.cfg, [args.dataset])
    if args.plan == "grid":
        return grid(s, args.file)
    plan = getattr(paper_tables if args.plan in ("table1", "table2") else plans, args.plan.replace("-", "_"))
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
    slots = args.jobs or (len(jobs) if args.submit else 1)
    if args.submit:
        backend = cluster.Cluster(args.submit, s.out / "submitit", cluster.parameters(args.submit_with))
    else:
        backend = Local(slots)
    summary = Sweep(jobs, backend, slots, args.redo).run()
    print(summary.text())
    if args.plan == "rho-grid" and summary.good:
        choice = rho.choose(s, args.cfg, jobs)
        path = rho.folder_of(s, args.cfg, args.trainer) / rho.RECORD
        print(f"rho {choice['rho']:g} (mean accuracy on val: {choice['mean_val_accuracy']}), kept in {path}")
    return 0 if summary.good else 1


def main(argv: list[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    return command_line.call(lambda: run(parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
