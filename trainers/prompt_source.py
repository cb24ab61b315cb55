"""Any prompt for any test-time method: templates, class descriptions, or what a run has learned."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn
from yacs.config import CfgNode

from tlla.errors import InputError, nearest
from tlla.prompts.choose import make_classifier
from tlla.prompts.classifier import Classifier
from tlla.prompts.descriptions import Descriptions, is_descriptions, read_class_descriptions
from tlla.prompts.saved import Prompt
from tlla.prompts.templates import ENSEMBLES, check_template, fill_template
from tlla.prompts.tokens import OnShared, refuse_shared
from tlla.records.origins import BY_USER

from .harness.describe_run import describe_source

DEFAULT_TEMPLATE = "a photo of a {}."


def find_templates(name: str, dataset: Any) -> str | tuple[str, ...] | Descriptions:
    """What a TEMPLATE key means: a template, an ensemble, a .json; "": the dataset's own, else "a photo of a {}."."""
    if is_descriptions(name):
        found = read_class_descriptions(name)
        own = [len(texts) for texts in found.of(dataset.classnames)]
        print(
            f"Class descriptions {name}: {sum(own):,} sentences on {len(own):,} of its {len(found.sentences):,} classes"
        )
        return found
    templates = ENSEMBLES.get(name) or name or getattr(dataset, "template", DEFAULT_TEMPLATE)
    if isinstance(templates, str):
        if "{}" not in templates:
            raise InputError(
                f"the prompt template {templates!r} has no {{}} for the class name and is no ensemble: "
                f"{nearest(templates, list(ENSEMBLES))}"
            )
        check_template(templates)
        print(f"Template: {templates!r}, for example {fill_template(templates, dataset.classnames[0])!r}")
    else:
        print(f"Ensemble {name} of {len(templates)} templates")
    return templates


def refuse_descriptions(name: str, trainer: str) -> None:
    """Raises InputError if the TEMPLATE of a training is a file of class descriptions."""
    if is_descriptions(name):
        raise InputError(
            f"TEMPLATE {name} is a file of class descriptions, which serve tests alone, but {trainer} trains: use a "
            "template or an ensemble"
        )


def said_of_template(name: str) -> str:
    """What a record says of a TEMPLATE key: the key; of class descriptions also which file it was."""
    return str(read_class_descriptions(name)) if is_descriptions(name) else name


def said_of_prompt(cfg: CfgNode) -> dict[str, Any]:
    """For the record's loaded_from: who has trained the prompt, if the config says so."""
    node = cfg.TRAINER.PROMPT
    entry = {"name": node.NAME, "dataset": node.SOURCE or "?", "said_by": BY_USER}
    return {"trained_by": entry} if node.NAME else {}


@dataclass(frozen=True)
class PromptReader:
    """Makes classifiers for one dataset and one CLIP.

    Attributes:
        clip_model: Any CLIP.
        dataset: Gives the class names and, perhaps, a template.
        position: Where the class name stands in a learned prompt whose checkpoint does not say it.
        autocast: See `Classifier`.
        loss_scale: See `Classifier`.
        best: Whether a run's epoch that was best on val is taken, not the newest.
        on_shared: See `tlla.prompts.tokens.check_shared`.
    """

    clip_model: nn.Module
    dataset: Any
    position: str = "end"
    autocast: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext
    loss_scale: float = 1.0
    best: bool = False
    on_shared: OnShared = refuse_shared

    def template(self, name: str) -> Classifier:
        """Of a template, an ensemble's name, a .json of class descriptions, or (empty) the dataset's own template."""
        return self._classifier(find_templates(name, self.dataset))

    def run(self, directory: str, epoch: int | None = None) -> tuple[Classifier, dict[str, Any]]:
        """Of a run that learned a prompt (CoOp, CoCoOp, SAPT, TLLA), and where it came from, for the record."""
        prompt = Prompt.load(directory, epoch, self.best)
        classifier = self._classifier(prompt.or_at(self.position))
        print(f"Loaded the prompt of epoch {prompt.epochs} from {prompt.path}")
        return classifier, describe_source(prompt.path, prompt.epochs, prompt.trained_by)

    def _classifier(self, prompt: str | tuple[str, ...] | Descriptions | Prompt) -> Classifier:
        names = self.dataset.classnames
        return make_classifier(self.clip_model, names, prompt, self.autocast, self.loss_scale, self.on_shared)
