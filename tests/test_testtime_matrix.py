"""Every kind of trainer on every kind of prompt: its test is killed and resumed, and repeated from its record.

Trainers and methods are those that are registered, so that a new one is covered by itself; what is refused is listed
below. Of methods Compare runs one of each kind, and all that are online, on all prompts.
"""

import importlib
import json
import math
import os
import re
import shutil
from typing import NamedTuple

import pytest
import torch
from benchmark import CLASSES, Workplace
from dassl.engine import TRAINER_REGISTRY
from kinds import EACH, one_of_each_kind

import train
from tlla.backbones import Backbone
from tlla.methods import METHODS

RUNS = ("CoOp", "CoCoOp", "TipAdapter")  # whose results are tested; the others test theirs, too
TEMPLATES = {"own template": "", "ensemble": "imagenet7"}
KINDS = (*TEMPLATES, *RUNS)
CUT_AFTER = 1  # batch of two images, or of six where one view is looked at; there are ten
SMALL = ("OPTIM.MAX_EPOCH", "1", "DATALOADER.TEST.BATCH_SIZE", "2", "TEST.SAVE_EVERY", "0.0", "USE_CUDA", "False")
VIEWS = ("TRAINER.VIEWS.N_VIEWS", "3", "TRAINER.VIEWS.VIEW_BATCH", "6")
VIEWS += ("TRAINER.TLLA.N_VIEWS", "3", "TRAINER.TLLA.TOP_S", "2", "TRAINER.TLLA.VIEW_BATCH", "6")
ONLINE = {name for name, method in METHODS.items() if method.online}  # each has a state of its own to be saved
COMPARED = sorted(ONLINE.union(one_of_each_kind(METHODS)))
ALONE = ("STSS", "DOTA")  # methods whose own trainers are tested here, too: they share one class; DOTA is online
NEEDS_CONTEXT = {name for name, method in METHODS.items() if method.needs_text_encoder}
CONTEXT = {"CoOp", "FPP", "SAPT", "TLLA"}  # trainers of context vectors alone
CACHES = {"TipAdapter", "TipAdapterF"}


def refusal(trainer: str, kind: str) -> str:
    """What the one sentence says where a trainer cannot test a kind of prompt; "" where it can."""
    learns = bool(getattr(TRAINER_REGISTRY.get(trainer), "learned", ""))
    if trainer in NEEDS_CONTEXT and kind == "ensemble":
        return "an ensemble of templates or a template without words"
    if trainer in METHODS and METHODS[trainer].keeps_text and kind == "CoCoOp":
        return f"{trainer} carries class features over from image to image"
    if trainer in CACHES and kind in ("CoOp", "CoCoOp") or trainer not in CACHES and kind == "TipAdapter":
        return "there is no checkpoint"
    if trainer in CONTEXT and kind == "CoCoOp":
        return "meta_net"
    if learns and trainer not in CACHES | CONTEXT and kind == "CoOp":
        return "meta_net"
    return ""


def cases() -> list[tuple[str, str]]:
    """What learns is tested on what was learned, zero-shot CLIP on templates, Compare on all."""
    found = []
    for trainer in EACH:
        kind = TRAINER_REGISTRY.get(trainer)
        learns, takes_runs = bool(getattr(kind, "learned", "")), hasattr(kind, "classifiers")
        kinds = [k for k in KINDS if (k in RUNS if learns else takes_runs or k in TEMPLATES)]
        if trainer in METHODS:
            kinds = [k for k in KINDS if k != "TipAdapter" and refusal(trainer, k)]
            kinds += ["own template"] if trainer in ALONE else []
        found += [(trainer, k) for k in kinds]
    return found


class Found(NamedTuple):
    """How a command ended, what it printed, and the columns of every part's predictions."""

    code: int
    out: str
    error: str
    columns: list[dict[str, torch.Tensor]]


class Bench:
    """A workplace whose CLIP is loaded once, and runs that also give their predictions to the last bit."""

    def __init__(self, place: Workplace):
        self.place = place
        self.module = TRAINER_REGISTRY.get("Compare").__module__.rpartition(".")[0]
        self.clips: dict[str, Backbone] = {}
        self.columns: list[dict[str, torch.Tensor]] = []
        self.stop_after = 0

    def of(self, module: str):
        """A module of the trainers in use: `trainers`, or `tlla.trainers` if another test has imported that first."""
        return importlib.import_module(f"{self.module}.{module}")

    def patch(self, monkeypatch) -> None:
        """Loads one CLIP for all, keeps the columns, asks git for nothing, and stops where it is wanted."""
        base, results = self.of("base"), self.of("harness.describe_run")
        partial = self.of("harness.partial_results").PartialResults
        load, add_split, add = base.load_clip, results.RunRecord.add_split, partial.add

        def loads(name, *args, **kwargs):
            if name not in self.clips:
                self.clips[name] = load(name, *args, **kwargs)
            return self.clips[name]

        def keeps(record, split, predictions, *args, **kwargs):
            self.columns.append(predictions.columns)
            add_split(record, split, predictions, *args, **kwargs)

        def stops(own, number, result):
            add(own, number, result)
            if len(own.done) == self.stop_after:
                raise KeyboardInterrupt

        monkeypatch.setattr(base, "load_clip", loads)
        monkeypatch.setattr(results.RunRecord, "add_split", keeps)
        monkeypatch.setattr(results, "git_commit", lambda: None)
        monkeypatch.setattr(partial, "add", stops)

    def argv(self, trainer: str, kind: str, output: str, seed: int = 1, methods=COMPARED) -> list[str]:
        """The command that tests a kind of prompt."""
        source = "TipAdapterF" if (trainer, kind) == ("TipAdapterF", "TipAdapter") else kind
        flags = ["--eval-only", "--model-dir", str(self.place.folder / source)] if kind in RUNS else []
        if kind == "ensemble":
            node = "ZSCLIP" if trainer == "ZeroshotCLIP" else "PROMPT"
            flags += [f"TRAINER.{node}.TEMPLATE", TEMPLATES[kind]]
        methods = [name for name in methods if not refusal(name, kind)]
        argv = self.place.argv(trainer, output, *flags, *SMALL, *VIEWS, "TRAINER.COMPARE.METHODS", str(methods))
        argv[argv.index("--seed") + 1] = str(seed)
        return argv

    def run(self, capfd, argv: list[str], stop_after: int = 0) -> Found:
        """Runs, perhaps to be killed after so many batches."""
        self.columns, self.stop_after = [], stop_after
        capfd.readouterr()
        code = train.main(argv)
        out, err = capfd.readouterr()
        errors = [line for line in err.splitlines() if line.startswith("error: ")]
        return Found(code, out, "\n".join(errors), self.columns)


