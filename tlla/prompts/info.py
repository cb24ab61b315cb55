"""For which CLIP, which classes and which place of the class name something was learned.

It lies in ``checkpoint["trainer"]["prompt"]``, beside what CoOp and TPT read; older files and CoOp's own lack it.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..errors import InputError
from ..fingerprint import are_weights, class_order
from .checkpoint import Checkpoint
from .learner import CLASS_TOKEN_POSITIONS, PromptLearner


@dataclass(frozen=True)
class PromptInfo:
    """What is known of a prompt; empty is unknown.

    Attributes:
        class_names: Of the training.
        backbone: Name or path under which CLIP was loaded.
        weights_sha256: `weights_sha256` of that CLIP.
        class_token_position: "end", "middle" or "front".
    """

    class_names: tuple[str, ...] = ()
    backbone: str = ""
    weights_sha256: str = ""
    class_token_position: str = ""

    @classmethod
    def of(cls, learner: PromptLearner, backbone: str) -> "PromptInfo":
        """What there is to say about a learner's prompt."""
        return cls(tuple(learner.classnames), backbone, learner.clip_sha256, learner.class_token_position)

    @classmethod
    def read(cls, checkpoint: Checkpoint) -> "PromptInfo":
        """What a checkpoint says. InputError if that is not what `as_entry` has written."""
        path, entry = checkpoint.path, checkpoint.trainer.get("prompt")
        if entry is None:
            return cls()
        names = entry.get("class_names") if isinstance(entry, dict) else None
        texts = [entry.get(k, "") for k in ("backbone", "weights_sha256", "class_token_position")] if names else []
        if not isinstance(names, (list, tuple)) or not names or not all(isinstance(x, str) for x in (*names, *texts)):
            raise InputError(f"the note on the prompt in {path} is damaged: train again, or remove its entry 'prompt'")
        backbone, sha256, position = texts
        if position and position not in CLASS_TOKEN_POSITIONS:
            raise InputError(
                f"{path} says that the class name stands at {position!r}, not one of {CLASS_TOKEN_POSITIONS}"
            )
        return cls(tuple(names), backbone, sha256, position)

    def as_entry(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {**vars(self), "class_names": list(self.class_names)}

    def check_fits(self, name: Path | str, learner: PromptLearner) -> None:
        """Raises InputError if the prompt is for another CLIP, or has the class name in another place.

        Args:
            name: Of the file, for the message.
            learner: That is to take the context vectors.
        """
        self.check_weights(name, learner._clip[0])
        position = learner.class_token_position
        if self.class_token_position and self.class_token_position != position:
            raise InputError(
                f"{name} was learned with the class name at the place {self.class_token_position!r}, but this run is "
                f"set to {position!r}: set CLASS_TOKEN_POSITION {self.class_token_position}"
            )

    def check_weights(self, name: Path | str, clip_model: nn.Module) -> None:
        """Raises InputError if what was learned is for another CLIP."""
        if self.weights_sha256 and not are_weights(self.weights_sha256, clip_model):
            known = f"load that backbone (--backbone {self.backbone})" if self.backbone else "load that one"
            raise InputError(
                f"{name} was learned for the backbone {self.backbone or 'unnamed'!r}, but the CLIP in use has other "
                f"weights: {known}, or train a prompt for this one"
            )

    def note_unknown(self, name: Path | str, by_class: bool = False) -> None:
        """Warns if the file does not say for which CLIP, or if it matters, for which classes it is."""
        lacks = ["CLIP"] * (not self.weights_sha256) + ["classes"] * (by_class and not self.class_names)
        if lacks:
            warnings.warn(
                f"{name} does not say for which {' and '.join(lacks)} it was learned: it is taken for those in use",
                stacklevel=3,
            )

    def arranged(self, name: Path | str, ctx: Tensor, learner: PromptLearner) -> Tensor:
        """Context vectors in the order of the learner's classes; a shared context, (L, D), serves any classes.

        Raises:
            InputError: A class-specific context, (K, L, D), is of other classes.
        """
        if ctx.dim() == 2 or not self.class_names:
            return ctx
        order = class_order(f"the class-specific context (CSC) in {name}", self.class_names, learner.classnames)
        if len(order) != len(ctx):
            raise InputError(f"{name} has contexts for {len(ctx)} classes, but names {len(order)}: train again")
        return ctx[order]
