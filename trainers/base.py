"""What all trainers share: a frozen CLIP, its precision, a training if there is one, a test that leaves a record."""

import contextlib
import functools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from dassl.data import DataManager
from dassl.engine import TRAINER_REGISTRY, TrainerX
from torch import Tensor
from yacs.config import CfgNode

from tlla.arguments import one_of
from tlla.clip import encode_images, load_clip
from tlla.errors import InputError
from tlla.fingerprint import tensor_sha256
from tlla.precision import AUTO, PRECISIONS, autocast, choose_precision
from tlla.records.origins import with_classes
from tlla.registry import register
from tlla.streams import Shuffled, parse_stream
from tlla.workers import fit_workers

from .harness import distributed
from .harness.corrupted import configured_corruption, corrupt_test_images
from .harness.describe_run import describe_source, plain, start_record
from .harness.entries import Meter
from .harness.evaluation import evaluate
from .harness.identity import compare_settings, training_identity
from .harness.image_data import ImageDataset
from .harness.image_test import ImageTest
from .harness.input_check import check_input
from .harness.split_guard import SplitFiles, separate_splits
from .prompt_source import said_of_prompt, said_of_template

LOADED = "train_loader_x train_loader_u val_loader test_loader num_classes num_source_domains lab2cname".split()

registered = register(TRAINER_REGISTRY)


