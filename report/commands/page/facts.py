"""What a run was: the facts at the head of its page, as (name, value) pairs of text."""

from datetime import datetime
from pathlib import Path

from tlla.methods import Method, settings
from tlla.methods.stss import STSS
from tlla.records.origins import UNKNOWN, trained_by
from tlla.records.store import RESULTS
from trainers.prompt_source import DEFAULT_TEMPLATE

from .measure import Measured


def main_facts(measured: Measured) -> list[tuple[str, str]]:
    """Data, model, prompt, seed, settings, and when the results were written."""
    record, method, views = measured.record, measured.method, measured.trainer.tester.config
    written = datetime.fromtimestamp((measured.folder / RESULTS).stat().st_mtime)
    low, high = views.scale
    return [
        ("Dataset", f"{record.tested_data(record.data['name'])}, {len(measured.views.index)} test images"),
        ("CLIP", record.content["backbone"]),
        ("Prompt", prompt_source(measured)),
        ("Seed", str(record.content["seed"])),
        ("Views", f"{views.n_views} an image, crops of {low:g} to {high:g} of its area{', AugMix' * views.augmix}"),
        ("Score", score_words(method)),
        ("Vote", f"the {measured.n_kept} views of lowest score, by {vote_words(measured)}"),
        ("Results of", f"{written:%Y-%m-%d %H:%M}"),
    ]


def score_words(method: Method) -> str:
    """What the score of a view is: of STSS in words, of another method its name and settings."""
    if not method.has_own_rule:
        return f"the rule {method.build_rule()}{', which used labels' * method.uses_labels}"
    if isinstance(method, STSS):
        return (
            f"entropy + {method.lam:g} \u00d7 sharpness, from {method.n_perturb} perturbations of norm {method.rho:g}"
        )
    values = [f"{key} {getattr(method, field)}" for key, (field, _) in settings(type(method)).items()]
    return f"{type(method).__name__}'s, {', '.join(values)}"


def vote_words(measured: Measured) -> str:
    """How the kept views vote."""
    return {"mean_prob": "mean probability", "mean_logit": "mean logit"}.get(measured.method.vote, "majority")


def prompt_source(measured: Measured) -> str:
    """Where the prompt comes from: a run and its epoch, this run's own training, or a template."""
    loaded = measured.record.content.get("loaded_from")
    if loaded:
        path = Path(loaded["path"])
        by = (loaded.get("trained_by") or trained_by(path.parents[1]))["name"]
        return f"{'a run' if by == UNKNOWN else by}'s of epoch {loaded['epoch']}, {path.parents[1]}"
    if measured.trainer.learned:
        return "trained in this run"
    template = measured.trainer.cfg.TRAINER.PROMPT.TEMPLATE
    return str(template or getattr(measured.trainer.dm.dataset, "template", DEFAULT_TEMPLATE))


def version_facts(measured: Measured) -> list[tuple[str, str]]:
    """Folder, commit, versions and hashes, for those who want to have the same run again."""
    record, split = measured.record.content, measured.record.test
    return [
        ("Folder", str(measured.folder)),
        ("Commit", record.get("git_commit") or "not a checkout"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in record.get("versions", {}).items())),
        ("sha256 of the test list", record["split_sha256"]["test"]),
        ("sha256 of the prompt", split["prompt_sha256"]),
    ]
