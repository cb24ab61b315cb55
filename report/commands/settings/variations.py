"""STSS under many settings for one finished run: its prompt, its views, and what each setting gets right.

The views are encoded once; a setting is then a few products of features (arXiv 2501.18864, eq. 5-8).
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from tlla.errors import InputError
from tlla.methods.stss import STSS
from tlla.prompts.classifier import Classifier
from tlla.records.record import Record
from tlla.rules import RULES, Entropy, Known, Rule, Seen, Stss, parse_rule
from tlla.selection import VOTES, ViewScores, select_and_vote
from trainers.base import ClipTrainer

from ...reopen import check_all_views, check_tested_prompt, class_of_run, open_run, quietly, tested_entries
from .bank import ViewBank

AS_STSS = ("CLASS_TOKEN_POSITION", "PREC")  # keys of a prompt's training that its test by STSS needs
RHOS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 2.0, 4.0)
LAMBDAS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
N_PERTURB = (0, 1, 2, 4, 8, 16, 32)
N_VIEWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
TOP_S = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128, 256)


@dataclass(frozen=True, order=True)
class Setting:
    """STSS's settings: rho', lambda, perturbations R, views V, voting views s, vote, rule."""

    rho: float
    lam: float
    n_perturb: int
    n_views: int
    rule: str
    top_s: int
    vote: str

    @property
    def scoring(self) -> tuple[float, float, int, int, str]:
        """What the scores of the views depend on."""
        return self.rho, self.lam, self.n_perturb, self.n_views, self.rule


@dataclass(frozen=True)
class StssRun:
    """A run opened for STSS."""

    folder: Path  # the run's
    trainer: ClipTrainer  # with the images and the image encoder
    classifier: Classifier  # the prompt that the run has tested
    own: Setting  # the run's settings
    recorded: dict[str, int]  # correct images by split, as recorded under these settings; {} if they are not


def open_stss(record: Record, *opts: str) -> StssRun:
    """Opens a run that tested STSS (TLLA, an entry of Compare) or learned a prompt, which then gets STSS's defaults.

    Args:
        record: The run's.
        opts: KEY VALUE pairs on top of the run's config.

    Raises:
        InputError: STSS cannot be tried on such a run.
    """
    check_all_views(record)
    folder = record.folder
    of_stss = record.method["name"] == STSS.__name__
    if of_stss:
        trainer = open_run(record, *opts)
    elif record.method["kind"] == "prompt":
        node = record.config["TRAINER"][class_of_run(record).config_node]
        as_stss = [x for key in AS_STSS if key in node for x in (f"TRAINER.PROMPT.{key}", node[key])]
        trainer = open_run(record, "TRAINER.NAME", STSS.__name__, *as_stss, *opts)
        if trainer.classifier is None:
            with quietly():
                trainer.load_model(str(folder))
        check_tested_prompt(record, trainer.classifier.fingerprint())
    else:
        raise InputError(f"{folder} is a run of {record.trainer}: name one of STSS, or one that learned a prompt")
    method = tested_entries(record, trainer)[0].method
    if method.classifier.conditional:
        raise InputError(f"{folder} has no prompt that is the same for all images: STSS's settings cannot be varied")
    splits = record.content["splits"] if of_stss and not opts else {}
    recorded = {split: test["correct"] for split, test in splits.items()}
    return StssRun(folder, trainer, method.classifier, own_setting(method, trainer.tester.config.n_views), recorded)


def own_setting(method: STSS, n_views: int) -> Setting:
    """The settings of a run; those in the text of its rule count."""
    setting = Setting(n_views=n_views, **dataclasses.asdict(method))
    rule = method.build_rule()
    return dataclasses.replace(setting, rule=rule.name, **vars(rule)) if rule.name == Stss.name else setting


def variations(own: Setting) -> Iterator[tuple[str, Setting]]:
    """What is varied, and the setting: each alone around the run's own. With fewer views, the same share of them votes.

    The references are the centre crop alone, the mean probability of all views, and entropy selection (lambda = 0).
    """
    change = dataclasses.replace
    yield "own", own
    yield "one view", change(own, lam=0.0, n_perturb=0, n_views=1, top_s=1, vote="mean_prob")
    yield "mean of all views", change(own, lam=0.0, n_perturb=0, top_s=own.n_views, vote="mean_prob")
    yield "entropy selection", change(own, lam=0.0, n_perturb=0, rule=Entropy.name)
    for name, values in (("rho", RHOS), ("lam", LAMBDAS), ("n_perturb", N_PERTURB)):
        yield from ((name, change(own, **{name: value})) for value in _with(values, getattr(own, name)))
    yield from (("top_s", change(own, top_s=s)) for s in _with(TOP_S, own.top_s) if s <= own.n_views)
    for n_views in (v for v in _with(N_VIEWS, own.n_views) if v <= own.n_views):
        top_s = max(1, round(own.top_s * n_views / own.n_views))
        yield "n_views", change(own, n_views=n_views, top_s=top_s)
    yield from (("vote", change(own, vote=how)) for how in VOTES)
    yield from (("rule", change(own, rule=rule)) for rule in dict.fromkeys((*RULES, own.rule)))


def _with(values: Sequence, own: float) -> list:
    return sorted({*values, own})


def correct_images(run: StssRun, views: ViewBank, settings: Sequence[Setting]) -> dict[Setting, int]:
    """How many images each setting classifies correctly."""
    texts = class_features(run, settings)
    correct = dict.fromkeys(sorted(settings), 0)
    for features, known in tqdm(views.batches(), total=len(views), desc="settings", leave=False):
        features, labels = features.to(run.trainer.device), known.label.to(run.trainer.device)
        for (rho, lam, n_perturb, n_views, text), group in groupby(correct, lambda setting: setting.scoring):
            rule = parse_rule(text, Stss(rho, lam, n_perturb))
            scores = view_scores(run, rule, features[:, :n_views], texts[rho][: n_perturb + 1], known)
            for setting in group:
                s = n_views if rule.keeps_all else setting.top_s
                prediction = select_and_vote(scores, s, setting.vote).argmax(dim=-1)
                correct[setting] += int((prediction == labels).sum())
    return correct


def view_scores(run: StssRun, rule: Rule, features: Tensor, text: Tensor, known: Known) -> ViewScores:
    """Scores of the views, (B, V, E), under class features of the prompt and of perturbed ones, (R + 1, 1, K, E)."""
    scale, seed = run.classifier.scale, run.trainer.tester.config.seed
    seen = Seen(scale * features @ text[0].mT, features, scale, text[1:], known, seed)
    return ViewScores(rule.scores(seen), seen.entropy, seen.sharpness, seen.logits)


def class_features(run: StssRun, settings: Sequence[Setting]) -> dict[float, Tensor]:
    """By rho', the class features of the prompt and of as many perturbed ones as any setting needs: (R + 1, 1, K, E).

    The first perturbations of many are those of few: direction r depends on the seed and r alone.
    """
    texts = {}
    for rho in sorted({setting.rho for setting in settings}):
        most = max(setting.n_perturb for setting in settings if setting.rho == rho)
        texts[rho] = run.classifier.perturbed(rho, most, run.trainer.tester.config.seed)
    return texts
