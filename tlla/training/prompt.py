"""Trains a prompt on images and labels: CoOp's training with SAPT's step, without Dassl and yacs.

SGD with momentum, a cosine schedule after one epoch at 1e-5, random resized crops and flips, as in CoOp's configs
(Zhou et al., arXiv 2109.01134), with SAPT's step (arXiv 2501.18864, eq. 2-4) or one of its relatives
(`tlla.variants`). lam = 0 is CoOp.

Letters in shapes: B images, K classes, L context tokens, D text width, E joint space.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from .. import arguments
from ..backbones import as_backbone
from ..clip import encode_images, image_size, normalize
from ..errors import InputError
from ..prompts.choose import check_class_names
from ..prompts.classifier import FP16_LOSS_SCALE
from ..prompts.info import PromptInfo
from ..prompts.learner import PromptLearner
from ..prompts.prompted import PromptedCLIP
from ..prompts.saved import Prompt
from ..sharpness import check_sharpness
from ..steps import State, Task, Variant, momentum_of
from ..variants import parse_variant
from ..views.loader import ImageLike
from ..views.make import ViewConfig, draw_crops
from ..views.read_image import read_image

WARMUP_LR = 1e-5  # in the first epoch
MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4  # Dassl's defaults, which CoOp uses

Batches = Callable[[int], Iterator[tuple[Tensor, Tensor]]]


def train_prompt(
    model: nn.Module,
    images: Sequence[ImageLike],
    labels: Sequence[int] | Sequence[str] | Tensor,
    class_names: Sequence[str],
    *,
    rho: float = 0.05,
    lam: float = 1.0,
    variant: str = "sam",
    epochs: int = 50,
    lr: float = 0.002,
    n_ctx: int = 4,
    ctx_init: str = "a photo of a",
    csc: bool = False,
    class_token_position: str = "end",
    batch_size: int = 32,
    crop_scale: tuple[float, float] = (0.08, 1.0),
    seed: int = 0,
    workers: int = 0,
    progress: bool = False,
) -> Prompt:
    """Trains context vectors, by default by SAPT: a prompt in a flat minimum.

    Args:
        model: CLIP, from `load_clip`; not modified.
        images: Paths and Pillow images.
        labels: Class of each image, as a number from 0 to K - 1 or a name.
        class_names: K class names.
        rho: Radius of the perturbation.
        lam: Weight of the sharpness: 0 is CoOp, 1 is SAPT as in the paper.
        variant: The sharpness-aware step: "sam", "asam", "fsam", "gsam(alpha=0.2)", "looksam", "msam" or "random".
        epochs: Passes over the images.
        lr: Learning rate after the first epoch.
        n_ctx: Number of context tokens, if `ctx_init` is empty.
        ctx_init: Words from which the context starts; empty: random vectors.
        csc: Whether each class has its own context vectors.
        class_token_position: "end", "middle" or "front".
        batch_size: Images per step. An incomplete last batch is dropped, as in CoOp, unless it is the only one.
        crop_scale: Range of the crops' area as a fraction of the image.
        seed: Seed of the context, the order of the images and the crops.
        workers: Threads that read images and make crops.
        progress: Whether to show a progress bar on stderr.

    Returns:
        The prompt, to pass to `Predictor(prompt=...)` or to `save`.

    Raises:
        InputError: an image cannot be read, or labels or settings are invalid.
        FloatingPointError: the training diverged.

    >>> prompt = train_prompt(model, [image, image.rotate(90)], ["fruit", "tool"], ["fruit", "tool"], epochs=1)
    >>> prompt.ctx.shape, len(prompt.losses)
    (torch.Size([4, 128]), 1)
    """
    as_backbone(model)  # refuses other models
    names = check_class_names(class_names)
    images = arguments.sequence("images", images, "paths and Pillow images")
    targets = arguments.labels(labels, names)
    if len(images) == 0 or len(images) != len(targets):
        raise InputError(
            f"images and labels must be equally many, at least 1, but got {len(images)} and {len(targets)}"
        )
    for index, image in enumerate(images):
        arguments.check_image(f"image {index}", image)
    check_sharpness(rho, lam)
    kind = parse_variant(variant, key="variant")
    kind.check_lambda(lam)
    epochs, batch_size = (arguments.whole(*one, 1) for one in (("epochs", epochs), ("batch_size", batch_size)))
    seed, workers, n_ctx = (arguments.whole(*one) for one in (("seed", seed), ("workers", workers), ("n_ctx", n_ctx)))
    lr, crop_scale = arguments.number("lr", lr), arguments.pair("crop_scale", crop_scale)
    csc, progress = arguments.flag("csc", csc), arguments.flag("progress", progress)
    if not isinstance(ctx_init, str):
        raise InputError(f"ctx_init must be a string, such as 'a photo of a', but got {arguments.short(ctx_init)}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also seed the caller's GPUs
        learner = PromptLearner(model, names, n_ctx, ctx_init, csc, class_token_position)
    prompted = PromptedCLIP(model, learner)
    views = ViewConfig(image_size(model), epochs + 1, crop_scale, seed=seed)
    loader = _Crops(prompted, images, torch.tensor(targets), batch_size, views, workers)
    losses = _fit_context(prompted, loader.batches, epochs, lr, _Step(kind, rho, lam, seed), progress)
    return Prompt(learner.ctx.detach().cpu(), PromptInfo.of(learner, as_backbone(model).name), epochs, losses)


def _fit_context(
    prompted: PromptedCLIP, batches: Batches, epochs: int, lr: float, step: "_Step", progress: bool = False
) -> list[float]:
    """Trains a prompted CLIP's context in place.

    Args:
        prompted: The model.
        batches: Returns the batches of an epoch: normalised image features (B, E) and labels (B,).
        epochs: Number of epochs.
        lr: Base learning rate.
        step: The step on a batch.
        progress: Whether to show a progress bar on stderr.

    Returns:
        The mean loss of each epoch.
    """
    ctx = prompted.prompt_learner.ctx
    optimizer = torch.optim.SGD([ctx], lr=lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    losses: list[float] = []
    with tqdm(total=epochs, unit="epoch", disable=not progress) as bar:
        for epoch in range(epochs):
            optimizer.param_groups[0]["lr"] = _learning_rate(epoch, epochs, lr)
            losses.append(_mean([step(prompted, optimizer, z, y) for z, y in batches(epoch)]))
            bar.update()
            bar.set_postfix(loss=f"{losses[-1]:.3f}")
    return losses


def _learning_rate(epoch: int, epochs: int, base: float) -> float:
    """CoOp's schedule: one epoch at 1e-5, then a cosine that starts at the base rate."""
    return WARMUP_LR if epoch == 0 else 0.5 * base * (1 + math.cos(math.pi * (epoch - 1) / epochs))


