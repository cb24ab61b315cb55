r"""How flat the training loss is around each prompt: a table over runs and seeds.

    python -m report sharpness {CoOp=output/CoOp,SAPT=output/SAPT}/seed{1,2,3}

For each run, on its training images without augmentation: the cross entropy, its gradient's norm, the Hessian's largest
eigenvalue, and by how much the loss rises within rho of the prompt: at SAM's first-order point, at the worst of random
directions, and at the worst point that an ascent finds. Runs of one name are its seeds: mean ± standard deviation.
Prompts that started from words (CTX_INIT) are shown beside these words as they are.
"""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate
from torch import Tensor
from tqdm import tqdm

from report.tables.numbers import averaged
from report.tables.render import escaped
from tlla.errors import InputError
from tlla.files import write_text
from tlla.landscape.flatness import random_rise, top_eigenvalue, worst_rise
from tlla.landscape.planes import BatchLoss
from tlla.sharpness import check_sharpness, sharpness_step

from ...prompt_runs import PromptRun, add_run_arguments, open_runs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    add_run_arguments(parser)
    parser.add_argument("--rho", type=float, nargs="+", default=[0.05, 0.5], help="radii (default: 0.05 0.5)")
    parser.add_argument("--directions", type=int, default=100, help="random directions (default: 100)")
    parser.add_argument("--ascent", type=int, default=20, help="steps of the ascent (default: 20)")
    parser.add_argument("--iterations", type=int, default=200, help="most iterations for the eigenvalue (default: 200)")
    parser.add_argument("--direction-seed", type=int, default=0, help="seed of the directions (default: 0)")


def run(args: argparse.Namespace) -> list[Path]:
    """Writes sharpness.json with every number and sharpness.md with the table."""
    check_numbers(args)
    rows = [
        opened.origin | {"name": name} | measure(opened.cross_entropy(opened.training_images(args.images)), ctx, args)
        for name, opened, ctx in tqdm(prompts(open_runs(args)), unit="prompt", desc="sharpness")
    ]
    settings = {name: vars(args)[name] for name in ("images", "rho", "directions", "ascent", "iterations")}
    content = {"settings": {**settings, "direction_seed": args.direction_seed}, "runs": rows, "names": summary(rows)}
    write_text(args.out / "sharpness.json", json.dumps(content, indent=1) + "\n")
    write_text(args.out / "sharpness.md", markdown(rows) + "\n")
    return [args.out / "sharpness.json", args.out / "sharpness.md"]


def check_numbers(args: argparse.Namespace) -> None:
    """Raises InputError unless the numbers can be computed."""
    for rho in args.rho:
        check_sharpness(rho, 1.0)
    for name in ("rho", "directions", "ascent", "iterations"):
        values = vars(args)[name] if name == "rho" else [vars(args)[name]]
        if min(values) <= 0:
            raise InputError(f"--{name} must be greater than 0, but got {min(values)}")


def prompts(runs: Sequence[PromptRun]) -> list[tuple[str, PromptRun, Tensor]]:
    """Name, run and context of each row: the words that the runs of the first name started from, then the runs."""
    first = [run for run in runs if run.name == runs[0].name]
    words = [(f'"{run.words}"', run, run.words_context()) for run in first if run.words]
    return words + [(run.name, run, run.ctx) for run in runs]


def measure(loss: BatchLoss, ctx: Tensor, args: argparse.Namespace) -> dict[str, float | bool | int]:
    """All numbers of one prompt."""
    found: dict[str, float | bool | int] = {"prompt_norm": float(ctx.norm())}
    for rho in args.rho:
        step = sharpness_step(lambda prompt: loss(prompt[None])[0], ctx, rho, 1.0)
        found |= {"loss": float(step.loss), "gradient_norm": float(step.grad_norm)}
        found[f"random_{rho:g}"] = float(random_rise(loss, ctx, rho, args.directions, args.direction_seed))
        found[f"first_order_{rho:g}"] = float(step.sharpness)
        found[f"worst_{rho:g}"] = float(worst_rise(loss, ctx, rho, args.ascent))
    top = top_eigenvalue(loss, ctx, max_iterations=args.iterations, seed=args.direction_seed)
    return found | {
        "top_eigenvalue": top.value,
        "eigenvalue_converged": top.converged,
        "eigenvalue_iterations": top.iterations,
    }


def measures(rows: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """The numbers that are averaged."""
    return (key for key, value in rows[0].items() if isinstance(value, float))


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Mean, standard deviation (None: one seed) and seeds of each name."""
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(row["name"] for row in rows):
        own = [row for row in rows if row["name"] == name]
        found[name] = {"seeds": [row["seed"] for row in own]}
        for key in measures(rows):
            values = averaged([row[key] for row in own])
            found[name][key] = {"mean": values.mean, "std": values.std}
    return found


LABELS = {
    "loss": "training loss",
    "gradient_norm": "norm of the gradient",
    "prompt_norm": "norm of the prompt",
    "top_eigenvalue": "largest eigenvalue of the Hessian",
}
RISES = {"random": "random directions", "first_order": "SAM's first-order point", "worst": "ascent"}


def readable(key: str) -> str:
    """A number's name for readers."""
    kind, _, rho = key.rpartition("_")
    return LABELS.get(key) or f"rise within {rho}: {RISES[kind]}"


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A column for each name; says which eigenvalues are lower bounds only."""
    found = summary(rows)
    cells = [[readable(key), *(cell(**found[name][key]) for name in found)] for key in measures(rows)]
    cells.append(["seeds", *(" ".join(map(str, found[name]["seeds"])) for name in found)])
    names = [escaped(name, "markdown") for name in found]
    table = tabulate(cells, ["", *names], tablefmt="github", disable_numparse=True)
    open_ends = [f"{row['name']} seed {row['seed']}" for row in rows if not row["eigenvalue_converged"]]
    note = f"\n\nThe eigenvalue did not converge and is a lower bound: {', '.join(open_ends)}." if open_ends else ""
    return table + note


def cell(mean: float, std: float | None) -> str:
    """A number of the table, to three digits."""
    return f"{mean:.3g}" if std is None else f"{mean:.3g} ± {std:.2g}"
