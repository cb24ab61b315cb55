"""Chooses the embedded benchmark's hyperparameters on SOURCE train and val images; no test image is opened.

Stages: the learning rate of CoOp and the rho of SAPT by one view's accuracy on val; then, with the prompts that result,
how many perturbations R, how many views s and which vote STSS should use; then why: how well entropy and STSS's score
tell right views from wrong ones.

    python -m scripts.emoji.ablation --output output/ablation
    python -m scripts.emoji.ablation --output output/ablation_scenes --scenes
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.ticker import FuncFormatter
from tabulate import tabulate
from torch import Tensor

import tlla
from report import style
from report.style import plt
from tlla.clip import load_clip
from tlla.command_line import call
from tlla.files import whole_file
from tlla.fingerprint import files_sha256, key_of, source_sha256, versions
from tlla.prompts.learner import PromptLearner
from tlla.prompts.prompted import PromptedCLIP
from tlla.selection import VOTES, ViewScores, lowest, score_views, select_and_vote
from tlla.sharpness import random_directions

from .assets import FOLDER, WEIGHTS
from .study import add_family
from .tuning import SourceImages, accuracy, mean_and_std, source_parts, tune_prompts

CTX_INIT = "an icon of a"
SCALES = ((0.08, 1.0), (0.3, 1.0), (0.5, 1.0))
TOP_S = (1, 2, 4, 6, 10, 16, 24, 32, 48, 64)
N_PERTURB = (1, 2, 4, 8, 16, 32)
STSS_RHOS = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0)
TEMPERATURES = (0.5, 1.0, 2.0, 4.0)  # factors on the logit scale


class Selection:
    """Accuracy of selection rules for one prompt over precomputed view features."""

    def __init__(self, model: PromptedCLIP, features: Tensor, labels: Tensor, ctx: Tensor, seed: int):
        self.model, self.features, self.labels, self.ctx, self.seed = model, features, labels, ctx, seed

    @torch.no_grad()
    def scores(self, rho: float, n_perturb: int, lam: float, sharper: float = 1.0) -> ViewScores:
        """STSS scores of all views; `sharper` multiplies the logit scale."""
        directions = random_directions(tuple(self.ctx.shape), n_perturb, rho, self.seed)
        text = self.model.encode_text(torch.cat([self.ctx[None], self.ctx + directions]))
        return score_views(self.features, text, sharper * self.model.logit_scale, lam)

    def accuracy(self, scored: ViewScores, s: int, how: str) -> float:
        """Accuracy of the votes of the s lowest views."""
        return accuracy(select_and_vote(scored, s, how), self.labels)

    def diagnosis(self, sharper: float) -> dict[str, float]:
        """How entropy and score rank views, over all views of all images; `common`: shared views of the 6 lowest."""
        scored = self.scores(0.5, 8, 1.0, sharper)
        right = scored.logits.argmax(dim=-1) == self.labels[:, None]
        kept, kept_entropy = lowest(scored.score, 6), lowest(scored.entropy, 6)
        return {
            "views right": 100.0 * right.float().mean().item(),
            "mean entropy": scored.entropy.mean().item(),
            "mean sharpness": scored.sharpness.mean().item(),
            "AUROC entropy": auroc(-scored.entropy, right),
            "AUROC sharpness": auroc(-scored.sharpness, right),
            "at like entropy": auroc_within(-scored.sharpness, right, scored.entropy),
            "AUROC score": auroc(-scored.score, right),
            "common": 100.0 * (kept[:, :, None] == kept_entropy[:, None]).any(dim=2).float().mean().item(),
        }


def auroc(score: Tensor, positive: Tensor) -> float:
    """Probability (in %) that a positive scores higher than a negative."""
    higher, pairs = _pairs(score.flatten(), positive.flatten())
    return 100 * higher / pairs


def auroc_within(score: Tensor, positive: Tensor, other: Tensor, n_groups: int = 50) -> float:
    """The same probability (in %) among pairs of one group, where groups are quantiles of another score.

    It says what a score knows that the other one does not.
    """
    order = other.flatten().argsort()
    groups = zip(score.flatten()[order].chunk(n_groups), positive.flatten()[order].chunk(n_groups), strict=True)
    higher, pairs = map(sum, zip(*(_pairs(*group) for group in groups), strict=True))
    return 100 * higher / pairs


def _pairs(score: Tensor, positive: Tensor) -> tuple[float, int]:
    """In how many pairs of a positive and a negative the former scores higher, by ranks, and how many there are."""
    ranks = score.double().argsort().argsort().double() + 1
    n_pos, n_neg = int(positive.sum()), int((~positive).sum())
    return ranks[positive].sum().item() - n_pos * (n_pos + 1) / 2, n_pos * n_neg


def ablate(
    model: PromptedCLIP, source: SourceImages, prompts: dict[str, list[Tensor]]
) -> tuple[list[dict], list[dict]]:
    """Rows of accuracy for each prompt, crop scale and setting (means over the prompt's seeds), and the diagnosis."""
    rows, diagnosis = [], []
    for scale in SCALES:
        features, labels = source.view_features(scale, 64, 0, source.is_val), source.labels[source.is_val]
        for name, contexts in prompts.items():
            picks = [Selection(model, features, labels, ctx, i) for i, ctx in enumerate(contexts)]
            head = {"prompt": name, "crops": f"{scale[0]:g}-1"}
            rows += [head | row for row in _settings(picks)]
            diagnosis += [head | row for row in _diagnoses(picks)]
    return rows, diagnosis


def _diagnoses(picks: list[Selection]) -> list[dict]:
    """One row for each temperature, the mean over the prompt's seeds."""
    table = [(t, [pick.diagnosis(t) for pick in picks]) for t in TEMPERATURES]
    return [{"scale x": t} | {key: sum(r[key] for r in rows) / len(rows) for key in rows[0]} for t, rows in table]


def _settings(picks: list[Selection]) -> list[dict]:
    """All settings for one kind of prompt: entropy, then STSS over R and rho', each over s and the vote."""
    rows = []

    def add(rule: str, rho: float, n_perturb: int, lam: float) -> None:
        scored = [pick.scores(rho, n_perturb, lam) for pick in picks]
        for how in VOTES:
            for s in TOP_S:
                values = [pick.accuracy(x, s, how) for pick, x in zip(picks, scored, strict=True)]
                row = {"rule": rule, "rho": rho, "R": n_perturb, "s": s, "vote": how}
                rows.append(row | mean_and_std("accuracy", torch.tensor(values)))

    single = [accuracy(pick.scores(0.5, 0, 0.0).logits[:, 0], pick.labels) for pick in picks]
    rows.append(
        {"rule": "one view", "rho": 0, "R": 0, "s": 1, "vote": "-"} | mean_and_std("accuracy", torch.tensor(single))
    )
    add("entropy", 0.0, 0, 0.0)
    for n_perturb in N_PERTURB:
        add("STSS", 0.5, n_perturb, 1.0)
    for rho in STSS_RHOS:
        if rho != 0.5:
            add("STSS", rho, 8, 1.0)
    return rows


def choose_settings(rows: list[dict]) -> dict:
    """The settings of STSS, by the mean accuracy over the three prompts.

    R, s and the vote at the paper's rho' = 0.5, lambda = 1 and crops: the best, with the fewest perturbations that come
    within 0.25 points of it, as (R + 1) prompts a class are encoded. Then the crops for the embedded benchmark.
    """
    means: dict[tuple, list[float]] = {}
    for row in rows:
        if row["rule"] == "STSS" and row["rho"] == 0.5:
            key = (row["crops"], row["s"], row["vote"], row["R"])
            means[key] = means.get(key, []) + [row["accuracy"]]
    mean = {key: sum(values) / len(values) for key, values in means.items()}
    _, s, how, _ = best = max((key for key in mean if key[0] == "0.08-1"), key=mean.__getitem__)
    few = min(key[3] for key in mean if key[:3] == best[:3] and mean[key] > mean[best] - 0.25)
    crops = max((key[0] for key in mean if key[1:] == (s, how, few)), key=lambda c: mean[c, s, how, few])
    return {"N_PERTURB": few, "TOP_S": s, "VOTE": how, "crops": crops}


def draw(rows: list[dict], how: str, s: int, path: Path) -> None:
    """Accuracy against s, R and rho', for each prompt, at the paper's crops: <path>.svg and <path>.png."""
    rows = [r for r in rows if r["crops"] == "0.08-1" and r["vote"] == how]
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.6), sharey=True)
    for i, name in enumerate(dict.fromkeys(r["prompt"] for r in rows)):
        own = [r for r in rows if r["prompt"] == name]
        for rule, dash in (("entropy", "--"), ("STSS", "-")):
            line = [r for r in own if r["rule"] == rule and r["rho"] in (0.0, 0.5) and r["R"] in (0, 8)]
            _plot(axes[0], line, "s", i, linestyle=dash, label=f"{name}, {rule}")
        at_s = [r for r in own if r["rule"] == "STSS" and r["s"] == s]
        _plot(axes[1], [r for r in at_s if r["rho"] == 0.5], "R", i)
        _plot(axes[2], sorted((r for r in at_s if r["R"] == 8), key=lambda r: r["rho"]), "rho", i)
    for axis, label in zip(
        axes, ("views that vote, s", f"perturbations, R (s = {s})", f"radius, ρ′ (s = {s})"), strict=True
    ):
        axis.set_xlabel(label)
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes[0].set_ylabel(f"accuracy on the source, %\n({how.replace('_', ' ')})")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    style.save(figure, path)


