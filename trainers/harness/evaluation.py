"""The one evaluation loop of all trainers: batches, several processes, images that cannot be read, and killed runs.

The batches are always the same ones, whatever the number of processes and however often the run was killed: a batch is
computed as a whole, by one process, so that the results are the same to the last bit.
"""

import functools
import sys
from collections.abc import Collection
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm import tqdm
from yacs.config import CfgNode

from tlla.errors import InputError
from tlla.fingerprint import flat_config, key_of
from tlla.metrics import check_finite, classwise_gaps, score
from tlla.records.writer import ImageColumns

from . import distributed
from .batches import GuardedDataset, batch_loader, timed
from .corrupted import KEYS as CORRUPTION_KEYS
from .corrupted import configured_corruption
from .entries import Entry, Meter
from .first_pass import read_first
from .image_test import ImageTest
from .partial_results import PartialResults, added_up

# Keys that change no result, so that a test may go on under other values.
VOLATILE = (
    "OUTPUT_DIR",
    "RESUME",
    "VERBOSE",
    "DATALOADER.NUM_WORKERS",
    "DATASET.ROOT",
    "DATASET.TITLE",
    "TEST.FEATURES",
    "TEST.FRESH",
    "TEST.SAVE_EVERY",
    "TEST.STREAM",  # changes online methods alone, whose records name it among the facts of the test
    "TRAINER.PROMPT.NAME",
    "TRAINER.PROMPT.SOURCE",
    "TRAINER.VIEWS.PROTOCOL",  # but what it sets
)


def add_config(cfg: CfgNode) -> None:
    """Adds the keys of the evaluation loop to TEST."""
    cfg.TEST.SKIP_BAD_IMAGES = False  # True: an image that cannot be read is counted and left out, not an error
    cfg.TEST.SAVE_EVERY = 60.0  # seconds between two savings of a test's results, from which a killed test goes on
    cfg.TEST.FEATURES = ""  # folder where features of views are kept for further tests on the same views; "": nowhere
    cfg.TEST.STREAM = "shuffled"  # order of the images for online methods: see docs/streams.md
    cfg.TEST.FRESH = False  # True (--fresh): such results are not read


class Testable(Protocol):
    """What the loop asks of a trainer."""

    cfg: CfgNode
    device: torch.device
    dm: Any
    record: Any
    num_classes: int
    tester: ImageTest


def evaluate(trainer: Testable, split: str, entries: list[Entry], shared: Meter) -> list[dict[str, float]]:
    """Tests all entries on a split, and records them; returns what each entry's evaluator found, on every process."""
    ordered = any(entry.method and entry.method.online for entry in entries)
    get_state = (lambda: [entry.state() for entry in entries]) if ordered else None
    name = name_of_test(trainer, split, entries, code=trainer.tester.code_key)
    partial = PartialResults(trainer.record.folder, name, trainer.cfg.TEST.SAVE_EVERY, get_state)
    if distributed.is_first():
        if trainer.cfg.TEST.FRESH:
            partial.remove()
        partial.load()
    partial.done, partial.state = distributed.from_first((partial.done, partial.state))
    if ordered and partial.done:
        for entry, state in zip(entries, partial.state, strict=True):
            entry.load_state(state)
    read_first(trainer, split, entries)
    _run_batches(trainer, split, entries, shared, partial)
    return _finish(trainer, split, entries, shared, partial)


def name_of_test(
    trainer: Testable, split: str, entries: list[Entry], without: Collection[str] = (), code: str = ""
) -> str:
    """The split and the fingerprint of all that can change a result, but for the config keys or nodes `without`.

    What a cut test has left needs the same `code`; a finished result does not: then a new method would end them all.
    """
    methods = [entry.method for entry in entries if entry.method]
    off = () if configured_corruption(trainer.cfg) else CORRUPTION_KEYS  # as before there were such keys
    everything = {
        "config": flat_config(trainer.cfg, (*VOLATILE, *off, *without)),
        "parts": [[entry.title, entry.facts] for entry in entries],
        "classes": list(trainer.dm.dataset.classnames),
        "prompts": [method.classifier.identity() for method in methods],
        "seeds": [method.seed for method in methods],
        "images": trainer.tester.images_key(split),
        "code": code,
    }
    return str(distributed.from_first(f"{split}-{key_of(everything)}"))  # others may see other times of the files


def _run_batches(trainer: Testable, split: str, entries: list[Entry], shared: Meter, partial: PartialResults) -> None:
    dataset = GuardedDataset(trainer.tester.dataset(split), trainer.cfg.TEST.SKIP_BAD_IMAGES)
    for entry in entries:
        if entry.method:
            entry.method.n_images = len(dataset)
    order, size = trainer.tester.order(split), trainer.tester.batch_size()
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    missing = [number for number in range(len(batches)) if number not in partial.done]
    before = len(order) - sum(len(batches[number]) for number in missing)
    if before:
        print(f"Resuming after {before:,} of {len(order):,} images, which an earlier process has tested (--fresh: not)")
    elif others := partial.others():
        print(f"{others[0]} is of other settings, images, weights or versions: it is not used")
    own = missing[distributed.rank() :: distributed.world_size()]
    loader = batch_loader(trainer.cfg, trainer.device, dataset, [batches[number] for number in own])
    total = before + sum(len(batches[number]) for number in own)
    often = 0.1 if sys.stderr.isatty() else 30.0  # seconds: in a job's log each state is a line
    silent = not distributed.is_first()
    bar = tqdm(total=total, initial=before, unit="img", desc=split, mininterval=often, disable=silent)
    try:
        for number, (batch, bad) in zip(own, timed(loader, shared, trainer.device), strict=True):
            rows, gaps = _test_batch(trainer, batch, entries, shared, last=number == len(batches) - 1)
            seconds = [meter.lap() for meter in (shared, *(entry.meter for entry in entries))]
            partial.add(number, {"rows": rows, "bad": bad, "seconds": seconds, "sums": gaps})
            bar.update(len(batches[number]))
    except BaseException:
        if not partial.get_state:  # the batch that was cut short may have changed the state
            partial.flush()
        raise
    finally:
        bar.close()
    partial.flush()