@dataclass
class _Step:
    """A sharpness-aware step on a batch, and what it keeps for the next one."""

    variant: Variant
    rho: float
    lam: float
    seed: int
    state: State = field(default_factory=dict)

    def __call__(
        self, prompted: PromptedCLIP, optimizer: torch.optim.Optimizer, features: Tensor, labels: Tensor
    ) -> float:
        """Steps the optimizer; returns the loss."""

        def loss_fn(ctx: Tensor) -> Tensor:
            return F.cross_entropy(prompted.logits(features, prompted.encode_text(ctx)), labels)

        ctx = prompted.prompt_learner.ctx
        scale = FP16_LOSS_SCALE if prompted.clip.dtype == torch.float16 else 1.0
        task = Task(loss_fn, ctx, self.rho, self.lam, scale, momentum=momentum_of(optimizer, [ctx]), seed=self.seed)
        step, self.state = self.variant.step(task, self.state)
        finite, loss = torch.stack([step.finite, step.loss]).tolist()  # one wait for a GPU
        if not finite:
            raise FloatingPointError(
                f"the loss or its gradient is not finite (loss {loss:.4g}): lower the learning rate or rho"
            )
        ctx.grad = step.gradient / scale
        optimizer.step()
        return float(loss)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


@dataclass(frozen=True)
class _Crops:
    """Batches of image features; epoch e uses the crop of view e + 1 of each image."""

    prompted: PromptedCLIP
    images: Sequence[ImageLike]
    labels: Tensor
    batch_size: int
    views: ViewConfig
    workers: int

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Features (B, E) and labels (B,) of each batch of an epoch, shuffled."""
        device = self.prompted.prompt_learner.ctx.device
        generator = torch.Generator().manual_seed(self.views.seed * 100_003 + epoch)
        order = torch.randperm(len(self.images), generator=generator)
        full = len(order) - len(order) % self.batch_size or len(order)
        with ThreadPoolExecutor(max(self.workers, 1)) as pool:
            for chosen in torch.split(order[:full], self.batch_size):
                crops = list(pool.map(partial(self._crop, epoch), chosen.tolist()))
                pixels = normalize(torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).to(device), self.prompted.clip)
                with torch.no_grad():
                    yield encode_images(self.prompted.clip, pixels), self.labels[chosen].to(device)

    def _crop(self, epoch: int, index: int) -> np.ndarray:
        image = read_image(self.images[index])
        *box, flip = draw_crops(*image.size, index, self.views)[epoch].tolist()
        size = (self.views.size, self.views.size)
        view = image.crop(box).resize(size, Image.Resampling.BICUBIC)
        return np.asarray(view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else view)
