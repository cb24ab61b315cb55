"""docs/methods.md's table of what each method needs, from what the methods and trainers declare.

python -m scripts.docs.needs    # prints it; a test compares it with the page
"""

from dassl.engine import TRAINER_REGISTRY
from tabulate import tabulate

import trainers  # noqa: F401  registers the trainers
from tlla.methods import METHODS
from tlla.methods.base import Method
from tlla.prompts.prompted import PromptedCLIP
from trainers.base import ClipTrainer

HEADERS = ("method", "trained on", "prompt", "views", "text encoder", "backprop", "order", "N", "batch", "first pass")
NO = "-"


def needs_of_method(method: type[Method]) -> list[str]:
    """A row of a test-time method."""
    text, backprop = method.needs_text_encoder, method.needs_backprop
    n_images = method.needs_dataset and not (method.reads_first or method.in_batches)
    return [
        NO,
        "a context" if text else "not CoCoOp's" if method.keeps_text else "any",
        "all" if method.uses_views else "one",
        NO if not text else "each image" if backprop else "once a prompt",
        NO if not backprop else "text encoder" if text else "image encoder" if method.needs_images else "no encoder",
        "yes" if method.online else NO,
        "yes" if n_images else NO,
        str(method.batch) if method.in_batches else NO,
        "yes" if method.reads_first else NO,
    ]


def needs_of_training(trainer: type[ClipTrainer]) -> list[str]:
    """A row of a trainer, whose test sees one view."""
    source = "labelled images" if trainer.learns_from_images else "class names"
    conditional = getattr(trainer, "model_class", PromptedCLIP) is not PromptedCLIP
    prompt = "its own" if trainer.kind == "prompt" else "template"
    return [source, prompt, "one", "each image" if conditional else NO, *[NO] * 5]


def needs_table() -> str:
    """The table, Markdown: test-time methods, then trainers that learn by themselves; TLLA is SAPT and STSS."""
    kinds = {name: TRAINER_REGISTRY.get(name) for name in sorted(TRAINER_REGISTRY.registered_names())}
    learn = {name: kind for name, kind in kinds.items() if getattr(kind, "learned", "") and not kind.training}
    rows = [[f"`{name}`", *needs_of_method(method)] for name, method in METHODS.items()]
    rows += [[f"`{name}`", *needs_of_training(kind)] for name, kind in learn.items()]
    return tabulate(rows, HEADERS, tablefmt="github", disable_numparse=True)


if __name__ == "__main__":
    print(needs_table())
