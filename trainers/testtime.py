"""One trainer for each test-time method of `tlla.methods`.

The trainers are made from the methods' dataclasses: TPT's fields are the keys of TRAINER.TPT. All of them share
TRAINER.VIEWS (which views) and TRAINER.PROMPT (which prompt, unless --model-dir names a run that learned one).
"""

import dataclasses
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from yacs.config import CfgNode

from tlla.clip import normalize
from tlla.errors import within
from tlla.fingerprint import tensor_sha256
from tlla.methods import METHODS, Method, settings
from tlla.prompts.classifier import Classifier
from tlla.prompts.learner import check_position
from tlla.views.device import make_views_on_device

from .base import ClipTrainer, UntrainedTrainer, registered
from .harness.entries import Meter, Part
from .harness.results import plain
from .harness.view_data import VIEW_KEYS, ViewDataset, add_view_keys, view_config
from .prompt_source import PromptReader, said_of_prompt

FP16_LOSS_SCALE = 1000.0  # TPT's


def add_method_keys(node: CfgNode, method: type[Method]) -> None:
    """Adds a method's settings to its node, with the method's defaults."""
    for key, (_, default) in settings(method).items():
        node[key] = default


def build_method(cfg: CfgNode, name: str, node_name: str, n_views: int) -> Method:
    """A method with the settings of TRAINER.<node_name>; InputError by key if they cannot work."""
    method = METHODS[name]
    with within(f"TRAINER.{node_name}"):
        values = {field: cfg.TRAINER[node_name][key] for key, (field, _) in settings(method).items()}
        built = method(**values)
        built.check_views(n_views)
    return built


