r"""Compare: several test-time methods, on several prompts, over one pass of the image encoder.

    python train.py --trainer Compare --dataset-config-file configs/datasets/emoji.yaml \
        --config-file configs/trainers/Compare/emoji.yaml --output-dir output/compare \
        TRAINER.COMPARE.METHODS "['SingleView', 'ZERO', 'STSS']" \
        TRAINER.COMPARE.PROMPTS "['CoOp=output/coop']" TRAINER.COMPARE.RULES "['entropy', 'stss', 'oracle']"

Every method leaves a record of its own, <output>/<prompt>/<method>/results.json, under another rule than its own
<output>/<prompt>/<method>+<rule>/results.json; the table is printed and written to
table.md and table.csv; <output>/results.json, written last, lists the entries. The same command with more methods or
prompts keeps the entries that are there and adds the others. Seconds per image are those that the
method would need alone: its share of loading, making and encoding the views, plus its own work.
"""

import copy
from collections import Counter
from pathlib import Path
from typing import Any

from tabulate import tabulate
from yacs.config import CfgNode

from tlla.errors import InputError, nearest
from tlla.files import to_csv, write_text
from tlla.fingerprint import flat_config
from tlla.methods import METHODS, Method
from tlla.prompts.classifier import Classifier
from tlla.prompts.descriptions import is_descriptions
from tlla.prompts.templates import ENSEMBLES
from tlla.records.record import ECE_BINS, said_of_corruption
from tlla.records.store import peek, predictions_file
from tlla.rules import parse_rule
from tlla.streams import Shuffled

from .base import registered
from .harness import distributed
from .harness.entries import Entry
from .harness.evaluation import VOLATILE, name_of_test
from .harness.view_test import ViewTest
from .testtime import TestTimeTrainer

COLUMNS = (  # of the table: heading, key of the record, format
    ("top-1 %", "accuracy", ".1f"),
    ("top-5 %", "top5", ".1f"),
    ("macro F1 %", "macro_f1", ".1f"),
    ("NLL", "nll", ".3f"),
    (f"ECE % ({ECE_BINS} bins)", "ece", ".1f"),
    ("Brier", "brier", ".3f"),
    ("s/image", "seconds_per_image", ".4f"),
    ("of it own", "method_seconds_per_image", ".4f"),
    ("peak MB", "peak_memory_mb", ".0f"),
)
IN_CSV = (*(key for _, key, _ in COLUMNS), "adaptive_ece", "classwise_ece", "aurc")

CORRUPTED = "The test images are corrupted: {corruption}."
COMPOSED = "Stream {stream}, composed by labels: the true classes ordered the images, for the methods that say so."
READ_FIRST = "Read the test set first: it is not a method for images that come one by one."
USED_LABELS = "Used labels: the views were chosen by the true classes, which no prediction knows."


def add_config(cfg: CfgNode) -> None:
    """Adds TRAINER.COMPARE."""
    cfg.TRAINER.COMPARE = CfgNode()
    cfg.TRAINER.COMPARE.METHODS = ()  # names of methods; (): all
    cfg.TRAINER.COMPARE.RULES = ()  # each method that chooses views under each of these rules; (): under its own
    cfg.TRAINER.COMPARE.PROMPTS = ()  # "name=source": a run, a template, an ensemble, a .json; (): as for one method


