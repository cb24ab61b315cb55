"""A learned prompt: its context vectors and all that is known of them, saved and loaded as a run's checkpoint."""

import io
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..arguments import folder_path, number, sequence, short, whole
from ..arguments import path as path_of
from ..errors import InputError
from ..files import write_bytes, write_text
from .checkpoint import describe_content, find_checkpoint, read_checkpoint
from .info import PromptInfo
from .learner import FIXED_TOKENS, PromptLearner, check_position

META_NET = "meta_net."  # before the names of its weights in a checkpoint


@dataclass(frozen=True)
class Prompt:
    """Context vectors that stand around class names.

    Attributes:
        ctx: (L, D) floats, or (K, L, D) by class; an array of NumPy's becomes a tensor.
        info: For which CLIP, which classes and which place of the class name it was learned.
        epochs: Of the training; None if a file does not say it.
        losses: Mean loss of each epoch; a file does not hold them.
        meta_net: CoCoOp's weights by name (``meta_net.linear1.weight``, ...); empty for a prompt that is the same for
            all images.
        trained_by: ``name`` of the training and its ``dataset``; empty if unknown.
        path: The file that it was loaded from.

    Raises:
        InputError: something of this is of another kind; the message says which.
    """

    ctx: Tensor
    info: PromptInfo = PromptInfo()
    epochs: int | None = 0
    losses: list[float] = field(default_factory=list)
    meta_net: dict[str, Tensor] = field(default_factory=dict)
    trained_by: dict[str, str] = field(default_factory=dict)
    path: Path | None = None

    def __post_init__(self) -> None:
        ctx = torch.as_tensor(self.ctx) if isinstance(self.ctx, np.ndarray) else self.ctx
        if not isinstance(ctx, Tensor):
            raise InputError(f"context vectors must be a tensor of floats, but got {short(ctx)}")
        if ctx.dim() not in (2, 3) or not ctx.is_floating_point() or not ctx.isfinite().all():
            raise InputError(
                "context vectors must be finite floats of shape (L, D) or (K, L, D), but got "
                f"{tuple(ctx.shape)}, {ctx.dtype}"
            )
        if not isinstance(self.info, PromptInfo):
            raise InputError(f"info must be a PromptInfo, but got {short(self.info)}")
        if not isinstance(self.meta_net, dict) or not all(isinstance(x, Tensor) for x in self.meta_net.values()):
            raise InputError(f"meta_net must be a dict of tensors, but got {short(self.meta_net)}")
        by = self.trained_by
        if not isinstance(by, dict) or not all(isinstance(text, str) for text in (*by, *by.values())):
            raise InputError(f"trained_by must be a dict of texts, but got {short(by)}")
        object.__setattr__(self, "ctx", ctx)
        object.__setattr__(self, "path", None if self.path is None else path_of("path", self.path))
        object.__setattr__(self, "epochs", None if self.epochs is None else whole("epochs", self.epochs))
        losses = [number("a loss", loss) for loss in sequence("losses", self.losses, "numbers")]
        object.__setattr__(self, "losses", losses)

    @property
    def position(self) -> str:
        """Where the class name stands: "end", "middle" or "front"."""
        return self.info.class_token_position or "end"

    @property
    def state(self) -> dict[str, Tensor]:
        """The state dict of its learner."""
        return {"ctx": self.ctx, **self.meta_net}

    def or_at(self, position: str) -> "Prompt":
        """The same with the class name at that place, if it is not known where it stands."""
        check_position(position)
        if self.meta_net or self.info.class_token_position:
            return self
        return replace(self, info=replace(self.info, class_token_position=position))

    def save(self, folder: str | PathLike[str]) -> Path:
        """Writes ``<folder>/prompt_learner/model.pth.tar-<epochs>``, whole or not at all, and returns its path.

        The folder is then a run's: ``train.py --eval-only --model-dir <folder>`` tests it; CoOp, TPT and Dassl read
        the file.

        Raises:
            InputError: `folder` is no path, or is a file.
        """
        entries: dict[str, Any] = {"prompt": self.info.as_entry()} if self.info.class_names else {}
        state = {
            "state_dict": {name: value.detach().cpu().contiguous().clone() for name, value in self.state.items()},
            "epoch": self.epochs,
            "optimizer": None,
            "scheduler": None,
            "val_result": None,
            "trainer": entries | ({"training": dict(self.trained_by)} if self.trained_by else {}),
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        path = folder_path("folder", folder) / "prompt_learner" / f"model.pth.tar-{self.epochs or 0}"
        write_bytes(path, buffer.getvalue())
        write_text(path.parent / "checkpoint", f"{path.name}\n")  # Dassl reads there which epoch is the newest
        return path

    @classmethod
    def load(cls, place: str | PathLike[str], epoch: int | None = None, best: bool = False) -> "Prompt":
        """Reads what `save`, `train.py` or CoOp has written; no code of the file runs.

        Args:
            place: A run's folder, the folder ``prompt_learner`` in it, or a checkpoint.
            epoch: Of a folder's checkpoints. Default: the one that was saved last.
            best: Whether the epoch that was best on val is preferred, if there is one and no `epoch` is named.

        Returns:
            The prompt in float32, on the CPU.

        Raises:
            InputError: there is none, the file is damaged or holds something else, or its numbers are not finite.
        """
        checkpoint = read_checkpoint(find_checkpoint(place, epoch, best))
        path, state = checkpoint.path, {k: v for k, v in checkpoint.state.items() if k not in FIXED_TOKENS}
        if "ctx" not in state or not all(name == "ctx" or name.startswith(META_NET) for name in state):
            raise InputError(
                f"{path} holds {sorted(state)[:5] or 'nothing'}, expected the context vectors of a prompt ('ctx')"
            )
        weights = {name: _checked(path, name, value) for name, value in state.items()}
        ctx = weights.pop("ctx")
        if ctx.dim() not in (2, 3):
            raise InputError(
                f"{path} holds context vectors of shape {tuple(ctx.shape)}, expected (L, D), or (K, L, D) by class"
            )
        info = PromptInfo.read(checkpoint)
        return cls(ctx, info, checkpoint.epoch, [], weights, checkpoint.trained_by, path)

    def put_into(self, learner: PromptLearner) -> None:
        """Copies the context vectors, and CoCoOp's net, into a learner that was built for them.

        Class-specific contexts are sorted into their classes' places, if it is known which they are.

        Raises:
            InputError: something is missing, is too much, or differs in shape, or the prompt is for another CLIP or
                another place of the class name, or a class-specific one for other classes; the message names both
                sides.
        """
        if not isinstance(learner, PromptLearner):
            raise InputError(f"learner must be a PromptLearner, but got {short(learner)}")
        name, state, expected = self.path or "the prompt", self.state, dict(learner.named_parameters())
        if state.keys() != expected.keys():
            raise InputError(f"{name} holds {list(state)}, expected {_expected(list(expected), bool(self.meta_net))}")
        for key, own in expected.items():
            if state[key].shape != own.shape:
                raise InputError(
                    f"{name} holds {_describe_weight(key, state[key])}, but this run is set to "
                    f"{_describe_weight(key, own)}: use the same N_CTX (or CTX_INIT), CSC, class set and backbone as "
                    "in training"
                )
        self.info.check_fits(name, learner)
        if self.path:
            self.info.note_unknown(self.path, by_class=learner.csc)
        state["ctx"] = self.info.arranged(name, self.ctx, learner)
        with torch.no_grad():
            for key, own in expected.items():
                own.copy_(state[key])


def _checked(path: Path, name: str, found: Any) -> Tensor:
    """A tensor of a file as float32."""
    if not isinstance(found, Tensor) or not found.is_floating_point() or found.layout != torch.strided or found.is_meta:
        raise InputError(
            f"{path} holds {describe_content(found)} as {name!r}, expected a tensor of floats, dense and in memory"
        )
    if found.numel() * found.element_size() > found.untyped_storage().nbytes():  # one row, repeated without end
        raise InputError(f"{path} holds {name!r} of shape {tuple(found.shape)}, but not as many numbers: train again")
    weight = found.float()
    if not torch.isfinite(weight).all():  # also what float32 cannot hold
        what = "the context vectors" if name == "ctx" else f"the weights {name!r}"
        raise InputError(f"{what} in {path} are not finite (NaN or infinite): train again")
    return weight


def _expected(names: list[str], conditional: bool) -> str:
    """What a learner takes, and whose the prompt is, as the end of a message."""
    if names == ["ctx"]:
        whose = ": this is CoCoOp's, whose prompt depends on the image" if conditional else ""
        return f"the context vectors of a prompt ('ctx') alone{whose}"
    return f"{names}" if conditional else f"{names}: this is the prompt of CoOp, SAPT or TLLA, which has no meta-net"


def _describe_weight(name: str, weight: Tensor) -> str:
    if name != "ctx":
        return f"{name} of shape {tuple(weight.shape)}"
    sets = f"class-specific (CSC) context for {len(weight)} classes" if weight.dim() == 3 else "one shared context"
    return f"{sets}, N_CTX {weight.shape[-2]}, width {weight.shape[-1]}"