class ClipTrainer(TrainerX):
    """Loads CLIP before the data, so that a wrong image size is found at once; test() writes ``results.json``.

    A subclass names its config node in `config_node`, and has `build_model`, `model_inference` and `prompt`. If it
    learns something, it names that in `learned`, and has `forward_backward` and `load_model`.

    Attributes:
        config_node: Of the method's settings: TRAINER.<config_node>.
        kind: What is tested, for the record and the tables: "template", a hand-written prompt; "prompt", a learned one,
            and nothing else, so that a row is named after the prompt's training; "cache"; "views", a test-time method.
        views_name: TRAINER.<views_name> says which views it looks at; "": at none.
        deterministic: Whether no seed changes the result of a test.
        learned: Name of the registered model, and of its folder of checkpoints; "": there is nothing to train.
        training: Name of the training in the tables, if it is not the trainer's own: TLLA trains by SAPT.
        learns_from_images: Whether the training looks at images, which then may not be those of the test.
        free_keys: Keys of the method's node on which what is learned does not depend.
        resumed: After which epochs the settings changed.
        tester: How it is tested.
    """

    config_node = ""
    views_name = ""
    kind = "template"
    deterministic = False
    learned = ""
    learns_from_images = True
    training = ""
    free_keys: tuple[str, ...] = ()
    resumed: Sequence[dict[str, Any]] = ()
    _said = ""  # of what is said once

    @property
    def method_cfg(self) -> CfgNode:
        """The method's own config node, TRAINER.<config_node>."""
        return self.cfg.TRAINER[self.config_node]

    def check_cfg(self, cfg: CfgNode) -> None:
        """Refuses values of the method's node that cannot work."""
        one_of(f"TRAINER.{self.config_node}.PREC", cfg.TRAINER[self.config_node].PREC, PRECISIONS)
        configured_corruption(cfg)
        self.tester = self.make_tester(cfg)
        if parse_stream(cfg.TEST.STREAM) != Shuffled() and not self.tester.online:
            raise InputError(
                f"TEST.STREAM {cfg.TEST.STREAM} orders the images for methods that learn from them, such as TDA, but "
                f"{cfg.TRAINER.NAME} does not: leave it out"
            )

    def make_tester(self, cfg: CfgNode) -> ImageTest:
        """Hook: how it is tested; refuses settings that cannot work."""
        return ImageTest(self)

    def build_data_loader(self) -> None:
        """Loads CLIP, then the data."""
        name = self.cfg.MODEL.BACKBONE.NAME
        print(f"Loading CLIP (backbone: {name})")
        if not name:
            raise InputError("MODEL.BACKBONE.NAME is empty: name a CLIP in the config or by --backbone, e.g. ViT-B/16")
        self.precision = self._choose_precision()
        self.clip_model = load_clip(name, self.device, half=self.precision == "fp16")
        check_input(self.cfg.INPUT, self.clip_model)
        self.dm = DataManager(self.cfg, dataset_wrapper=ImageDataset)
        corrupt_test_images(self.dm, self.cfg)
        for name in LOADED:
            setattr(self, name, getattr(self.dm, name))
        if distributed.world_size() > 1 and self.train_loader_x:
            self.train_loader_x = distributed.share_loader(self.train_loader_x)
        for loader in (self.train_loader_x, self.train_loader_u, self.val_loader, self.test_loader):
            if loader is not None:
                fit_workers(loader)
        self.record = start_record(self.cfg, self.dm.dataset)
        self.record.update(method=self.describe_method(), precision=self.precision)

    def on_shared(self, message: str) -> None:
        """Classes that share one prompt: refused for one's own images, said once of a published dataset."""
        if getattr(self.dm.dataset, "own_names", False):
            raise InputError(f"{message}: rename one, in classnames.txt or in the split file")
        if message != self._said:
            print(f"{self.cfg.DATASET.NAME}: {message}")
        self._said = message

    def describe_method(self) -> dict[str, Any]:
        """What the record says of the method of the test; the tables make rows by it.

        Returns:
            name; kind; settings, of the method alone, by key; views, the settings of the views, None if it sees the
            plain image; deterministic; learns, whether its prompt or cache is learned.
        """
        settings = {key: value for key, value in plain(self.method_cfg).items() if key != "SEED"}
        settings["PREC"] = self.precision
        if "TEMPLATE" in settings:
            settings["TEMPLATE"] = said_of_template(settings["TEMPLATE"]) or self.cfg.DATASET.get("TEMPLATE", "")
        return {
            "name": type(self).__name__,
            "kind": self.kind,
            "settings": {} if self.kind == "prompt" else settings,
            "views": None,
            "deterministic": self.deterministic and not self.tester.draws(),
            "learns": bool(self.learned),
            **self.tester.describe(),
        }

    def _choose_precision(self) -> str:
        wanted = self.method_cfg.PREC
        chosen = choose_precision(wanted, self.device)
        if wanted == AUTO:
            print(f"PREC auto: computing in {chosen}")
        elif wanted != chosen:
            print(f"PREC {wanted} needs a GPU: computing in {chosen} on the CPU")
        return chosen

    def autocast(self) -> contextlib.AbstractContextManager:
        """Mixed precision for PREC amp (fp16) and bf16; otherwise nothing."""
        return autocast(self.precision, self.device)

    def encode_image(self, images: Tensor) -> Tensor:
        """Normalised features in the configured precision, (B, 3, H, W) -> (B, E), float32.

        Only the encoders run in mixed precision: a product of features in fp16 would round the logits to 1/64, which
        is more than the differences of entropy that STSS looks at.
        """
        with torch.no_grad(), self.autocast():
            return encode_images(self.clip_model, images)

    def encode_batch(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Features (B, E) and labels (B,) of a training batch, of which each process has loaded its share."""
        if batch:
            images, labels = (batch[key].to(self.device, non_blocking=True) for key in ("img", "label"))
            features = self.encode_image(images)
        else:  # fewer images than processes
            features = torch.empty(0, self.clip_model.embed_dim, device=self.device)
            labels = torch.empty(0, dtype=torch.long, device=self.device)
        if distributed.world_size() == 1:
            return features, labels
        total = int(distributed.sum_over_processes([labels.new_tensor(len(labels))])[0])
        return distributed.gather_rows(features, total), distributed.gather_rows(labels, total)

    def before_test(self) -> None:
        """Hook: prepares what all batches of a test share."""

    def prompt(self) -> Tensor:
        """What identifies the text side in the record: the context vectors, or the text features of a template."""
        raise NotImplementedError

    def describe_tested(self) -> dict[str, Any]:
        """What the record says of what is tested, beside its results."""
        return {"prompt_sha256": tensor_sha256(self.prompt())}

    @torch.no_grad()
    def test(self, split: str | None = None) -> float:
        """Evaluates a split (default: TEST.SPLIT) and records it.

        Returns:
            The evaluator's first value, of the first entry if there are several: accuracy in %.
        """
        split = split or self.cfg.TEST.SPLIT
        if split == "val" and self.val_loader is None:
            split = "test"
        self.set_model_mode("eval")
        print(f"Evaluate on the *{split}* set")
        if self.device.type == "cuda":
            self.tester.warm_up()
        shared = Meter(self.device)
        with shared:
            self.tester.start()
            entries = self.tester.entries()
        todo = self.tester.unfinished(entries, split)
        found = evaluate(self, split, todo, shared) if todo else []
        for entry, results in zip(todo, found, strict=True):
            for name, value in results.items():
                self.write_scalar("/".join(filter(None, (split, entry.title, name))), value, self.epoch)
        if distributed.is_first():
            self.tester.finish(entries, split)
        if entries[0] not in todo:
            return entries[0].record.content["splits"][split]["accuracy"]
        return next(iter(found[0].values()))

    def save_model(self, *args: Any, **kwargs: Any) -> None:
        """Saves; of several processes the first one does, while the others wait."""
        if self.writes:
            super().save_model(*args, **kwargs)
        distributed.wait()

    def init_writer(self, log_dir: str) -> None:
        """Starts tensorboard's log; only the first of several processes does."""
        if self.writes:
            super().init_writer(log_dir)

    @property
    def writes(self) -> bool:
        """Whether this process writes checkpoints and logs: the first one does."""
        return distributed.is_first()

    def _choose_run_seed(self) -> int:
        """The toolkit's; if it is drawn, then once for all processes."""
        return distributed.from_first(super()._choose_run_seed())

    # Training

    @property
    def epochs(self) -> int:
        """How many a whole training has."""
        return self.cfg.OPTIM.MAX_EPOCH

    @property
    def training_name(self) -> str:
        """Name of the training in the tables."""
        return self.training or type(self).__name__

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """What the training depends on."""
        return training_identity(self)

    @functools.cached_property
    def split_files(self) -> SplitFiles:
        """The image files of all splits, as they were when the training began."""
        return SplitFiles(self.dm.dataset)

    @property
    def chooses_epoch(self) -> bool:
        """Whether the epoch that is best on val is tested."""
        return self.cfg.TEST.FINAL_MODEL == "best_val" and not self.cfg.TEST.NO_TEST

    def train(self) -> None:
        """Trains, unless test images would be learned from or chosen by; tests at once if there is nothing to train."""
        if self.learned:
            separate_splits(self)
            super().train()
            return
        print(f"{type(self).__name__} has nothing to train")
        self.time_start = time.time()
        self.after_train()

    def without_val(self, reason: str) -> None:
        """Hook: there are no val images to choose by.

        Raises:
            InputError: The epoch is to be chosen by them.
        """
        if self.chooses_epoch:
            raise InputError(
                f"TEST.FINAL_MODEL best_val chooses the epoch by val images, but {reason}: set it to last_step"
            )
        if self.dm.dataset.val:
            print(f"Note: {reason}, so that nothing can be chosen by them")

    def resume_model_if_exist(self, directory: str) -> int:
        """Resumes from the newest epoch, if the settings are the same or --resume asks for it."""
        if Path(directory).resolve() != Path(self.output_dir).resolve():
            compare_settings(self, self.output_dir)  # another training's epochs there could be taken for this one's
        self.resumed = compare_settings(self, directory, explicit=bool(self.cfg.RESUME))
        if self.resumed:
            self.record.update(resumed=self.resumed)
        return super().resume_model_if_exist(directory)

    def trainer_state(self, epoch: int) -> dict[str, Any]:
        """Adds to a checkpoint whose it is and what the training depends on (our toolkit asks for it, not Dassl).

        A trainer with a state beside its model, optimizer and schedule adds that here, as tensors and plain values,
        and takes it back in `load_trainer_state`.
        """
        data = with_classes(self.record.content["data"]["name"], self.cfg.DATASET.get("SUBSAMPLE_CLASSES", "all"))
        training = {"name": self.training_name, "dataset": data}
        own = {"training": training, "identity": self.identity, "resumed": list(self.resumed)}
        return {**super().trainer_state(epoch), **own, "seconds": time.time() - self.time_start}

    def load_trainer_state(self, state: dict[str, Any]) -> None:
        """Counts the seconds of the processes before, too."""
        super().load_trainer_state(state)
        if isinstance(seconds := state.get("seconds"), float):
            self.time_start -= seconds

    def after_train(self) -> None:
        """Records the training and its time, then tests."""
        if self.learned:
            training = {"name": self.training_name, "node": self.config_node, "epochs": self.epochs}
            self.record.update(training=training, train_seconds=round(time.time() - self.time_start, 1))
        super().after_train()

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Loads what was learned; here there is nothing."""
        print(f"{type(self).__name__} has nothing to load")

    def note_loaded(self, what: str, path: Path, epoch: int | None, said: Mapping[str, str]) -> None:
        """Prints and records what was loaded, and what the file says of its training."""
        print(f"Loaded the {what} of epoch {epoch} from {path}")
        self.record.update(loaded_from=describe_source(path, epoch, said) | said_of_prompt(self.cfg))
