"""Builds the dataset and its loaders from the configuration."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from tabulate import tabulate
from yacs.config import CfgNode

from dassl.utils.seeding import draw_run_seed

from .datasets import build_dataset
from .loader import SeededLoader
from .samplers import build_sampler
from .transforms import INTERPOLATION_MODES, build_transform
from .wrapper import DatasetWrapper

__all__ = ["INTERPOLATION_MODES", "DataManager", "DatasetWrapper", "SeededLoader", "build_data_loader"]


def build_data_loader(
    cfg: CfgNode,
    sampler_type: str = "SequentialSampler",
    data_source: Sequence | None = None,
    batch_size: int = 64,
    tfm: Callable | Sequence[Callable] | None = None,
    is_train: bool = True,
    dataset_wrapper: type | None = None,
    split: str = "",
) -> SeededLoader:
    """Builds a loader.

    Args:
        cfg: The configuration tree.
        sampler_type: A sampler's name.
        data_source: The images.
        batch_size: Images a batch; in training an incomplete last batch is dropped, unless it is the only one.
        tfm: The transform, or several.
        is_train: For training.
        dataset_wrapper: A class that takes the place of DatasetWrapper.
        split: The split's name, for messages and random numbers.

    Raises:
        ValueError: There are no images, or no sampler has that name.
    """
    split = split or ("train_x" if is_train else "test")
    if not data_source:
        raise ValueError(f'The "{split}" split of dataset {cfg.DATASET.NAME!r} has no images; check DATASET.ROOT')
    own_u = split == "train_u" and not cfg.DATALOADER.TRAIN_U.SAME_AS_X
    setting = f"DATALOADER.{('TRAIN_U' if own_u else 'TRAIN_X') if is_train else 'TEST'}.SAMPLER"
    return SeededLoader(
        (dataset_wrapper or DatasetWrapper)(cfg, data_source, transform=tfm, is_train=is_train),
        batch_size=batch_size,
        sampler=build_sampler(sampler_type, data_source, setting),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        drop_last=is_train and len(data_source) >= batch_size,
        pin_memory=torch.cuda.is_available() and cfg.USE_CUDA,
        seed=cfg.SEED if cfg.SEED >= 0 else draw_run_seed(),
        stream=split,
        is_train=is_train,
    )


class DataManager:
    """The dataset and its loaders.

    Args:
        cfg: The configuration tree.
        custom_tfm_train: Takes the place of the training transform.
        custom_tfm_test: Takes the place of the test transform.
        dataset_wrapper: A class that takes the place of DatasetWrapper.

    Attributes:
        dataset: The dataset.
        train_loader_x: Labelled training batches; None if the dataset has none (it can still be tested on).
        train_loader_u: Unlabelled training batches, or None.
        val_loader: Validation batches, or None.
        test_loader: Test batches; None only if there are none and TEST.NO_TEST is set.
        num_classes, num_source_domains, lab2cname: As of the dataset.

    Raises:
        ValueError: There are no test images.
    """

    def __init__(
        self,
        cfg: CfgNode,
        custom_tfm_train: Callable | Sequence[Callable] | None = None,
        custom_tfm_test: Callable | Sequence[Callable] | None = None,
        dataset_wrapper: type | None = None,
    ):
        self.cfg = cfg
        self.dataset = dataset = build_dataset(cfg)
        self.num_classes = dataset.num_classes
        self.num_source_domains = len(cfg.DATASET.SOURCE_DOMAINS)
        self.lab2cname = dataset.lab2cname
        self._wrapper = dataset_wrapper
        tfm_train = _choose(custom_tfm_train, cfg, is_train=True)
        tfm_test = _choose(custom_tfm_test, cfg, is_train=False)

        loaders = cfg.DATALOADER
        settings_u = loaders.TRAIN_X if loaders.TRAIN_U.SAME_AS_X else loaders.TRAIN_U
        self.train_loader_x = self._loader("train_x", loaders.TRAIN_X, tfm_train) if dataset.train_x else None
        self.train_loader_u = self._loader("train_u", settings_u, tfm_train) if dataset.train_u else None
        self.val_loader = self._loader("val", loaders.TEST, tfm_test) if dataset.val else None
        no_test = cfg.TEST.NO_TEST and not dataset.test
        self.test_loader = None if no_test else self._loader("test", loaders.TEST, tfm_test)
        if cfg.VERBOSE:
            self.show_dataset_summary(cfg)

    def _loader(self, split: str, settings: CfgNode, tfm: Any) -> SeededLoader:
        return build_data_loader(
            self.cfg,
            sampler_type=settings.SAMPLER,
            data_source=getattr(self.dataset, split),
            batch_size=settings.BATCH_SIZE,
            tfm=tfm,
            is_train=split.startswith("train"),
            dataset_wrapper=self._wrapper,
            split=split,
        )

    def show_dataset_summary(self, cfg: CfgNode) -> None:
        """Prints a table of names and counts."""
        table = [["Dataset", cfg.DATASET.NAME]]
        if cfg.DATASET.SOURCE_DOMAINS:
            table.append(["Source", cfg.DATASET.SOURCE_DOMAINS])
        if cfg.DATASET.TARGET_DOMAINS:
            table.append(["Target", cfg.DATASET.TARGET_DOMAINS])
        table.append(["# classes", f"{self.num_classes:,}"])
        for split in ("train_x", "train_u", "val", "test"):
            images = getattr(self.dataset, split)
            if images or split in ("train_x", "test"):
                table.append([f"# {split}", f"{len(images):,}"])
        print(tabulate(table, disable_numparse=True))


def _choose(custom: Any, cfg: CfgNode, is_train: bool) -> Any:
    """The custom transform if there is one, else that of the configuration."""
    if custom is None:
        return build_transform(cfg, is_train=is_train)
    print(f"* Using custom transform for {'training' if is_train else 'testing'}")
    return custom
