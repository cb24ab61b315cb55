"""Predicts images from a CLIP, class names, a prompt and a test-time method, without Dassl or a config.

Letters in shapes: B images, V views, K classes, E joint space.
"""

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..arguments import flag, one_of, pair, whole
from ..backbones import as_backbone
from ..clip import image_size
from ..errors import InputError
from ..methods import Method
from ..methods.choice import build_method, refuse_unknown
from ..precision import AUTO, PRECISIONS, autocast, choose_precision
from ..prompts.choose import PromptLike, check_class_names, make_classifier
from ..prompts.classifier import FP16_LOSS_SCALE
from ..rules import Known
from ..selection import ViewScores, lowest
from ..views.encode import ViewEncoder
from ..views.loader import ImageLike, Loaded, load_batches
from ..views.make import ViewConfig
from ..views.rounds import BatchViews, check_margin, predict_views
from .predictions import BadImage, Predictions, joined


@dataclass(frozen=True)
class Batch:
    """A batch of images with details beside the predictions.

    Attributes:
        predictions: Predictions of the images that could be read, and errors of the others.
        loaded: The B images that could be read, with their views.
        features: Normalised features of the views, (B, V, E); with `margin` empty, as not all views are encoded.
        scores: STSS's scores of the views; None for other methods, and with `margin`.
        kept: Indices of the views that voted, (B, s); None where `scores` is.
        rule: The selection rule that gave the scores; "" if the method chooses no views.
    """

    predictions: Predictions
    loaded: list[Loaded]
    features: Tensor
    scores: ViewScores | None = None
    kept: Tensor | None = None
    rule: str = ""


