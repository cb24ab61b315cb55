"""A trainer with everything but the epoch: data, model, checkpoints after every epoch, tests."""

import datetime
import os
import time
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from yacs.config import CfgNode

from dassl.data import DataManager
from dassl.data.loader import SeededLoader
from dassl.evaluation import build_evaluator
from dassl.utils import derive_seed, set_random_seed
from dassl.utils.checkpoint import BEST_MODEL, common_epochs, copy_best
from dassl.utils.seeding import draw_run_seed
from dassl.utils.storage import remove_partial_files

from .base import TrainerBase
from .rolling import RollingCheckpoints, stored_run_seed


class SimpleTrainer(TrainerBase):
    """Builds data, model and evaluator from the configuration, and trains, tests and resumes.

    All random numbers of an epoch come from (run seed, epoch): they don't depend on DATALOADER.NUM_WORKERS, on what
    ran before, or on whether the run was resumed.

    Attributes:
        cfg: The configuration, whose SEED is the run's: never negative.
        device, output_dir, evaluator: As built from it.
        dm: The DataManager, if build_data_loader() was not replaced by one without it.
        epoch, batch_idx, num_batches, max_epoch: Where the run is, 0-based.
        run_seed: SEED, or the number drawn in its place if SEED is negative.
        best_result: The best result on the validation set so far.
        test_results: The newest results of each split, as the evaluator returned them.
        writes: Whether this process tidies up files; of several processes of one run, a subclass lets one do it.
    """

    writes = True

    def __init__(self, cfg: CfgNode):
        super().__init__()
        self.cfg, self.output_dir = cfg, cfg.OUTPUT_DIR
        self.run_seed = self._choose_run_seed()
        self.cfg = cfg = _with_seed(cfg, self.run_seed)
        self.check_cfg(cfg)
        self.device = torch.device("cuda" if torch.cuda.is_available() and cfg.USE_CUDA else "cpu")
        self.start_epoch = self.epoch = 0
        self.max_epoch = cfg.OPTIM.MAX_EPOCH
        self.best_result = -float("inf")
        self.test_results: dict[str, OrderedDict[str, float]] = {}
        self.rolling = RollingCheckpoints(self.output_dir, cfg.TRAIN.CHECKPOINT_FREQ)
        set_random_seed(self.run_seed)  # the same few-shot draws and first weights, whatever ran in this process before
        self.build_data_loader()
        for loader in self._loaders():
            loader.seed = self.run_seed
        self.build_model()
        self.evaluator = build_evaluator(cfg, lab2cname=self.lab2cname)

    # What a subclass may replace

    def check_cfg(self, cfg: CfgNode) -> None:
        """Raises ValueError if a setting does not suit this trainer."""

    def build_data_loader(self) -> None:
        """Creates the loaders (train_loader_x, train_loader_u, val_loader, test_loader), num_classes and lab2cname."""
        self.dm = DataManager(self.cfg)
        self.train_loader_x = self.dm.train_loader_x
        self.train_loader_u = self.dm.train_loader_u
        self.val_loader = self.dm.val_loader
        self.test_loader = self.dm.test_loader
        self.num_classes = self.dm.num_classes
        self.num_source_domains = self.dm.num_source_domains
        self.lab2cname = self.dm.lab2cname

    def build_model(self) -> None:
        """Creates ``self.model`` and registers what is trained; without that, the trainer can only test."""
        raise ValueError(
            f"TRAINER.NAME {self.cfg.TRAINER.NAME!r} has no build_model(), and no network is made here from "
            f"MODEL.BACKBONE.NAME {self.cfg.MODEL.BACKBONE.NAME!r}; available are trainers that build their own model"
        )

    def model_inference(self, input: Tensor) -> Tensor:
        """Logits of the model: (B, 3, H, W) -> (B, K)."""
        return self.model(input)

    def parse_batch_test(self, batch: dict) -> tuple[Tensor, Tensor]:
        """Images and labels of a batch, on the device."""
        return batch["img"].to(self.device), batch["label"].to(self.device)

    # Training

    def train(self) -> None:
        """Trains from the newest checkpoint on, or from the beginning; then tests."""
        if self.get_model_names() and self._selects_best() and self.val_loader is None:
            raise ValueError(
                f"TEST.FINAL_MODEL best_val needs a validation set, but {self.cfg.DATASET.NAME} has none, and choosing "
                "by the test set would make its result worthless; set TEST.FINAL_MODEL last_step"
            )
        super().train(self.start_epoch, self.max_epoch)

    def before_train(self) -> None:
        """Clears away half-written checkpoints, resumes, and opens the TensorBoard writer."""
        self.time_start = time.time()
        for name in self.get_model_names() if self.writes else ():
            remove_partial_files(os.path.join(self.output_dir, name))
        if self.get_model_names():
            self.start_epoch = self._resume()
        else:
            print(f"Nothing to train: {type(self).__name__} registers no model")
            self.start_epoch = self.max_epoch
        self.epoch = max(min(self.start_epoch, self.max_epoch) - 1, 0)
        self.init_writer(os.path.join(self.output_dir, "tensorboard"))

    def begin_epoch(self) -> None:
        """Seeds the epoch, so that it is the same in a run that was killed and one that was not."""
        set_random_seed(derive_seed(self.run_seed, "epoch", self.epoch))
        for loader in self._loaders():
            loader.set_epoch(self.epoch)

    def after_epoch(self) -> None:
        """Keeps the best model if asked to, and writes the checkpoint from which a killed run resumes."""
        val_result = None
        if self._selects_best():
            val_result = self.test(split="val")
            if val_result > self.best_result:
                self.best_result = val_result
                self.save_model(self.epoch, self.output_dir, val_result=val_result, model_name=BEST_MODEL)
        self.save_model(self.epoch, self.output_dir, val_result=val_result)
        if self.writes:
            self.rolling.saved(self.epoch + 1, self.max_epoch, self.get_model_names())

    def after_train(self) -> None:
        """Tests the last model, or the best one on val if TEST.FINAL_MODEL asks for it."""
        print("Finish training")
        if not self.cfg.TEST.NO_TEST:
            if self._selects_best() and self.get_model_names():
                print("Deploy the model with the best val performance")
                self.load_model(self.output_dir)
            else:
                print("Deploy the last-epoch model")
            self.test()
        elapsed = round(time.time() - getattr(self, "time_start", time.time()))
        print(f"Elapsed: {datetime.timedelta(seconds=elapsed)}")
        self.close_writer()

    # Testing

    @torch.no_grad()
    def test(self, split: str | None = None) -> float:
        """Tests on a split; returns the evaluator's first result. All are in ``test_results[split]``.

        Gradients are off; a model_inference() that needs them turns them on itself.

        Args:
            split: "test" or "val" (the test set if there is no validation set); None means TEST.SPLIT.

        Raises:
            ValueError: Unknown split, or there are no test images.
        """
        split, loader = self._split(split or self.cfg.TEST.SPLIT)
        set_random_seed(derive_seed(self.run_seed, split))
        self.set_model_mode("eval")
        self.evaluator.reset()
        print(f"Evaluate on the *{split}* set")
        with tqdm(total=len(loader.dataset), unit=" images") as bar:
            for batch_idx, batch in enumerate(loader):
                self.batch_idx = batch_idx
                input, label = self.parse_batch_test(batch)
                self.evaluator.process(self.model_inference(input), label)
                bar.update(len(label))
        results = self.evaluator.evaluate()
        self.test_results[split] = results
        for name, value in results.items():
            self.write_scalar(f"{split}/{name}", value, self.epoch)
        return next(iter(results.values()))

    def _split(self, split: str) -> tuple[str, Any]:
        """The split that is really tested on, and its loader."""
        if split not in ("val", "test"):
            raise ValueError(f"TEST.SPLIT must be one of ('val', 'test'), but got {split!r}")
        if split == "val" and self.val_loader is not None:
            return split, self.val_loader
        if self.test_loader is None:
            raise ValueError(f'The "test" split of dataset {self.cfg.DATASET.NAME!r} has no images to test on')
        return "test", self.test_loader

    # Seeds and checkpoints

    def _choose_run_seed(self) -> int:
        """SEED; if it is negative, the seed of the run that is going to be resumed, or a random one."""
        if self.cfg.SEED >= 0:
            return self.cfg.SEED
        stored = stored_run_seed(self.cfg.RESUME or self.output_dir)
        seed = draw_run_seed() if stored is None else stored
        print(f"Run seed: {seed} ({'random, as SEED is negative' if stored is None else 'as before this resume'})")
        return seed

    def _loaders(self) -> list[SeededLoader]:
        names = ("train_loader_x", "train_loader_u", "val_loader", "test_loader")
        loaders = [getattr(self, name, None) for name in names]
        return [loader for loader in loaders if isinstance(loader, SeededLoader)]

    def _selects_best(self) -> bool:
        choice, allowed = self.cfg.TEST.FINAL_MODEL, ("last_step", "best_val")
        if choice not in allowed:
            raise ValueError(f"TEST.FINAL_MODEL must be one of {allowed}, but got {choice!r}")
        return choice == "best_val" and not self.cfg.TEST.NO_TEST

    def _resume(self) -> int:
        """Resumes from RESUME, or from OUTPUT_DIR; returns the number of epochs done."""
        directory = self.cfg.RESUME or self.output_dir
        done = self.resume_model_if_exist(directory)
        names = self.get_model_names()
        if os.path.realpath(directory) == os.path.realpath(self.output_dir):
            self.rolling.resumed(done, names)
            return done
        if self._selects_best() and self.writes:  # which may stay the best one
            for name in names:
                copy_best(os.path.join(directory, name), os.path.join(self.output_dir, name))
        if (own := max(common_epochs(self.output_dir, names), default=0)) > done:
            print(f"Note: {self.output_dir} holds epoch {own}; to resume from there, leave RESUME empty")
        return done

    def find_checkpoint(self, directory: str, names: list[str], prefer_best: bool = False) -> str:
        """As the base class; prefers the best one also if TEST.FINAL_MODEL does."""
        best = prefer_best or self.cfg.TEST.FINAL_MODEL == "best_val"
        return super().find_checkpoint(directory, names, best)

    def trainer_state(self, epoch: int) -> dict[str, Any]:
        """What the base class saves, the run's seed and best result, and whether the checkpoint may be removed."""
        return {
            **super().trainer_state(epoch),
            "run_seed": self.run_seed,
            "best_result": self.best_result,
            "rolling": not self.rolling.is_kept(epoch, self.max_epoch),
        }

    def load_trainer_state(self, state: dict[str, Any]) -> None:
        """Takes up what `trainer_state` has saved; says if the seed is another one."""
        super().load_trainer_state(state)
        self.best_result = state.get("best_result", self.best_result)
        stored = state.get("run_seed", self.run_seed)
        if stored != self.run_seed:
            print(f"Note: the run so far had the seed {stored}; it continues with {self.run_seed}, as SEED says")


def _with_seed(cfg: CfgNode, seed: int) -> CfgNode:
    """The configuration with this SEED: all that asks for the seed gets the same one."""
    if cfg.SEED == seed:
        return cfg
    cfg = cfg.clone()
    cfg.defrost()
    cfg.SEED = seed
    cfg.freeze()
    return cfg
