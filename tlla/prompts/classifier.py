"""The text side of a test-time method: class features, the logit scale, and the context vectors to tune.

Three kinds: fixed class features (an ensemble, or features from elsewhere), context vectors (a template's words, CoOp,
SAPT), and context vectors that depend on the image (CoCoOp).

Letters in shapes: B images, V views, K classes, L context tokens, D text width, E joint space, R perturbations.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from ..backbones import as_backbone
from ..clip import logit_scale
from ..errors import InputError
from ..fingerprint import tensor_sha256
from ..sharpness import random_directions
from .conditional import ConditionalCLIP
from .descriptions import Descriptions
from .learner import PromptLearner
from .prompted import PromptedCLIP
from .templates import template_context, zeroshot_features
from .tokens import OnShared, refuse_shared

FP16_LOSS_SCALE = 1000.0  # TPT's
NO_CONTEXT = (
    "an ensemble of templates or a template without words before {} and apart from it has none, nor have class "
    "descriptions: use a single template "
    'such as "a photo of a {}." or a trained prompt (--model-dir; of predict.py --prompt)'
)
Autocast = Callable[[], contextlib.AbstractContextManager[Any]]


class Classifier:
    """Fixed class features.

    Args:
        text_features: Normalised class features, (K, E).
        scale: Inverse temperature.
        clip_model: CLIP, for methods that adapt its image encoder; None if there are only features.
        autocast: Returns the context in which encoders run; default: full precision.
        loss_scale: Factor on a loss before its backward pass, so that fp16 gradients do not underflow.
    """

    tunable = False  # whether there are context vectors `ctx` to perturb or to tune
    conditional = False  # whether class features depend on the image
    ctx: Tensor  # if tunable

    def __init__(
        self,
        text_features: Tensor,
        scale: Tensor | float,
        clip_model: nn.Module | None = None,
        autocast: Autocast = contextlib.nullcontext,
        loss_scale: float = 1.0,
    ):
        self.text_features = text_features
        self.scale = scale
        self.clip_model = None if clip_model is None else as_backbone(clip_model)
        self.autocast = autocast
        self.loss_scale = loss_scale

    def text(self, features: Tensor) -> Tensor:
        """Class features, (1, K, E), or (B, K, E) if they depend on the images with these view features, (B, V, E)."""
        return self.text_features[None]

    def logits(self, features: Tensor, text: Tensor | None = None) -> Tensor:
        """Scaled cosine similarities of views and classes: (B, V, E) -> (B, V, K)."""
        text = self.text(features) if text is None else text
        return self.scale * features @ text.mT

    def fingerprint(self) -> Tensor:
        """The numbers that identify the prompt: here the class features."""
        return self.text_features

    def identity(self) -> list[str]:
        """sha256 of everything that, with the weights, determines the class features: here the class features."""
        return [tensor_sha256(self.text_features)]

    def context(self, features: Tensor) -> Tensor:
        """Context vectors of each image, (B, V, E) -> (B, L, D), or (B, K, L, D) if class-specific."""
        raise InputError(f"this method tunes the prompt's context vectors, but {NO_CONTEXT}")

    def perturbed(self, rho: float, n: int, seed: int, features: Tensor | None = None) -> Tensor:
        """Class features of the prompt, then of n random perturbations of norm rho: (n + 1, 1, K, E), encoded once.

        If they depend on the images with these view features, (B, V, E), (n + 1, B, K, E), encoded in each call.
        """
        raise InputError(f"perturbations are of the prompt's context vectors, but {NO_CONTEXT}")

    def encode(self, context: Tensor) -> Tensor:
        """Class features under R contexts, (R, L, D) or (R, K, L, D) -> (R, K, E); gradients flow to the contexts."""
        raise InputError("fixed class features have no context to encode")


class PromptClassifier(Classifier):
    """Class features from context vectors: a template's words, or a prompt by CoOp or SAPT."""

    tunable = True

    def __init__(self, model: PromptedCLIP, autocast: Autocast = contextlib.nullcontext, loss_scale: float = 1.0):
        self.model = model
        self.ctx = model.prompt_learner.ctx.detach().clone()
        self._kept: dict[tuple[float, int, int], Tensor] = {}  # by the arguments of `perturbed`
        super().__init__(torch.empty(0), logit_scale(model.clip), model.clip, autocast, loss_scale)
        with torch.no_grad():
            self.text_features = self.encode(self.ctx[None])[0]  # (K, E)

    def fingerprint(self) -> Tensor:
        """The context vectors."""
        return self.ctx

    def identity(self) -> list[str]:
        """sha256 of the context vectors, and of the prompts' tokens: class names, order, position, suffix."""
        return [tensor_sha256(self.fingerprint()), tensor_sha256(self.model.prompt_learner.tokens)]

    def context(self, features: Tensor) -> Tensor:
        """The same context for each image."""
        return self.ctx.expand(len(features), *self.ctx.shape)

    def encode(self, context: Tensor) -> Tensor:
        """Class features under R contexts: (R, K, E)."""
        with self.autocast():
            return self.model.encode_text(context)

    def perturbed(self, rho: float, n: int, seed: int, features: Tensor | None = None) -> Tensor:
        """Class features of the prompt and of its perturbations."""
        if (rho, n, seed) not in self._kept:
            self._kept[rho, n, seed] = self._around(self.ctx[None], self._directions(rho, n, seed))
        return self._kept[rho, n, seed]

    def _directions(self, rho: float, n: int, seed: int) -> Tensor:
        return random_directions(tuple(self.ctx.shape), n, rho, seed).to(self.ctx)

    def _around(self, contexts: Tensor, directions: Tensor) -> Tensor:
        """Class features of B contexts and their perturbations: (B, L, D), (n, L, D) -> (n + 1, B, K, E)."""
        perturbed = torch.cat([contexts[None], contexts + directions[:, None]])  # (n + 1, B, L, D)
        text = self.encode(perturbed.flatten(0, 1))
        return text.view(*perturbed.shape[:2], *text.shape[1:])