class CompareTest(ViewTest):
    """Every entry has a record of its own, and is kept if it was tested before."""

    def entry(self, prompt: str, classifier: Classifier, method: Method) -> Entry:
        """One method with one prompt, and its record."""
        entry, trainer = super().entry(prompt, classifier, method), self.trainer
        content: dict[str, Any] = {"trainer": type(method).__name__, "prompt": prompt}
        described = {key: value for key, value in trainer.describe_method().items() if key != "rule"}
        content["method"] = described | self.describe_one(method)
        if prompt in trainer.templates:
            content["method"]["template"] = trainer.templates[prompt]
        if prompt in trainer.loaded:
            content["loaded_from"] = trainer.loaded[prompt]
        entry.record = trainer.record.entry(trainer.record.folder / prompt / method.title, **content)
        entry.evaluator = copy.copy(trainer.evaluator)
        entry.evaluator.reset()
        entry.title = f"{prompt} {method.title}"
        entry.share = 1.0 if method.uses_views else 1 / self.config.n_views
        return entry

    def unfinished(self, entries: list[Entry], split: str) -> list[Entry]:
        """Without those whose records are there already, of the same settings; they are taken as they are."""
        for entry in entries:
            entry.facts["fingerprint"] = name_of_test(self.trainer, split, [entry], self._without(entry))
        kept = {} if self.trainer.cfg.TEST.FRESH else {entry.title: self._record(entry, split) for entry in entries}
        kept = {title: content for title, content in distributed.from_first(kept).items() if content}
        for entry in entries:
            entry.record.content = kept.get(entry.title, entry.record.content)
        if kept:
            print(f"Tested before, and kept (--fresh: not): {', '.join(kept)}")
        return [entry for entry in entries if entry.title not in kept]

    def _without(self, entry: Entry) -> list[str]:
        """What in the config changes nothing for an entry: other methods' nodes, and the rule, which its title has."""
        node = entry.record.content["trainer"].upper()
        own = ("NAME", self.trainer.config_node, self.trainer.views_name, node)
        others = [f"TRAINER.{name}" for name in self.trainer.cfg.TRAINER if name not in own]
        return [*others, f"TRAINER.{node}.RULE"]

    def _record(self, entry: Entry, split: str) -> dict[str, Any]:
        """What an earlier process has recorded of the same test; empty if there is nothing, or of other settings."""
        folder, here = entry.record.folder, entry.record.content
        try:
            there = peek(folder) or {}
            row = there["splits"][split]
            if "fingerprint" in row:
                same = row["fingerprint"] == entry.facts["fingerprint"]
            else:
                without = (*VOLATILE, *self._without(entry))
                younger, older = (flat_config(content["config"], without) for content in (here, there))
                keys = ("trainer", "prompt", "split_sha256", "versions")
                same = {**younger, **older} == younger and all(there[key] == here[key] for key in keys)
                same = same and row["prompt_sha256"] == entry.facts["prompt_sha256"] and not self.draws(split)
                if same:
                    print(
                        f"Note: {folder} does not say with which weights it was tested; they are taken to be the same"
                    )
        except (KeyError, TypeError, AttributeError):
            return {}
        return there if same and predictions_file(folder, split).is_file() else {}

    def _note(self, method: Method) -> str:
        """What a row says beside the method: what no prediction of single images knows, and another stream."""
        other = method.online and self.stream != Shuffled()
        marks = " (used labels)" * method.uses_labels + " (read the test set first)" * method.reads_first
        return marks + f" (stream {self.stream})" * other

    def finish(self, entries: list[Entry], split: str) -> None:
        """Prints the table and writes it, and with full precision table.csv."""
        found = [entry.record.content["splits"][split] for entry in entries]
        pairs = [(entry.record.content["prompt"], entry.method) for entry in entries]
        names = [(prompt, method.title) for prompt, method in pairs]
        shown = [(prompt, method.title + self._note(method)) for prompt, method in pairs]
        cells = [[format(row.get(key, float("nan")), form) for _, key, form in COLUMNS] for row in found]
        rows = [[*(x.replace("|", "\\|") for x in name), *row] for name, row in zip(shown, cells, strict=True)]
        headers = ["prompt", "method", *(heading for heading, _, _ in COLUMNS)]
        table = tabulate(rows, headers, tablefmt="github", disable_numparse=True, colalign=("left", "left"))
        if corruption := said_of_corruption(self.trainer.record.content["data"]):
            table += f"\n\n{CORRUPTED.format(corruption=corruption)}"
        if any(method.uses_labels for _, method in pairs):
            table += f"\n\n{USED_LABELS}"
        if self.online and self.stream.composed_by_labels:
            table += f"\n\n{COMPOSED.format(stream=self.stream)}"
        if any(method.reads_first for _, method in pairs):
            table += f"\n\n{READ_FIRST}"
        print(f"\n{table}")
        write_text(self.trainer.record.folder / "table.md", table + "\n")
        values = [[*name, *map(row.get, IN_CSV)] for name, row in zip(shown, found, strict=True)]
        write_text(self.trainer.record.folder / "table.csv", to_csv([["prompt", "method", *IN_CSV], *values]))
        self.trainer.record.content["splits"][split] = {"total": found[0]["total"], "parts": names}
        self.trainer.record.write()