Tested = tuple[dict[str, Tensor] | None, Tensor]  # columns of images (B,), None if there are none; `classwise_gaps`


def _test_batch(
    trainer: Testable, batch: dict[str, Tensor] | None, entries: list[Entry], shared: Meter, last: bool
) -> tuple[list[dict[str, Tensor] | None], list[Tensor]]:
    """Each entry's columns, of other images if its method gathers them, and what its classwise ECE needs; [] if none.

    Args:
        trainer: Its tester prepares the batch.
        batch: The images that could be read; None if there are none.
        entries: What is tested.
        shared: Counts the time that all entries share.
        last: Whether no further batch comes.
    """
    label = prepared = None
    if batch:
        with shared:
            label = batch["label"].to(trainer.device, non_blocking=True)
            prepared = trainer.tester.prepare(batch)
    found: list[Tested] = []
    for entry in entries:
        if entry.gathering:
            found.append(_test_gathered(trainer, batch and (batch["index"], label, prepared), entry, last))
        elif batch:
            with entry.meter:
                probability = trainer.tester.probabilities(prepared, entry)
            found.append(_reduce(batch["index"], label, probability, entry))
        else:
            found.append(_nothing(trainer))
    rows, gaps = [columns for columns, _ in found], [own for _, own in found]
    return (rows, gaps) if any(rows) else ([], [])


def _test_gathered(trainer: Testable, images: Any, entry: Entry, last: bool) -> Tested:
    """The results of the groups that a batch of images (index, label, views) completes."""
    tester, gathering = trainer.tester, entry.gathering
    with entry.meter:
        if images:
            features, n = images[2].features(), None if entry.method.uses_views else 1
            pixels = images[2].views if entry.method.needs_images else features[..., :0]
            gathering.add(*images[:2], features[:, :n], pixels[:, :n])
        groups = [(i, own, tester.probabilities(tester.gathered(i, *z), entry)) for i, own, *z in gathering.full(last)]
    if not groups:
        return _nothing(trainer)
    found, gaps = zip(*(_reduce(*group, entry) for group in groups), strict=True)
    return {name: torch.cat([one[name] for one in found]) for name in found[0]}, sum(gaps)


def _reduce(index: Tensor, label: Tensor, probability: Tensor, entry: Entry) -> Tested:
    """What is kept of images (B,) that an entry has just predicted, (B, K)."""
    details = entry.method.details if entry.method else {}
    columns = _to_cpu({"label": label, **score(probability, label), **details})
    check_finite(columns)
    # Cloned, as a loader's memory is pinned on GPUs.
    return {"index": index.clone(), **columns}, classwise_gaps(probability, label)


def _nothing(trainer: Testable) -> Tested:
    none = torch.zeros(0, dtype=torch.int64, device=trainer.device)
    return None, classwise_gaps(torch.zeros(0, trainer.num_classes, device=trainer.device), none)


def _to_cpu(columns: dict[str, Tensor]) -> dict[str, Tensor]:
    """The columns (B,) in one copy, for which a GPU is waited for once: float64 holds any float32 and index exactly."""
    table = torch.stack([values.double() for values in columns.values()]).cpu()
    pairs = zip(columns.items(), table, strict=True)
    return {name: row.to(values.dtype, copy=True) for (name, values), row in pairs}


def _finish(
    trainer: Testable, split: str, entries: list[Entry], shared: Meter, partial: PartialResults
) -> list[dict[str, float]]:
    """Puts the results of all processes and of earlier ones together; the first process records them."""
    done: dict[int, dict[str, Any]] = {}
    for own in distributed.gather(partial.done):
        done |= own
    gaps = functools.reduce(added_up, distributed.gather(partial.sums))
    results = [done[number] for number in sorted(done)]
    for i, meter in enumerate((shared, *(p.meter for p in entries))):
        meter.seconds = sum(result["seconds"][i] for result in results) / distributed.world_size()
    batches = [result["rows"] for result in results if result["rows"]]  # no rows: none of its images could be read
    skipped = [{"index": index, "reason": reason} for result in results for index, reason in result["bad"]]
    if not batches:
        raise InputError(
            f"none of the {len(skipped)} images of the {split} split could be read: {skipped[0]['reason']}"
        )
    if skipped and distributed.is_first():
        print(f"Skipped {len(skipped)} images that cannot be read; results.json lists them")
    found = None
    if distributed.is_first():
        said = trainer.tester.passed(shared, {bad["index"] for bad in skipped})
        for entry in entries:
            entry.facts |= said
        columns = ([rows for rows in own if rows] for own in zip(*batches, strict=True))
        predictions = map(ImageColumns, columns, gaps)  # of each entry
        pairs = zip(entries, predictions, strict=True)
        found = [entry.finish(split, own, shared, trainer.num_classes, skipped) for entry, own in pairs]
        partial.remove()
    return distributed.from_first(found)
