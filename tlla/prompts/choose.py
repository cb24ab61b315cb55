"""Any prompt for any method: a template, an ensemble's name, a checkpoint, a run's folder, or context vectors."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..arguments import is_path, sequence, short
from ..backbones import as_backbone
from ..errors import InputError, nearest
from .checkpoint import find_epoch, load_context, read_checkpoint
from .classifier import Autocast, Classifier, ConditionalClassifier, PromptClassifier, from_templates
from .conditional import ConditionalCLIP, ConditionalPromptLearner
from .learner import PromptLearner
from .prompted import PromptedCLIP
from .saved import Prompt, read_info
from .templates import ENSEMBLES, named_templates
from .tokens import OnShared, refuse_shared

PromptLike = str | Sequence[str] | os.PathLike[str] | Tensor | np.ndarray | Prompt


def make_classifier(
    model: nn.Module,
    class_names: Sequence[str],
    prompt: PromptLike,
    autocast: Autocast = contextlib.nullcontext,
    loss_scale: float = 1.0,
) -> Classifier:
    """The text side of a prompt.

    Args:
        model: CLIP.
        class_names: One name a class.
        prompt: A template with ``{}`` for the class name; several, an ensemble; "imagenet7" or "imagenet80"; a
            checkpoint or the folder of a run that trained a prompt (CoOp, CoCoOp, SAPT, TLLA); context vectors (L, D),
            or (K, L, D) by class, which stand before the class name; or what `train_prompt` returned.
        autocast: See `Classifier`.
        loss_scale: See `Classifier`.

    Raises:
        InputError: the prompt is none of these, or does not fit the model or the classes.

    >>> make_classifier(model, ["cat", "dog"], "a photo of a {}.").text_features.shape
    torch.Size([2, 128])
    """
    names = check_class_names(class_names)
    if isinstance(prompt, (Tensor, np.ndarray)):
        prompt = Prompt(torch.as_tensor(prompt))
    if isinstance(prompt, Prompt):
        return PromptClassifier(PromptedCLIP(model, _learner_of(model, names, prompt)), autocast, loss_scale)
    if isinstance(prompt, (list, tuple)) and prompt and all(isinstance(template, str) for template in prompt):
        return from_templates(model, names, prompt if len(prompt) > 1 else prompt[0], autocast, loss_scale)
    if not is_path(prompt):
        raise InputError(
            f"the prompt must be a template or several, a path, context vectors or a Prompt, but got {short(prompt)}"
        )
    templates = named_templates(str(prompt))
    if templates is not None:
        return from_templates(model, names, templates, autocast, loss_scale)
    return learned_classifier(model, names, find_checkpoint(prompt), None, autocast, loss_scale)[0]


def check_class_names(class_names: Sequence[str]) -> list[str]:
    """The names as a list; InputError if there are none, or if one is no text or has no words.

    >>> check_class_names(("cat", " "))
    Traceback (most recent call last):
    tlla.errors.InputError: each class name must be a text with words in it, but got ' '
    """
    names = sequence("the class names", class_names, "texts, one a class")
    if not names:
        raise InputError("the list of class names is empty: give at least one class")
    for name in names:
        if not isinstance(name, str) or not name.replace("_", " ").strip():
            raise InputError(f"each class name must be a text with words in it, but got {name!r}")
    return [str(name) for name in names]  # NumPy has a text class of its own


def find_checkpoint(place: str | os.PathLike[str], epoch: int | None = None) -> Path:
    """The file of a learned prompt: the file itself, or a run's newest epoch.

    Raises:
        InputError: there is none.

    >>> Path("model.pth.tar-50").touch()
    >>> find_checkpoint(".").name
    'model.pth.tar-50'
    """
    path = Path(place).expanduser()
    if path.is_dir():
        inside = path / "prompt_learner"
        return find_epoch(inside if inside.is_dir() else path, epoch)
    if path.is_file():
        return path
    raise InputError(
        f"the prompt {str(place)!r} is no template (it has no {{}} for the class name), no file, no folder of a run, "
        f"and no ensemble: {nearest(str(place), list(ENSEMBLES))}"
    )


def learned_classifier(
    model: nn.Module,
    class_names: list[str],
    path: Path,
    position: str | None = None,
    autocast: Autocast = contextlib.nullcontext,
    loss_scale: float = 1.0,
    on_shared: OnShared = refuse_shared,
) -> tuple[Classifier, int | None]:
    """The text side of a checkpoint, and its epoch.

    Args:
        model: CLIP.
        class_names: One name a class.
        path: The file.
        position: Where the class name stands if the file does not say it; None: at the end.
        autocast: See `Classifier`.
        loss_scale: See `Classifier`.
        on_shared: See `tlla.prompts.tokens.check_shared`.

    >>> torch.save({"state_dict": {"ctx": torch.zeros(4, 128)}, "epoch": 50}, "a.pt")
    >>> learned_classifier(model, ["cat", "dog"], Path("a.pt"))[1]
    50
    """
    checkpoint = read_checkpoint(path)
    state = checkpoint["state_dict"]
    ctx, conditional = state.get("ctx"), any(k.startswith("meta_net.") for k in state)
    if not isinstance(ctx, Tensor) or ctx.dim() not in (2, 3):
        raise InputError(f"{path} holds {sorted(state)[:5]}, expected the context vectors of a prompt ('ctx')")
    most = as_backbone(model).context_length - 2
    if not 1 <= (tokens := ctx.shape[-2]) <= most:
        raise InputError(f"{path} holds a prompt of {tokens:,} tokens, but the text encoder takes 1 to {most}")
    if conditional:
        conditional_learner = ConditionalPromptLearner(model, class_names, len(ctx), on_shared=on_shared)
        epoch = load_context(path, conditional_learner)
        return ConditionalClassifier(ConditionalCLIP(model, conditional_learner), autocast, loss_scale), epoch
    position = read_info(path, checkpoint).class_token_position or position or "end"
    learner = PromptLearner(
        model, class_names, ctx.shape[-2], csc=ctx.dim() == 3, class_token_position=position, on_shared=on_shared
    )
    epoch = load_context(path, learner)
    return PromptClassifier(PromptedCLIP(model, learner), autocast, loss_scale), epoch


def _learner_of(model: nn.Module, class_names: list[str], prompt: Prompt) -> PromptLearner:
    ctx = prompt.ctx
    width = as_backbone(model).token_weight.shape[1]
    if ctx.shape[-1] != width:
        raise InputError(f"context vectors of width {ctx.shape[-1]} do not fit this CLIP, whose text has width {width}")
    if ctx.dim() == 3 and len(ctx) != len(class_names):
        raise InputError(f"there are contexts for {len(ctx)} classes, but {len(class_names)} class names")
    learner = PromptLearner(model, class_names, ctx.shape[-2], "", ctx.dim() == 3, prompt.position)
    prompt.info.check_fits("the prompt", learner)
    learner.ctx.data.copy_(prompt.info.arranged("the prompt", ctx.detach(), learner))
    return learner