class ConditionalClassifier(PromptClassifier):
    """CoCoOp: an image's context is the learned one plus a shift that a small net computes from the centre crop.

    All views of an image share that context, as in TPT's code (azshue/TPT, clip/cocoop.py, gen_ctx).
    """

    conditional = True

    def __init__(self, model: ConditionalCLIP, autocast: Autocast = contextlib.nullcontext, loss_scale: float = 1.0):
        self.conditional_learner = model.prompt_learner
        super().__init__(model, autocast, loss_scale)

    def fingerprint(self) -> Tensor:
        """The context vectors and the net's weights, in one vector."""
        return parameters_to_vector(self.model.prompt_learner.parameters())

    def context(self, features: Tensor) -> Tensor:
        """A context for each image: (B, L, D)."""
        with torch.no_grad():
            return self.conditional_learner.shifted(features[:, 0])

    def text(self, features: Tensor) -> Tensor:
        """Class features by image: (B, K, E)."""
        with torch.no_grad():
            return self.encode(self.context(features))

    def perturbed(self, rho: float, n: int, seed: int, features: Tensor | None = None) -> Tensor:
        """Class features of each image's prompt and of its perturbations, for all images in the same directions."""
        if features is None:
            raise InputError("CoCoOp's prompt depends on the image: its class features cannot be computed in advance")
        if (rho, n, seed) not in self._kept:
            self._kept[rho, n, seed] = self._directions(rho, n, seed)
        return self._around(self.context(features), self._kept[rho, n, seed])


def from_templates(
    clip_model: nn.Module,
    classnames: list[str],
    templates: str | Sequence[str] | Descriptions,
    autocast: Autocast = contextlib.nullcontext,
    loss_scale: float = 1.0,
    on_shared: OnShared = refuse_shared,
) -> Classifier:
    """Builds a classifier from a template, whose words before the class name can be tuned, or from several texts.

    Args:
        clip_model: Any CLIP.
        classnames: One name per class.
        templates: A template such as ``"a photo of a {}."``, or several, or class descriptions.
        autocast: See `Classifier`.
        loss_scale: See `Classifier`.
        on_shared: See `tlla.prompts.tokens.check_shared`.

    >>> from_templates(model, ["cat", "dog"], "a photo of a {}.").tunable
    True
    >>> from_templates(model, ["cat", "dog"], ["a photo of a {}.", "a drawing of a {}."]).tunable
    False
    """
    if isinstance(templates, str) and template_context(as_backbone(clip_model), classnames, templates):
        learner = PromptLearner(clip_model, classnames, template=templates, on_shared=on_shared)
        return PromptClassifier(PromptedCLIP(clip_model, learner), autocast, loss_scale)
    with torch.no_grad(), autocast():
        features = zeroshot_features(clip_model, classnames, templates, on_shared)
    return Classifier(features, logit_scale(clip_model), clip_model, autocast, loss_scale)
