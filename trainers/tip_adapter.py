"""Tip-Adapter: a cache of the training images beside zero-shot CLIP; Tip-Adapter-F also trains the keys.

arXiv 2111.03930 and 2207.09519; gaopengcuhk/Tip-Adapter@d0e2d6f, main.py and utils.py, whose logits, keys, grid and
training steps these are. Differences:
- Upstream's F keeps its best epoch by TEST accuracy, and reports the better of the test accuracies before and after the
  search. Here the epoch is the best on val (TEST.FINAL_MODEL best_val) or the last, and one model is tested once.
- A test set with some of the cache's classes (ImageNet-A, -R) is tested with the images of those.
- Upstream's ImageNet has its test images as val. Where val and test share images, nothing is chosen: BETA and ALPHA
  stay and the last epoch is tested. A cache of test images (ImageNet's variants) is refused.
- Features, keys and the search are fp32; the logit scale is the model's; the training loader drops an incomplete last
  batch; SEARCH False keeps BETA and ALPHA (upstream's code then fails).
Learning rate, epochs and AdamW are the OPTIM node's; its schedule goes by steps, not epochs, as upstream's does.
"""

import time
from typing import Any

import torch
import torch.nn.functional as F
from dassl.metrics import compute_accuracy
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm
from yacs.config import CfgNode

from tlla.clip import logit_scale
from tlla.errors import InputError, within
from tlla.fingerprint import tensor_sha256, weights_sha256
from tlla.prompts.checkpoint import find_checkpoint, read_checkpoint
from tlla.prompts.info import PromptInfo
from tlla.prompts.templates import zeroshot_features
from tlla.training.cache_model import Cache, load_cache, make_keys, search, search_grid
from tlla.workers import fit_workers

from .base import ClipTrainer, registered
from .harness import distributed
from .harness.by_steps import build_by_steps
from .harness.identity import compare_settings
from .harness.split_guard import separate_splits
from .prompt_source import find_templates, refuse_descriptions

BEST = "model-best.pth.tar"


def cache_config() -> CfgNode:
    """The keys of both trainers, with upstream's values for ImageNet; other datasets have other ALPHA and scales."""
    node = CfgNode()
    node.BETA = 1.0  # sharpness of the affinities, before a search
    node.ALPHA = 1.17  # weight of the cache, before a search
    node.AUGMENT_EPOCH = 10  # augmented passes that a key is the mean of
    node.SEARCH = True  # search beta and alpha on val
    node.SEARCH_SCALE = (7.0, 3.0)  # up to which beta and alpha
    node.SEARCH_STEP = (200, 20)  # in how many steps
    node.TEMPLATE = ""  # "": the dataset's own; or a template, or an ensemble: imagenet7, imagenet80
    node.PREC = "auto"  # auto (amp on a GPU), fp32, fp16, bf16, amp; of the encoders
    return node


def add_config(cfg: CfgNode) -> None:
    """Adds TRAINER.TIPADAPTER and TRAINER.TIPADAPTERF."""
    cfg.TRAINER.TIPADAPTER = cache_config()
    cfg.TRAINER.TIPADAPTERF = cache_config()
    cfg.TRAINER.TIPADAPTERF.EPS = 1e-4  # of AdamW


def check_settings(node: CfgNode) -> None:
    """Raises InputError for a setting that cannot work."""
    refuse_descriptions(node.TEMPLATE, "Tip-Adapter")
    for key in ("BETA", "ALPHA"):
        if not 0 <= node[key] < float("inf"):
            raise InputError(f"{key} must be a finite number >= 0, but got {node[key]}")
    if node.AUGMENT_EPOCH < 1:
        raise InputError(f"AUGMENT_EPOCH must be at least 1, but got {node.AUGMENT_EPOCH}")
    for key, least in (("SEARCH_SCALE", 0.1), ("SEARCH_STEP", 1)):
        if len(node[key]) != 2 or not all(least <= value < float("inf") for value in node[key]):
            raise InputError(f"{key} must be two numbers >= {least}, for beta and alpha, but got {tuple(node[key])}")
    if not all(isinstance(steps, int) for steps in node.SEARCH_STEP):
        raise InputError(f"SEARCH_STEP must be two whole numbers, but got {tuple(node.SEARCH_STEP)}")