class ViewTest(ClipTrainer):
    """test() over images with all their views.

    A subclass sets `view_config` and `methods` in check_cfg, and gives `views_name` and `classifiers`.
    """

    kind = "views"
    methods: dict[str, Method]

    @property
    def views_node(self) -> CfgNode:
        """The node with the keys of the views, TRAINER.<views_name>."""
        return self.cfg.TRAINER[self.views_name]

    def describe_method(self) -> dict[str, Any]:
        """Of the one method, or of the first of several, each of which has a record of its own."""
        name, method = next(iter(self.methods.items()))
        return super().describe_method() | self.describe_views(name, method)

    def describe_views(self, name: str, method: Method) -> dict[str, Any]:
        """A method's own entries."""
        views = {key: value for key, value in plain(self.views_node).items() if key in VIEW_KEYS}
        return {
            "name": name,
            "settings": {key: getattr(method, field) for key, (field, _) in settings(type(method)).items()},
            "views": views if method.uses_views else None,
            "deterministic": not method.uses_views,
        }

    def classifiers(self) -> dict[str, Classifier]:
        """Text sides by name; every method is tested with each of them."""
        raise NotImplementedError

    def eval_dataset(self, split: str) -> Dataset:
        """Images with all their views: img (V, 3, H, W)."""
        return ViewDataset(self.eval_items(split), self.view_config, self.views_node.ON_DEVICE)

    def eval_batch_size(self) -> int:
        """As many images as have VIEW_BATCH views."""
        return max(1, self.views_node.VIEW_BATCH // self.view_config.n_views)

    def eval_order(self, total: int) -> list[int]:
        """Online methods see the images in an order that the seed fixes; for all others it does not matter."""
        if not any(method.online for method in self.methods.values()):
            return super().eval_order(total)
        generator = torch.Generator().manual_seed(self.view_config.seed)
        return torch.randperm(total, generator=generator).tolist()

    def prepare(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Features (B, V, E) and normalised pixels (B, V, 3, H, W) of all views."""
        images = normalize(self._views(batch), self.clip_model)
        return self._encode(images.flatten(0, 1)).unflatten(0, images.shape[:2]), images

    def _views(self, batch: dict[str, Any]) -> Tensor:
        """Pixels of all views on the device, (B, V, 3, H, W)."""
        if not self.views_node.ON_DEVICE:
            return batch["img"].to(self.device, non_blocking=True)
        decoded = (image.to(self.device, non_blocking=True) for image in batch["img"])
        pairs = zip(decoded, batch["crops"], strict=True)
        return torch.stack([make_views_on_device(image, crops, self.view_config) for image, crops in pairs])

    def _encode(self, images: Tensor) -> Tensor:
        """Features of many views, so many at once as the memory allows: (N, 3, H, W) -> (N, E)."""
        while True:
            try:
                return torch.cat([self.encode_image(chunk) for chunk in images.split(self.views_at_once)])
            except torch.OutOfMemoryError:
                if self.views_at_once == 1:
                    raise
            # Not inside the handler, whose traceback would keep the tensors alive.
            self.views_at_once //= 2
            print(f"Out of memory: going on with {self.views_at_once} views at once (VIEW_BATCH)")
            torch.cuda.empty_cache()

    def probabilities(self, prepared: tuple[Tensor, Tensor], part: Part) -> Tensor:
        """Class probabilities of a batch under one method: (B, K)."""
        features, images = prepared
        return part.method.predict(features, images if part.method.needs_images else None)

    def parts(self) -> list[Part]:
        """Every method with every prompt."""
        return [
            self._part(prompt, classifier, name, method)
            for prompt, classifier in self.classifiers().items()
            for name, method in self.methods.items()
        ]

    def _part(self, prompt: str, classifier: Classifier, name: str, method: Method) -> Part:
        self.evaluator.reset()
        entries = {"prompt_sha256": tensor_sha256(classifier.fingerprint())}
        if method.online:
            entries["order"] = f"torch.randperm with seed {self.view_config.seed}"
        part = Part(self.record, self.evaluator, Meter(self.device), entries, dataclasses.replace(method))
        with part.meter:
            part.method.start(classifier, self.view_config.seed)
        return part

    def before_test(self) -> None:
        """Each method encodes the prompts that it needs."""
        self.views_at_once = self.views_node.VIEW_BATCH

    @property
    def loss_scale(self) -> float:
        """Factor on a loss before its backward pass."""
        return FP16_LOSS_SCALE if self.precision in ("fp16", "amp") else 1.0


class TestTimeTrainer(ViewTest, UntrainedTrainer):
    """A test-time method on any prompt. The registered trainers are its subclasses, one for each method."""

    __test__ = False  # for pytest, which takes the name for a test's
    config_node = "PROMPT"
    views_name = "VIEWS"

    def check_cfg(self, cfg: CfgNode) -> None:
        """Refuses views and settings that cannot work, before anything is loaded."""
        super().check_cfg(cfg)
        check_position(cfg.TRAINER.PROMPT.CLASS_TOKEN_POSITION)
        with within(f"TRAINER.{self.views_name}"):
            self.view_config = view_config(cfg, cfg.TRAINER[self.views_name])
        names = self.method_names(cfg)
        self.methods = {name: build_method(cfg, name, name.upper(), self.view_config.n_views) for name in names}
        if not any(method.uses_views for method in self.methods.values()):
            self.view_config = dataclasses.replace(self.view_config, n_views=1)

    def method_names(self, cfg: CfgNode) -> list[str]:
        """The methods to test: here the one that the trainer is named after."""
        return [type(self).__name__]

    def build_model(self) -> None:
        """Nothing is built before it is known which prompt is wanted."""
        node = self.cfg.TRAINER.PROMPT
        self.reader = PromptReader(
            self.clip_model,
            self.dm.dataset,
            node.CLASS_TOKEN_POSITION,
            self.autocast,
            self.loss_scale,
            best=self.cfg.TEST.FINAL_MODEL == "best_val",
            on_shared=self.on_shared,
        )
        self.classifier: Classifier | None = None

    def describe_method(self) -> dict[str, Any]:
        """Also the template, which counts unless a learned prompt is loaded."""
        return super().describe_method() | {"template": self.template_name(self.cfg.TRAINER.PROMPT.TEMPLATE)}

    def template_name(self, name: str) -> str:
        """A template as a row of the tables has it; "": each dataset's own."""
        return name or self.cfg.DATASET.get("TEMPLATE", "")

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Takes the prompt of a run; without a directory the template of TRAINER.PROMPT stays."""
        if directory:
            self.classifier, source = self.reader.run(directory, epoch)
            self.record.update(loaded_from=source | said_of_prompt(self.cfg))

    def classifiers(self) -> dict[str, Classifier]:
        """The one prompt."""
        if self.classifier:
            return {"checkpoint": self.classifier}
        return {"template": self.reader.template(self.cfg.TRAINER.PROMPT.TEMPLATE)}


def add_config(cfg: CfgNode) -> None:
    """Adds TRAINER.VIEWS, TRAINER.PROMPT, and a node for each method."""
    cfg.TRAINER.VIEWS = CfgNode()
    add_view_keys(cfg.TRAINER.VIEWS)
    cfg.TRAINER.PROMPT = CfgNode()
    cfg.TRAINER.PROMPT.TEMPLATE = ""  # "": the dataset's own; or a template, or an ensemble: imagenet7, imagenet80
    cfg.TRAINER.PROMPT.CLASS_TOKEN_POSITION = "end"  # of a learned prompt: end, middle or front
    cfg.TRAINER.PROMPT.NAME = ""  # what tables call a prompt of --model-dir that no run here has trained, e.g. CoOp
    cfg.TRAINER.PROMPT.SOURCE = ""  # the dataset that it was trained on, e.g. ImageNet
    cfg.TRAINER.PROMPT.PREC = "fp16"  # fp32, fp16, bf16, amp; methods with backprop scale the loss in fp16
    for name, method in METHODS.items():
        cfg.TRAINER[name.upper()] = CfgNode()
        add_method_keys(cfg.TRAINER[name.upper()], method)


TRAINERS = {
    name: registered(type(name, (TestTimeTrainer,), {"__doc__": method.__doc__, "__module__": __name__}))
    for name, method in METHODS.items()
}