def same(first: Found, second: Found) -> bool:
    """Whether all predictions are equal to the last bit."""
    return len(first.columns) == len(second.columns) > 0 and all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
        for a, b in zip(first.columns, second.columns, strict=True)
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Bench:
    """One run of each trainer whose results are tested."""
    place = Workplace(tmp_path_factory.mktemp("matrix"), CLASSES[:2])
    weights = torch.load(place.folder / "clip.pt")
    weights["logit_scale"].fill_(math.log(20))  # at 100 all probabilities are 0 or 1, and equal whatever is mixed up
    torch.save(weights, place.folder / "clip.pt")
    bench = Bench(place)
    with pytest.MonkeyPatch.context() as patch:
        bench.patch(patch)
        for trainer in (*RUNS, "TipAdapterF"):
            place.run(trainer, trainer, *SMALL, *VIEWS)
    return bench


@pytest.fixture
def bench(trained, monkeypatch) -> Bench:
    trained.patch(monkeypatch)
    return trained


def first_kind(trainer: str) -> str:
    """The first kind of prompt that a trainer can test."""
    return next(kind for name, kind in cases() if name == trainer and not refusal(name, kind))


@pytest.mark.parametrize(("trainer", "kind"), cases(), ids=lambda text: text.replace(" ", "_"))
def test_a_prompt_is_tested_or_refused_in_a_sentence(bench, capfd, trainer, kind):
    """Of the first kind, and of class features that differ by image, also repeated with the seed that was drawn: killed
    and resumed to the same bits."""
    output = f"{trainer}-{kind}-whole"
    whole = bench.run(capfd, bench.argv(trainer, kind, output, seed=-1))
    if expected := refusal(trainer, kind):
        assert whole.code == 2 and expected in whole.error and "\n" not in whole.error
        return
    assert whole.code == 0
    if kind not in (first_kind(trainer), "CoCoOp"):
        return
    seed = json.loads((bench.place.folder / output / "results.json").read_text())["seed"]
    argv = bench.argv(trainer, kind, f"{trainer}-{kind}-cut", seed)
    assert bench.run(capfd, argv, CUT_AFTER).code == 130
    resumed = bench.run(capfd, argv)
    assert seed >= 0 and resumed.code == 0 and re.search("Resuming after [26] of 10 images", resumed.out)
    assert same(resumed, whole)
    assert not (bench.place.folder / f"{trainer}-{kind}-cut/shards").exists()


@pytest.mark.parametrize("trainer", ("ZeroshotCLIP", "Compare"))  # by one view and by several
def test_a_cut_test_does_not_go_on_when_an_image_was_replaced_under_its_name(bench, capfd, trainer):
    kind, methods = first_kind(trainer), ("ZERO", "TDA")
    whole = bench.run(capfd, bench.argv(trainer, kind, f"{trainer}-before", methods=methods))
    argv = bench.argv(trainer, kind, f"{trainer}-replaced", methods=methods)
    assert bench.run(capfd, argv, CUT_AFTER).code == 130
    shutil.copytree(bench.place.folder / f"{trainer}-replaced", bench.place.folder / f"{trainer}-back")
    images = sorted((bench.place.folder / "data/emoji/noto/test").rglob("*.png"))
    kept = [(path, path.read_bytes(), path.stat().st_mtime_ns) for path in images]
    for path, (_, content, _) in zip(images, reversed(kept), strict=True):  # the classes change places
        path.write_bytes(content)
    replaced = bench.run(capfd, argv)
    for path, content, changed in kept:
        path.write_bytes(content)
        os.utime(path, ns=(changed, changed))
    assert replaced.code == 0 and "Resuming" not in replaced.out
    assert "is of other settings, images, weights or versions: it is not used" in replaced.out
    back = bench.run(
        capfd, bench.argv(trainer, kind, f"{trainer}-back", methods=methods)
    )  # what was cut before was kept
    assert "Resuming" in back.out and same(back, whole)