def _plot(axis, rows: list[dict], key: str, i: int, **changes) -> None:
    axis.plot([r[key] for r in rows], [r["accuracy"] for r in rows], **{**style.line(i), "linestyle": "-", **changes})


def markdown(result: dict) -> str:
    """The tables of docs/ablation.md."""
    chosen = result["chosen"]
    selection = _table(_by_rule(result["selection"], chosen), floatfmt=".1f")
    diagnosis = [r for r in result["diagnosis"] if r["crops"] == "0.08-1"]
    return "\n\n".join(
        (
            _table(result["prompts"], floatfmt=("", "g", "g", ".1f", ".1f")),
            f"s = {chosen['TOP_S']}, R = {chosen['N_PERTURB']}, vote {chosen['VOTE']}:\n\n{selection}",
            _table(diagnosis, floatfmt=".3g"),
            f"Chosen: `{chosen}`",
        )
    )


def _table(rows: list[dict], floatfmt: str | tuple[str, ...]) -> str:
    texts = [i for i, value in enumerate(rows[0].values()) if isinstance(value, str)]
    return tabulate(rows, headers="keys", tablefmt="github", floatfmt=floatfmt, disable_numparse=texts)


def _by_rule(rows: list[dict], chosen: dict) -> list[dict]:
    """One row for each prompt and crop scale, one column for each rule, at the chosen s, R and vote."""
    table: dict[tuple, dict] = {}
    for row in rows:
        line = table.setdefault((row["prompt"], row["crops"]), {"prompt": row["prompt"], "crops": row["crops"]})
        if row["rule"] == "one view":
            line["one view"] = row["accuracy"]
        elif row["vote"] == chosen["VOTE"] and row["rule"] == "entropy" and row["s"] in (64, chosen["TOP_S"]):
            line["mean of 64" if row["s"] == 64 else "entropy"] = row["accuracy"]
        elif (row["vote"], row["s"], row["R"], row["rho"]) == (
            chosen["VOTE"],
            chosen["TOP_S"],
            chosen["N_PERTURB"],
            0.5,
        ):
            line["STSS"] = row["accuracy"]
    columns = ("prompt", "crops", "one view", "mean of 64", "entropy", "STSS")
    return [{column: line[column] for column in columns} for line in table.values()]


