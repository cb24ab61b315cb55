"""The tables of the paper: all rows that this project has."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tlla.errors import InputError
from tlla.methods import METHODS
from tlla.protocols import ONE_TEMPLATE

from . import traits
from .flags import SHORT
from .job import Job
from .plans import (
    SHIFTED,
    TEN,
    PromptPlan,
    Settings,
    ablation,
    coop_prompt,
    cross_dataset,
    evaluation,
    evaluations,
    protocol_keys,
    shots,
)

TABLE1 = {  # methods at test time in the paper's tables, by the prompt that they run on
    "template": ("TPT", "CTPT", "ZERO", "MTA", "TDA", "DPE"),
    "CoOp": ("TPT", "CTPT", "ZERO", "MTA", "SAR"),
}
TABLE2 = {"template": ("TPT", "ZERO"), "CoOp": ("TPT",)}
TEMPLATE_KEY, CLIP_KEY = "TRAINER.PROMPT.TEMPLATE", "TRAINER.ZSCLIP.TEMPLATE"


def zeroshot(s: Settings, targets: Sequence[str], *opts: str) -> list[Job]:
    """CoOp's zeroshot.sh. Nothing is random: one seed."""
    cfg = s.config("ZeroshotCLIP")
    folder = f"ZeroshotCLIP/{cfg}"
    return [s.job("ZeroshotCLIP", cfg, x, s.seeds[0], f"{folder}/{Path(x).stem}", *opts) for x in targets]


def test_time_plan(s: Settings, targets: Sequence[str], methods: Mapping[str, Sequence[str]], *opts: str) -> list[Job]:
    """Methods at test time on the hand-written prompt and on CoOp's, for each seed.

    All in one pass over a dataset; by their authors' protocols, which differ in their views, each by itself.
    """
    also = [name for name in s.also if name in METHODS]
    wanted = {prompt: list(dict.fromkeys((*names, *also))) for prompt, names in methods.items()}
    cfg, jobs = s.config("Compare"), []
    for prompt, names in wanted.items():
        together = [name for name in names if not s.as_authors(name)]
        chosen = ("TRAINER.COMPARE.METHODS", json.dumps(together, separators=(",", ":")))
        trainers = {"Compare": chosen} if together else {}
        trainers |= {name: () for name in names if s.as_authors(name)}
        for trainer, words in trainers.items():
            if prompt != "template":
                jobs += evaluations(s, coop_prompt(s.config("SAPT")), trainer, cfg, targets, *words)
                continue
            template = () if s.as_authors(trainer) else opts
            for target in targets:
                folder = f"{evaluation(s, trainer)}/{trainer}/{cfg}/{Path(target).stem}"
                more = (*protocol_keys(s, trainer, target), *words, *template)
                jobs += [s.job(trainer, cfg, target, seed, folder, *more) for seed in s.seeds]
    return jobs


def trained(s: Settings, trainer: str, cfg: str, targets: Sequence[str]) -> list[Job]:
    """CoCoOp's xd_train.sh and xd_test.sh: trained (and tested) on the source, tested on the targets."""
    tag, source = f"{Path(cfg).stem}_{s.shots}shots", Path(s.source).stem
    prompt = PromptPlan(trainer, cfg)
    if given := trainer in dict(s.prompts):
        tag, targets = prompt.tag(s), (s.source, *targets)
    jobs = []
    for seed in s.seeds:
        if given:
            training = prompt.train(s, s.source, seed)
        else:
            training = s.job(trainer, cfg, s.source, seed, f"{source}/{trainer}/{tag}", *shots(s))
        jobs.append(training)
        for target in targets:
            folder = f"evaluation/{trainer}/{tag}/{Path(target).stem}"
            jobs.append(s.job(trainer, cfg, target, seed, folder, source=training))
    return jobs


def added(s: Settings, targets: Sequence[str]) -> list[Job]:
    """The further rows that are trained: name=config."""
    jobs = []
    for name, _, cfg in (entry.partition("=") for entry in s.also):
        if name in METHODS:
            continue  # an entry of Compare
        if not traits.trains(name):
            raise InputError(f"--also {name}: it is no method at test time and trains nothing")
        if not cfg and not s.cfg:
            raise InputError(f"--also {name}: it is trained, so say with which config: {name}=<cfg>")
        jobs += trained(s, name, cfg or s.cfg, targets)
    return jobs


def table1(s: Settings) -> list[Job]:
    """The paper's domain generalization, ViT-B/16, with all rows that this project has."""
    targets = s.targets or SHIFTED
    everywhere = (s.source, *targets)
    jobs = zeroshot(s, everywhere) + ablation(s, s.config("SAPT"))
    jobs += [job for name in ("CoCoOp", "TipAdapter") for job in trained(s, name, s.config(name), targets)]
    return jobs + test_time_plan(s, everywhere, TABLE1) + added(s, targets)


def table2(s: Settings) -> list[Job]:
    """The paper's cross-dataset transfer, ViT-B/16, with all rows that this project has."""
    targets, coop = s.targets or TEN, coop_prompt(s.config("SAPT"))
    # As TPT and all that follow its code have it, whose row for CLIP is the paper's; a dataset's own may have no words
    # before the name, for TPT to tune.
    opts, for_clip = (() if key in s.opts else (key, ONE_TEMPLATE) for key in (TEMPLATE_KEY, CLIP_KEY))
    jobs = zeroshot(s, targets, *for_clip) + evaluations(s, coop, "CoOp", coop.cfg, targets)
    jobs += cross_dataset(s, s.cfg or SHORT)
    return jobs + test_time_plan(s, targets, TABLE2, *opts) + added(s, targets)


def rehearsal(s: Settings) -> Settings:
    """A table on the embedded benchmark, which needs no data and no weights: few views, one shot, one epoch."""
    few = {
        **{"OPTIM.MAX_EPOCH": "1", "DATASET.SUBSAMPLE_CLASSES": "base", "TRAINER.TIPADAPTER.AUGMENT_EPOCH": "1"},
        **dict.fromkeys(("TRAINER.VIEWS.N_VIEWS", "TRAINER.TLLA.N_VIEWS"), "4"),
        **dict.fromkeys(("TRAINER.STSS.TOP_S", "TRAINER.TLLA.TOP_S"), "2"),
    }
    return replace(
        s,
        out=s.out / "smoke",
        data="",
        seeds=s.seeds[:1],
        shots=1,
        source="emoji",
        targets=("emoji_twemoji",),
        opts=(*(word for pair in few.items() for word in pair), *s.opts),
        cfg="emoji",
    )
