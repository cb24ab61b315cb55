"""Builds the text side from any prompt: templates, class descriptions, a checkpoint, a run, context vectors."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from ..arguments import is_path, sequence, short
from ..backbones import as_backbone
from ..errors import InputError, nearest
from .classifier import Autocast, Classifier, ConditionalClassifier, PromptClassifier, from_templates
from .conditional import ConditionalCLIP, ConditionalPromptLearner
from .descriptions import Descriptions, is_descriptions, read_class_descriptions
from .learner import PromptLearner
from .prompted import PromptedCLIP
from .saved import Prompt
from .templates import ENSEMBLES, named_templates
from .tokens import OnShared, refuse_shared

PromptLike = str | Sequence[str] | os.PathLike[str] | Tensor | np.ndarray | Prompt | Descriptions


def find_prompt(prompt: PromptLike, epoch: int | None = None) -> str | tuple[str, ...] | Prompt | Descriptions:
    """Resolves a prompt: one or more templates, or what is read from a path, a learned prompt or class descriptions.

    Args:
        prompt: See `make_classifier`.
        epoch: See `Prompt.load`.

    Raises:
        InputError: it is none of these, or cannot be read.

    >>> find_prompt("a photo of a {}."), find_prompt(torch.zeros(4, 128)).position
    ('a photo of a {}.', 'end')
    """
    if isinstance(prompt, (Prompt, Descriptions)):
        return prompt
    if isinstance(prompt, (Tensor, np.ndarray)):
        return Prompt(prompt)  # type: ignore[arg-type]
    if isinstance(prompt, (list, tuple)) and prompt and all(isinstance(template, str) for template in prompt):
        return tuple(prompt) if len(prompt) > 1 else str(prompt[0])
    if not is_path(prompt):
        raise InputError(
            f"the prompt must be a template or several, a path, context vectors or a Prompt, but got {short(prompt)}"
        )
    if templates := named_templates(os.fspath(prompt)):
        return templates
    if not Path(prompt).expanduser().exists():
        raise InputError(
            f"the prompt {os.fspath(prompt)!r} is neither a template (it has no {{}} for the class name), nor a file, "
            f"nor a run's folder, nor an ensemble: {nearest(os.fspath(prompt), list(ENSEMBLES))}"
        )
    if is_descriptions(prompt) and Path(prompt).expanduser().is_file():
        return read_class_descriptions(prompt)
    return Prompt.load(prompt, epoch)


def make_classifier(
    model: nn.Module,
    class_names: Sequence[str],
    prompt: PromptLike,
    autocast: Autocast = contextlib.nullcontext,
    loss_scale: float = 1.0,
    on_shared: OnShared = refuse_shared,
) -> Classifier:
    """Builds the text side of a prompt.

    Args:
        model: CLIP.
        class_names: One name per class.
        prompt: A template with ``{}`` for the class name; several, an ensemble; "imagenet7" or "imagenet80"; a .json
            file of class descriptions, see `tlla.prompts.descriptions`; a checkpoint or the folder of a run that
            trained a prompt (CoOp, CoCoOp, SAPT, TLLA); context vectors (L, D), or (K, L, D) by class, which stand
            before the class name; or what `train_prompt` returned.
        autocast: See `Classifier`.
        loss_scale: See `Classifier`.
        on_shared: See `tlla.prompts.tokens.check_shared`.

    Raises:
        InputError: the prompt is none of these, or does not fit the model or the classes.

    >>> make_classifier(model, ["cat", "dog"], "a photo of a {}.").text_features.shape
    torch.Size([2, 128])
    """
    names, found = check_class_names(class_names), find_prompt(prompt)
    if not isinstance(found, Prompt):
        return from_templates(model, names, found, autocast, loss_scale, on_shared)
    length, most = found.ctx.shape[-2], as_backbone(model).context_length - 2
    if not 1 <= length <= most:
        where = found.path or "the prompt"
        raise InputError(f"{where} has {length:,} context vectors, but the text encoder accepts 1 to {most}")
    if found.meta_net:
        conditional = ConditionalPromptLearner(model, names, length, on_shared=on_shared)
        found.put_into(conditional)
        return ConditionalClassifier(ConditionalCLIP(model, conditional), autocast, loss_scale)
    learner = PromptLearner(model, names, length, "", found.ctx.dim() == 3, found.position, on_shared=on_shared)
    found.put_into(learner)
    return PromptClassifier(PromptedCLIP(model, learner), autocast, loss_scale)


def check_class_names(class_names: Sequence[str]) -> list[str]:
    """The names as a list; InputError if the list is empty, or if a name is not a string or has no words.

    >>> check_class_names(("cat", " "))
    Traceback (most recent call last):
    tlla.errors.InputError: each class name must be a text with words in it, but got ' '
    """
    names = sequence("the class names", class_names, "texts, one a class")
    if not names:
        raise InputError("the list of class names is empty: name at least one class")
    for name in names:
        if not isinstance(name, str) or not name.replace("_", " ").strip():
            raise InputError(f"each class name must be a text with words in it, but got {name!r}")
    return [str(name) for name in names]  # NumPy has a text class of its own