def _once(path: Path, make: Callable[[], dict]) -> dict:
    """Keeps the result of a long stage: an interrupted ablation of this benchmark, CLIP and code resumes after it."""
    paths = [WEIGHTS, *sorted(FOLDER.rglob("*.*"))]
    key = key_of([files_sha256(paths), versions(), source_sha256(Path(__file__).parent, Path(tlla.__file__).parent)])
    path = path.with_stem(f"{path.stem}-{key}")
    if not path.exists():
        with whole_file(path) as part:
            torch.save(make(), part)
    return torch.load(path, weights_only=True)


def main() -> None:
    """Runs all stages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("output/ablation"), help="folder of the results")
    add_family(parser)
    args = parser.parse_args()
    clip_model = load_clip("EmojiCLIP")
    names, *parts = source_parts("EmojiScenes" if args.scenes else "Emoji")
    model = PromptedCLIP(clip_model, PromptLearner(clip_model, names, ctx_init=CTX_INIT))
    source = SourceImages(model, *parts)
    args.output.mkdir(parents=True, exist_ok=True)
    tuned = _once(args.output / ("scenes.pt" if args.scenes else "plain.pt"), lambda: tune_prompts(model, source))
    prompts = {"hand-written": [model.prompt_learner.ctx.detach()], **tuned["prompts"]}
    selection, diagnosis = ablate(model, source, prompts)
    chosen = {"lr": tuned["lr"], "rho": tuned["rho"]} | choose_settings(selection)
    result = {"chosen": chosen, "prompts": tuned["rows"], "selection": selection, "diagnosis": diagnosis}
    (args.output / "ablation.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (args.output / "tables.md").write_text(markdown(result) + "\n", encoding="utf-8")
    draw(selection, chosen["VOTE"], chosen["TOP_S"], args.output / "ablation")
    print(markdown(result))


if __name__ == "__main__":
    sys.exit(call(main))