class Predictor:
    """Predicts classes of images by a test-time method.

    The random views of an image depend only on `seed` and the image's index, not on the batch size or other images.
    Online methods (TDA, DPE) learn from the images in their order and start again in each call.

    Args:
        model: CLIP, from `load_clip`; its device is used.
        class_names: One name per class; underscores are read as spaces.
        prompt: See `tlla.prompts.make_classifier`: a template, an ensemble's name, a checkpoint or a run's folder,
            context vectors, or what `train_prompt` returned.
        method: A name in `tlla.methods.METHODS`, in any case; "tlla" is STSS, "single" SingleView.
        n_views: Views per image V, including the centre crop.
        crop_scale: Range of the crops' area as a fraction of the image.
        augmix: Whether AugMix is applied to the views.
        seed: Seed of the views and of the method's own random numbers.
        batch_views: Views encoded at once; fewer need less memory and change results only by rounding.
        margin: Views are encoded in rounds of 8, 16, 32 ..., and an image whose two highest probabilities differ by
            this needs no more of them; 0: all views. For methods that vote, see `Method.stops_early`.
        top_k: Classes per image in tables.
        precision: Of the encoders: "auto", see `choose_precision`; "fp32", "bf16", or "amp", fp16 on a GPU.
        settings: Settings of the method, by name: ``top_s=8, lam=0.5``.

    Raises:
        InputError: an argument is invalid, or does not match the others.
    """

    def __init__(
        self,
        model: nn.Module,
        class_names: Sequence[str],
        prompt: PromptLike = "a photo of a {}.",
        method: str = "STSS",
        *,
        n_views: int = 64,
        crop_scale: tuple[float, float] = (0.08, 1.0),
        augmix: bool = False,
        seed: int = 0,
        batch_views: int = 512,
        margin: float = 0.0,
        top_k: int = 5,
        precision: str = AUTO,
        **settings: Any,
    ):
        as_backbone(model)  # refuses other models
        batch_views, top_k = whole("batch_views", batch_views, 1), whole("top_k", top_k, 1)
        n_views, seed = whole("n_views", n_views, 1), whole("seed", seed)
        crop_scale, augmix = pair("crop_scale", crop_scale), flag("augmix", augmix)
        one_of("precision", precision, [name for name in PRECISIONS if name != "fp16"])  # see load_clip's half
        self.model = model
        self.class_names = check_class_names(class_names)
        self.device: torch.device = next(model.parameters()).device
        half = as_backbone(model).dtype == torch.float16
        self.precision = "fp16" if half else choose_precision(precision, self.device)
        self.method: Method = build_method(method, settings)
        refuse_unknown(self.method)
        self.method.check_views(n_views)
        check_margin(margin, n_views)
        if margin and not self.method.stops_early:
            raise InputError(f"margin is {margin}, but {type(self.method).__name__} needs all views: set it to 0")
        self.margin = float(margin)
        n_views = n_views if self.method.uses_views else 1
        self.views = ViewConfig(image_size(model), n_views, crop_scale, augmix, seed)
        self.batch_views = batch_views
        self.encoder = ViewEncoder(model, batch_views, self._autocast)
        self.top_k = top_k
        loss_scale = FP16_LOSS_SCALE if self.precision in ("fp16", "amp") else 1.0
        self.classifier = make_classifier(model, self.class_names, prompt, self._autocast, loss_scale)
        with torch.no_grad():
            self.method.start(self.classifier, seed)

    @property
    def batch_size(self) -> int:
        """Images per batch: as many as have `batch_views` views."""
        return max(1, self.batch_views // self.views.n_views)

    def predict(self, images: Iterable[ImageLike], progress: bool = False, workers: int = 0) -> Predictions:
        """Predicts all images; those that cannot be read are listed in the result's `errors`.

        Args:
            images: Paths and Pillow images in any mixture; a generator is consumed as needed.
            progress: Whether to show a progress bar on stderr.
            workers: Threads that read images and make views in advance.

        Raises:
            InputError: an image is neither a path nor a Pillow image, or an argument is invalid.
        """
        hide, workers = not flag("progress", progress), whole("workers", workers)
        if isinstance(images, (str, os.PathLike)) and os.path.isdir(images):
            raise InputError(f"images is the folder {images}: pass its files, such as Path(folder).glob('*.jpg')")
        total = len(images) if isinstance(images, Sized) else None
        parts = [self._empty()]
        with tqdm(total=total, unit="img", disable=hide) as bar:
            for batch in self.batches(images, workers):
                parts.append(batch.predictions)
                bar.update(len(batch.predictions) + len(batch.predictions.errors))
        return joined(parts)

    def batches(
        self, images: Iterable[ImageLike], workers: int = 0, start: int = 0, thumbnails: bool = False
    ) -> Iterator[Batch]:
        """Yields predictions batch by batch, with views and scores.

        Args:
            images: As in `predict`.
            workers: As in `predict`.
            start: Index of the first image, if there were earlier ones.
            thumbnails: Whether to keep small copies of the images, for drawings.
        """
        thumbnails = flag("thumbnails", thumbnails)
        if self.method.online:
            self.method.reset()
        before = time.perf_counter()
        for loaded in load_batches(images, self.batch_size, self.views, workers, start, thumbnails):
            batch = self._predict(loaded)
            seconds = (time.perf_counter() - before) / len(loaded)
            batch.predictions.seconds.fill_(seconds)
            yield batch
            before = time.perf_counter()

    @torch.no_grad()
    def _predict(self, loaded: list[Loaded]) -> Batch:
        errors = [BadImage(one.index, one.name, one.reason) for one in loaded if one.views is None]
        good = [one for one in loaded if one.views is not None]
        if not good:
            empty = self._empty()
            empty.errors.extend(errors)
            return Batch(empty, [], torch.empty(0))
        views = torch.stack([one.views for one in good if one.views is not None])  # (B, V, 3, H, W)
        index = torch.tensor([one.index for one in good])
        encoded = BatchViews(self.encoder, views, Known(index))
        probability = predict_views(self.method, encoded, self.margin)
        scores, kept, details = self._selection(dict(self.method.details))
        predictions = Predictions(
            self.class_names,
            [one.name for one in good],
            index,
            probability.float().cpu(),
            torch.zeros(len(good)),
            {name: values.cpu() for name, values in details.items()},
            errors,
            self.top_k,
        )
        features = torch.empty(0) if self.margin else encoded.features()
        rule = str(self.method.build_rule()) if self.method.chooses_views else ""
        return Batch(predictions, good, features, scores, kept, rule)

    def _selection(self, details: dict[str, Tensor]) -> tuple[ViewScores | None, Tensor | None, dict[str, Tensor]]:
        """STSS's scores of the last batch, the views that voted, and the details with their mean sharpness."""
        scores = getattr(self.method, "last_scores", None)
        if not isinstance(scores, ViewScores):
            return None, None, details
        kept = lowest(scores.score, self.method.n_kept(self.views.n_views))
        if self.method.build_rule().needs_text_encoder:
            details = {"sharpness": scores.sharpness.gather(1, kept).mean(dim=1), **details}
        return scores, kept, details

    def _empty(self) -> Predictions:
        index, probability = torch.empty(0, dtype=torch.long), torch.empty(0, len(self.class_names))
        return Predictions(self.class_names, [], index, probability, torch.empty(0), top_k=self.top_k)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        return autocast(self.precision, self.device)