class CacheTrainer(ClipTrainer):
    """What both have in common: the cache, the search, the test."""

    learned = "tip_adapter"
    free_keys = ("SEARCH", "SEARCH_SCALE", "SEARCH_STEP")  # each run searches anew, when all else is learned
    kind = "cache"

    def check_cfg(self, cfg: CfgNode) -> None:
        """Refuses settings that cannot work, before anything is loaded."""
        super().check_cfg(cfg)
        with within(f"TRAINER.{self.config_node}"):
            check_settings(cfg.TRAINER[self.config_node])

    def build_model(self) -> None:
        """Encodes the class names; the cache stays empty until it is filled or loaded."""
        node, dataset = self.method_cfg, self.dm.dataset
        with torch.no_grad(), self.autocast():
            templates = find_templates(node.TEMPLATE, dataset)
            self.text_features = zeroshot_features(  # (K, E)
                self.clip_model, dataset.classnames, templates, self.on_shared
            )
        embed_dim = self.text_features.shape[1]
        ids = getattr(dataset, "class_ids", ())
        cache = Cache(len(dataset.train_x), embed_dim, dataset.classnames, node.BETA, node.ALPHA, ids)
        self.cache, self.loaded = cache.to(self.device), None
        self.optim, self.sched = self.build_optim()
        self.register_model(self.learned, self.cache, self.optim, self.sched)

    def build_optim(self) -> tuple:
        """Optimizer and schedule of the keys; None if they are not trained."""
        return None, None

    def without_val(self, reason: str) -> None:
        """Chooses nothing: upstream's configs ask for the best epoch also on ImageNet, whose val is its test."""
        node = self.method_cfg
        print(f"{reason}: BETA {node.BETA} and ALPHA {node.ALPHA} are kept")
        self.val_loader = None
        if self.chooses_epoch:
            print("Without val images the last epoch is tested, not the best one")
            self.cfg = self.cfg.clone()
            self.cfg.merge_from_list(["TEST.FINAL_MODEL", "last_step"])

    @torch.no_grad()
    def fill_cache(self) -> None:
        """Keys and labels of all training images, augmented as INPUT.TRANSFORMS says; in full by every process."""
        dataset, passes = self.train_loader_x.dataset, self.method_cfg.AUGMENT_EPOCH
        # Not the training loader itself, which shuffles and drops an incomplete batch.
        settings = self.cfg.DATALOADER
        loader = fit_workers(DataLoader(dataset, settings.TEST.BATCH_SIZE, num_workers=settings.NUM_WORKERS))

        def features(number: int) -> Tensor:
            if hasattr(dataset, "set_seed"):  # our toolkit's: then images do not depend on the number of workers
                dataset.set_seed(self.run_seed * passes + number)
            with self.autocast():
                found = [self.clip_model.encode_image(batch["img"].to(self.device)).float() for batch in loader]
            return torch.cat(found)

        bar = tqdm(range(passes), unit="pass", desc="cache", disable=not distributed.is_first())
        keys = make_keys(features(number) for number in bar)
        self.cache.fill(keys, torch.tensor([item.label for item in self.dm.dataset.train_x]))

    @torch.no_grad()
    def choose_strength(self) -> None:
        """Searches beta and alpha on the val images, if there are any; else those of the config stay."""
        node = self.method_cfg
        self.cache.set_strength(node.BETA, node.ALPHA)
        if not node.SEARCH or self.val_loader is None:
            return
        found = [(self.encode_image(batch["img"].to(self.device)), batch["label"]) for batch in self.val_loader]
        features, labels = (torch.cat(tensors) for tensors in zip(*found, strict=True))
        betas, alphas = (search_grid(*pair) for pair in zip(node.SEARCH_SCALE, node.SEARCH_STEP, strict=True))
        choice = search(
            features,
            labels.to(self.device),
            self.clip_logits(features),
            self.cache.keys,
            self.cache.values,
            betas,
            alphas,
        )
        print(f"Best on val: beta {choice.beta:.4g}, alpha {choice.alpha:.4g}, accuracy {choice.accuracy:.1f}%")
        self.cache.set_strength(choice.beta, choice.alpha)

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Loads the cache of a run of either trainer, exactly and strictly.

        Args:
            directory: The run's output folder.
            epoch: 1-based. Default: the newest, or the best on val if TEST.FINAL_MODEL is best_val.
        """
        if not directory:
            raise InputError("a test of Tip-Adapter needs a cache: name the run that made it by --model-dir")
        best = self.cfg.TEST.FINAL_MODEL == "best_val"
        found = read_checkpoint(find_checkpoint(directory, epoch, best, self.learned))
        load_cache(found, self.cache, self.clip_model)
        self.loaded = found.state["keys"]
        if (count := len(self.cache.keys)) < len(self.loaded):
            print(f"Of the {len(self.loaded)} images of the cache, the {count} of this run's classes are used")
        self.trained = found.epoch
        self.note_loaded("cache", found.path, found.epoch, found.trained_by)

    def trainer_state(self, epoch: int) -> dict[str, Any]:
        """Adds to a checkpoint which CLIP and which classes its cache is for (our toolkit asks for it, not Dassl)."""
        names = tuple(self.cache.classnames)
        info = PromptInfo(names, self.cfg.MODEL.BACKBONE.NAME, weights_sha256(self.clip_model))
        return {**super().trainer_state(epoch), "prompt": info.as_entry()}

    def clip_logits(self, features: Tensor) -> Tensor:
        """Zero-shot logits of normalised features, (B, E) -> (B, K)."""
        return logit_scale(self.clip_model) * features @ self.text_features.t()

    def model_inference(self, images: Tensor) -> Tensor:
        """Logits, (B, 3, H, W) -> (B, K)."""
        features = self.encode_image(images)
        return self.cache(features, self.clip_logits(features))

    def describe_tested(self) -> dict[str, Any]:
        """Also the cache, the whole one that was loaded, and its strength."""
        keys = self.cache.keys if self.loaded is None else self.loaded
        return super().describe_tested() | {
            "beta": self.cache.beta.item(),
            "alpha": self.cache.alpha.item(),
            "cache_sha256": tensor_sha256(keys),
            "cache_labels_sha256": tensor_sha256(self.cache.labels),
        }

    def prompt(self) -> Tensor:
        """The text features."""
        return self.text_features


@registered
class TipAdapter(CacheTrainer):
    """Nothing is trained: the cache is filled, beta and alpha are searched, and that is saved as epoch 1."""

    config_node = "TIPADAPTER"
    epochs = 1

    def train(self) -> None:
        """Fills the cache, searches, saves, tests."""
        self.time_start = time.time()
        separate_splits(self)
        compare_settings(self, self.output_dir)
        self.fill_cache()
        self.choose_strength()
        self.save_model(0, self.output_dir)
        self.after_train()


@registered
class TipAdapterF(CacheTrainer):
    """The keys are trained by cross entropy, at BETA and ALPHA; the search comes after."""

    config_node = "TIPADAPTERF"

    def check_cfg(self, cfg: CfgNode) -> None:
        """Also the optimizer's eps."""
        super().check_cfg(cfg)
        if not 0 < (eps := cfg.TRAINER[self.config_node].EPS) < float("inf"):
            raise InputError(f"TRAINER.{self.config_node}.EPS must be a number > 0, but got {eps}")

    def build_optim(self) -> tuple:
        """As OPTIM says, but for EPS, which it lacks; the schedule is stretched from epochs to steps."""
        steps = len(self.train_loader_x) if self.train_loader_x else 1
        optim, sched = build_by_steps(self.cache, self.cfg.OPTIM, steps)
        for group in optim.param_groups:
            group["eps"] = self.method_cfg.EPS  # sgd does not look at it
        return optim, sched

    def before_train(self) -> None:
        """Fills the cache, unless an earlier run's is trained further."""
        super().before_train()
        if self.start_epoch == 0:
            self.fill_cache()

    def before_epoch(self) -> None:
        """Takes back what the search of a finished run has set, should that run be continued."""
        super().before_epoch()
        self.cache.set_strength(self.method_cfg.BETA, self.method_cfg.ALPHA)

    def forward_backward(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """One step on one batch; images are encoded without a graph."""
        features, labels = self.encode_batch(batch)
        logits = distributed.spread(features, lambda own: self.cache(own, self.clip_logits(own)))
        loss = F.cross_entropy(logits, labels)
        self.model_zero_grad()
        self.model_backward(loss)
        self.cache.keys.grad = distributed.sum_gradient(self.cache.keys.grad)
        self.model_update()
        self.update_lr()
        return {"loss": loss.item(), "acc": compute_accuracy(logits, labels)[0].item()}

    def after_train(self) -> None:
        """Searches with the keys that will be tested, and saves them with the beta and alpha found."""
        epoch, best = self.epoch, self.chooses_epoch
        if best:
            self.load_model(self.output_dir)
            epoch = self.trained - 1
        self.choose_strength()
        self.save_model(epoch, self.output_dir, val_result=self.best_result, model_name=BEST if best else "")
        super().after_train()
