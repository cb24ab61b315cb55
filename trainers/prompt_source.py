"""What the keys that name a prompt mean: templates and class descriptions; and what a record says of them."""

from typing import Any

from yacs.config import CfgNode

from tlla.errors import InputError, nearest
from tlla.prompts.descriptions import Descriptions, is_descriptions, read_class_descriptions
from tlla.prompts.templates import ENSEMBLES, check_template, fill_template
from tlla.records.origins import BY_USER

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
