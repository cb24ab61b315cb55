"""How images are tested with all their views: test-time methods on one or several text sides."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from yacs.config import CfgNode

import tlla
from tlla.errors import InputError, within
from tlla.fingerprint import key_of, source_sha256, tensor_sha256
from tlla.methods import METHODS, Method, settings
from tlla.prompts.classifier import FP16_LOSS_SCALE, Classifier
from tlla.rules import Known
from tlla.streams import Shuffled, Stream, parse_stream
from tlla.views.device import make_views_on_device
from tlla.views.encode import ViewEncoder
from tlla.views.rounds import BatchViews, predict_views

from . import distributed
from .describe_run import plain
from .entries import Entry, Meter
from .gathering import Gathering
from .image_test import ImageTest
from .kept_views import KeptViews
from .view_data import VIEW_KEYS, ViewDataset, view_config

PACKAGE, HERE = Path(tlla.__file__).parent, Path(__file__).parent
VIEWS_SOURCE = (  # the code that a feature depends on
    *(PACKAGE / name for name in ("backbones", "views", "clip.py", "precision.py")),
    *(HERE / name for name in ("image_data.py", "view_data.py")),
)


def add_method_keys(node: CfgNode, method: type[Method]) -> None:
    """Adds a method's settings to its node, with the method's defaults."""
    for key, (_, default) in settings(method).items():
        node[key] = default


def configured_method(cfg: CfgNode, name: str, node_name: str, n_views: int) -> Method:
    """A method with the settings of TRAINER.<node_name>; InputError by key if they cannot work."""
    method = METHODS[name]
    with within(f"TRAINER.{node_name}"):
        values = {field: cfg.TRAINER[node_name][key] for key, (field, _) in settings(method).items()}
        built = method(**values)
        built.check_views(n_views)
    return built


def describe_order(stream: Stream, seed: int) -> dict[str, Any]:
    """What the record of a test says of the order of its images; of shuffled ones as earlier versions did."""
    if stream == Shuffled():
        return {"order": f"torch.randperm with seed {seed}"}
    said = {"name": str(stream), "composed_by_labels": stream.composed_by_labels}
    return {"order": f"{stream} with seed {seed}", "stream": said}


def under_rules(method: Method, rules: Sequence[str]) -> list[Method]:
    """The method under each rule; as it is, if there are none or if it chooses no views."""
    if not rules or not method.chooses_views:
        return [method]
    return [dataclasses.replace(method, rule=rule) for rule in rules]


class ViewTest(ImageTest):
    """Tests every method with every text side on the same views of the same images.

    Args:
        trainer: A ClipTrainer.
        cfg: Its config: what cannot work is refused before anything is loaded.
        views_name: TRAINER.<views_name> has the keys of the views.
        methods: Names of methods, and in which node the settings of each are.
        rules: A method that chooses views is tested under each of these; (): under that of its settings.
        classifiers: Returns the text sides by name, when a test begins.

    Raises:
        InputError: Views or settings that cannot work, by key.
    """

    def __init__(
        self,
        trainer: Any,
        cfg: CfgNode,
        views_name: str,
        methods: Mapping[str, str],
        classifiers: Callable[[], dict[str, Classifier]],
        rules: Sequence[str] = (),
    ):
        super().__init__(trainer)
        self.node = cfg.TRAINER[views_name]
        self.features_folder = cfg.TEST.FEATURES
        self.kept: KeptViews | None = None
        self.stream = parse_stream(cfg.TEST.STREAM)
        self.classifiers = classifiers
        with within(f"TRAINER.{views_name}"):
            self.config = view_config(cfg, self.node)
        built = (configured_method(cfg, name, own, self.config.n_views) for name, own in methods.items())
        self.methods = {method.title: method for one in built for method in under_rules(one, rules)}
        self._refuse_processes()
        if self.node.MARGIN and not any(map(self._in_rounds, self.methods.values())):
            key, names = f"TRAINER.{views_name}.MARGIN", ", ".join(self.methods)
            raise InputError(f"{key} is {self.node.MARGIN}, but all views are needed by {names}: set it to 0")
        if not any(method.uses_views for method in self.methods.values()):
            self.config = dataclasses.replace(self.config, n_views=1)

    def _refuse_processes(self) -> None:
        """Refuses methods for which a test set cannot be divided."""
        if distributed.world_size() == 1:
            return
        ways = {"online": "learns from the test images in their order", "reads_first": "reads all test images first"}
        for trait, way in ways.items():
            if names := [type(method).__name__ for method in self.methods.values() if getattr(method, trait)]:
                raise InputError(
                    f"{' and '.join(dict.fromkeys(names))} {way}, which cannot be divided among processes: "
                    "run it without torchrun, or leave it out of TRAINER.COMPARE.METHODS"
                )

    def describe(self) -> dict[str, Any]:
        """Of the one method, or of the first of several, each of which has a record of its own."""
        return self.describe_one(next(iter(self.methods.values())))

    def describe_one(self, method: Method) -> dict[str, Any]:
        """What is to be said of a method; the setting RULE is in the entry "rule", which older records lack."""
        views = {key: value for key, value in plain(self.node).items() if key in VIEW_KEYS}
        if self._in_rounds(method):
            views["MARGIN"] = self.node.MARGIN
        values = {key: getattr(method, field) for key, (field, _) in settings(type(method)).items() if field != "rule"}
        found = {
            "name": type(method).__name__,
            "settings": values,
            "views": views if method.uses_views else None,
            "deterministic": not (method.uses_views or method.online or self.draws()),
        }
        if method.reads_first:
            found["read_test_set_first"] = True
        if method.chooses_views:
            rule = method.build_rule()
            found["rule"] = {"name": str(rule), "own": method.has_own_rule, "used_labels": rule.uses_labels}
        return found

    def dataset(self, split: str) -> Dataset:
        """Images with all their views: img (V, 3, H, W); if they were kept, features (V, E)."""
        self.kept = self._kept_views(split)
        if self.kept and not self.kept.complete and distributed.is_first():
            self.kept.begin()
        distributed.wait()
        complete = self.kept if self.kept and self.kept.complete else None
        pixels = any(method.needs_images for method in self.methods.values())
        return ViewDataset(self.items(split), self.config, self.node.ON_DEVICE, complete, pixels)

    def features_file(self, split: str, folder: Path) -> KeptViews:
        """Where features of the views of a split are kept in a folder, by all that can change them."""
        everything = {
            "images": self.images_key(split),
            "code": source_sha256(*VIEWS_SOURCE),
            "views": dataclasses.asdict(self.config),
            "how": {name: self.node[name] for name in ("VIEW_BATCH", "ON_DEVICE")},
        }
        cfg, shape = self.trainer.cfg, (self.config.n_views, self.trainer.clip_model.embed_dim)
        path = folder / f"{cfg.DATASET.NAME}_{split}_{key_of(everything)}.npy"
        return KeptViews(path, (len(self.items(split)), *shape))

    def _kept_views(self, split: str) -> KeptViews | None:
        if not self.features_folder:
            return None
        kept = self.features_file(split, Path(self.features_folder))
        return kept if kept.complete or not all(map(self._in_rounds, self.methods.values())) else None

    def passed(self, shared: Meter, unreadable: set[int]) -> dict[str, Any]:
        """Completes what was kept; of a test that was spared the views, says so and counts the time that they took."""
        if not self.kept:
            return {}
        if not self.kept.complete:
            self.kept.close(unreadable, shared.seconds, shared.peak_mb)
            return {}
        facts = self.kept.facts()
        shared.seconds, shared.peak_mb = facts["seconds"], max(shared.peak_mb, facts["peak_memory_mb"])
        return {"features": str(self.kept.path)}

    def batch_size(self) -> int:
        """As many images as have VIEW_BATCH views."""
        return max(1, self.node.VIEW_BATCH // self.config.n_views)

    @property
    def online(self) -> bool:
        """Whether a method learns from the images in their order."""
        return any(method.online for method in self.methods.values())

    def order(self, split: str) -> list[int]:
        """Online methods see the images in TEST.STREAM's order by the seed; for all others it does not matter."""
        if not self.online:
            return super().order(split)
        return self.stream.order([item.label for item in self.items(split)], self.config.seed)

    def start(self) -> None:
        """Each method encodes the prompts that it needs; here only the way of views to features is set up."""
        trainer = self.trainer
        self.encode = ViewEncoder(trainer.clip_model, self.node.VIEW_BATCH, trainer.autocast, print)

    def warm_up(self) -> None:
        """Encodes a batch of the usual shape, as the first one sets up kernels, which is no image's cost."""
        size, n_images = self.config.size, self.batch_size()
        pixels = torch.zeros(n_images, self.config.n_views, size, size, 3, dtype=torch.uint8)
        ViewEncoder(self.trainer.clip_model, self.node.VIEW_BATCH, self.trainer.autocast)(pixels.movedim(-1, 2))

    def prepare(self, batch: dict[str, Tensor]) -> BatchViews:
        """All views of B images, encoded if a method needs all of them."""
        if "features" in batch:
            features = batch["features"].to(self.trainer.device, non_blocking=True)
            pixels = self.views(batch) if "img" in batch else features[..., :0]
            return BatchViews(self.encode, pixels, self.known(batch), features)
        views = BatchViews(self.encode, self.views(batch), self.known(batch))
        if not all(map(self._in_rounds, self.methods.values())):
            features = views.features()
            if self.kept:
                self.kept.write(batch["index"], features)
        return views

    def gathered(self, index: Tensor, features: Tensor, pixels: Tensor) -> BatchViews:
        """Images (B,) whose features (B, V, E) are known, as `prepare` returns them."""
        return BatchViews(self.encode, pixels, Known(index), features)

    def known(self, batch: dict[str, Any]) -> Known:
        """What a batch says of its images; the labels only if a rule uses them."""
        if not any(method.uses_labels for method in self.methods.values()):
            return Known(batch["index"])
        return Known(batch["index"], batch["label"].to(self.trainer.device, non_blocking=True))

    def _in_rounds(self, method: Method) -> bool:
        return bool(self.node.MARGIN and method.stops_early)

    def views(self, batch: dict[str, Any]) -> Tensor:
        """Pixels of all views on the device, (B, V, 3, H, W)."""
        device = self.trainer.device
        if not self.node.ON_DEVICE:
            return batch["img"].to(device, non_blocking=True)
        decoded = (image.to(device, non_blocking=True) for image in batch["img"])
        pairs = zip(decoded, batch["crops"], strict=True)
        return torch.stack([make_views_on_device(image, crops, self.config) for image, crops in pairs])

    def entries(self) -> list[Entry]:
        """Every method with every text side."""
        return [
            self.entry(prompt, classifier, method)
            for prompt, classifier in self.classifiers().items()
            for method in self.methods.values()
        ]

    def entry(self, prompt: str, classifier: Classifier, method: Method) -> Entry:
        """One method with one text side, started."""
        trainer, seed = self.trainer, self.config.seed
        trainer.evaluator.reset()
        facts = {"prompt_sha256": tensor_sha256(classifier.fingerprint())}
        if method.online:
            facts |= describe_order(self.stream, seed)
        meter, own = Meter(trainer.device), dataclasses.replace(method)
        with meter:
            own.start(classifier, seed)
        gathering = Gathering(own.batch) if own.in_batches else None
        return Entry(trainer.record, trainer.evaluator, meter, facts, own, gathering=gathering)

    def probabilities(self, prepared: BatchViews, entry: Entry) -> Tensor:
        """Class probabilities of a batch under one method: (B, K)."""
        return predict_views(entry.method, prepared, self.node.MARGIN if self._in_rounds(entry.method) else 0.0)

    @property
    def loss_scale(self) -> float:
        """Factor on a loss before its backward pass."""
        return FP16_LOSS_SCALE if self.trainer.precision in ("fp16", "amp") else 1.0