@registered
class Compare(TestTimeTrainer):
    """Tests every method with every prompt on the same views of the same images."""

    def make_tester(self, cfg: CfgNode) -> CompareTest:
        """TRAINER.COMPARE.METHODS, or all methods."""
        names = list(cfg.TRAINER.COMPARE.METHODS) or list(METHODS)
        for name in names:
            if name not in METHODS:
                raise InputError(
                    f"TRAINER.COMPARE.METHODS has {name!r}, which is no method: {nearest(str(name), [*METHODS])}"
                )
        rules = list(cfg.TRAINER.COMPARE.RULES)
        built = [parse_rule(rule, key="TRAINER.COMPARE.RULES") for rule in rules]
        if twice := [rule for rule, count in Counter(built).items() if count > 1]:
            raise InputError(f"TRAINER.COMPARE.RULES has the rule {twice[0]} twice: leave one out")
        if rules and not any(METHODS[name]().chooses_views for name in names):
            raise InputError(
                f"TRAINER.COMPARE.RULES is {rules}, but none of TRAINER.COMPARE.METHODS ({', '.join(names)}) chooses "
                "views: add one that does, such as STSS"
            )
        nodes = {name: name.upper() for name in names}
        return CompareTest(self, cfg, self.views_name, nodes, self.classifiers, rules)

    def describe_method(self) -> dict[str, Any]:
        """Of the whole; its entries have their own."""
        return super().describe_method() | {"name": "Compare", "settings": {}}

    def classifiers(self) -> dict[str, Classifier]:
        """TRAINER.COMPARE.PROMPTS, or the one prompt of --model-dir or TRAINER.PROMPT."""
        prompts = list(map(str, self.cfg.TRAINER.COMPARE.PROMPTS))
        self.templates: dict[str, str] = {}  # by prompt, for the records of its entries
        self.loaded: dict[str, dict[str, Any]] = {}
        name, count = Counter(entry.partition("=")[0] for entry in prompts).most_common(1)[0] if prompts else ("", 0)
        if count > 1:
            raise InputError(f"TRAINER.COMPARE.PROMPTS has more than one prompt named {name!r}: rename one")
        return {entry.partition("=")[0]: self._classifier(entry) for entry in prompts} or super().classifiers()

    def _classifier(self, entry: str) -> Classifier:
        name, equals, source = entry.partition("=")
        if not equals or not name or name in (".", "..") or set("/\0") & set(name):
            raise InputError(
                f"TRAINER.COMPARE.PROMPTS has the entry {entry!r}: write name=source, e.g. CoOp=output/coop/seed1"
            )
        if not source or "{}" in source or source in ENSEMBLES or is_descriptions(source):
            self.templates[name] = self.template_name(source)
            return self.of_template(source)
        if not Path(source).is_dir():
            raise InputError(
                f"TRAINER.COMPARE.PROMPTS has the entry {entry!r}, but there is no folder {source}, and it is no "
                f"template with {{}}, no ensemble ({', '.join(ENSEMBLES)}) and no .json file of class descriptions"
            )
        classifier, self.loaded[name] = self.of_run(source)
        return classifier
