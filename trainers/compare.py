r"""Compare: several test-time methods, on several prompts, over one pass of the image encoder.

    python train.py --trainer Compare --dataset-config-file configs/datasets/emoji.yaml \
        --config-file configs/trainers/Compare/emoji.yaml --output-dir output/compare \
        TRAINER.COMPARE.METHODS "['SingleView', 'ZERO', 'STSS']" \
        TRAINER.COMPARE.PROMPTS "['CoOp=output/coop']"

Every method leaves a record of its own, <output>/<prompt>/<method>/results.json; the table is printed and written to
table.md and table.csv; <output>/results.json, written last, lists the parts. The same command with more methods or
prompts keeps the parts that are there and adds the others. Seconds per image are those that the
method would need alone: its share of loading, making and encoding the views, plus its own work.
"""

import copy
from collections import Counter
from pathlib import Path
from typing import Any

from tabulate import tabulate
from yacs.config import CfgNode

from report.tables.render import escaped
from tlla.errors import InputError, nearest
from tlla.files import to_csv, write_text
from tlla.fingerprint import flat_config
from tlla.methods import METHODS, Method
from tlla.prompts.classifier import Classifier
from tlla.prompts.templates import ENSEMBLES
from tlla.records.store import peek, predictions_file

from .base import registered
from .harness import distributed
from .harness.entries import Part
from .harness.evaluation import VOLATILE, name_of_test
from .testtime import TestTimeTrainer

COLUMNS = (  # of the table: heading, key of the record, format
    ("top-1 %", "accuracy", ".1f"),
    ("top-5 %", "top5", ".1f"),
    ("macro F1 %", "macro_f1", ".1f"),
    ("NLL", "nll", ".3f"),
    ("ECE %", "ece", ".1f"),
    ("Brier", "brier", ".3f"),
    ("s/image", "seconds_per_image", ".4f"),
    ("of it own", "method_seconds_per_image", ".4f"),
    ("peak MB", "peak_memory_mb", ".0f"),
)


def add_config(cfg: CfgNode) -> None:
    """Adds TRAINER.COMPARE."""
    cfg.TRAINER.COMPARE = CfgNode()
    cfg.TRAINER.COMPARE.METHODS = ()  # names of methods; (): all
    cfg.TRAINER.COMPARE.PROMPTS = ()  # "name=source": a run's folder, a template, or an ensemble; (): as for one method


@registered
class Compare(TestTimeTrainer):
    """Tests every method with every prompt on the same views of the same images."""

    def method_names(self, cfg: CfgNode) -> list[str]:
        """TRAINER.COMPARE.METHODS, or all."""
        names = list(cfg.TRAINER.COMPARE.METHODS) or list(METHODS)
        for name in names:
            if name not in METHODS:
                raise InputError(
                    f"TRAINER.COMPARE.METHODS has {name!r}, which is no method: {nearest(str(name), [*METHODS])}"
                )
        return names

    def describe_method(self) -> dict[str, Any]:
        """Of the whole; its parts have their own."""
        return super().describe_method() | {"name": "Compare", "settings": {}}

    def classifiers(self) -> dict[str, Classifier]:
        """TRAINER.COMPARE.PROMPTS, or the one prompt of --model-dir or TRAINER.PROMPT."""
        prompts = list(map(str, self.cfg.TRAINER.COMPARE.PROMPTS))
        self.templates: dict[str, str] = {}  # by prompt, for the records of its parts
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
        if not source or "{}" in source or source in ENSEMBLES:
            self.templates[name] = self.template_name(source)
            return self.reader.template(source)
        if not Path(source).is_dir():
            raise InputError(
                f"TRAINER.COMPARE.PROMPTS has the entry {entry!r}, but there is no folder {source}, and it is no "
                f"template with {{}} and no ensemble ({', '.join(ENSEMBLES)})"
            )
        classifier, self.loaded[name] = self.reader.run(source)
        return classifier

    def _part(self, prompt: str, classifier: Classifier, name: str, method: Method) -> Part:
        part = super()._part(prompt, classifier, name, method)
        entries = {"trainer": name, "prompt": prompt}
        entries["method"] = self.describe_method() | self.describe_views(name, method)
        if prompt in self.templates:
            entries["method"]["template"] = self.templates[prompt]
        if prompt in self.loaded:
            entries["loaded_from"] = self.loaded[prompt]
        part.record = self.record.part(self.record.folder / prompt / name, **entries)
        part.evaluator = copy.copy(self.evaluator)
        part.evaluator.reset()
        part.title = f"{prompt} {name}"
        part.share = 1.0 if method.uses_views else 1 / self.view_config.n_views
        return part

    def unfinished(self, parts: list[Part], split: str) -> list[Part]:
        """Without those whose records are there already, of the same settings; they are taken as they are."""
        for part in parts:
            part.entries["fingerprint"] = name_of_test(self, split, [part], self._without(part))
        kept = {} if self.cfg.TEST.FRESH else {part.title: self._record(part, split) for part in parts}
        kept = {title: content for title, content in distributed.from_first(kept).items() if content}
        for part in parts:
            part.record.content = kept.get(part.title, part.record.content)
        if kept:
            print(f"Tested before, and kept (--fresh: not): {', '.join(kept)}")
        return [part for part in parts if part.title not in kept]

    def _without(self, part: Part) -> list[str]:
        """Config nodes that change nothing for a part: those of all other methods and trainers."""
        own = ("NAME", self.config_node, self.views_name, part.record.content["trainer"].upper())
        return [f"TRAINER.{name}" for name in self.cfg.TRAINER if name not in own]

    def _record(self, part: Part, split: str) -> dict[str, Any]:
        """What an earlier process has recorded of the same test; empty if there is nothing, or of other settings."""
        folder, here = part.record.folder, part.record.content
        try:
            there = peek(folder) or {}
            row = there["splits"][split]
            if "fingerprint" in row:
                same = row["fingerprint"] == part.entries["fingerprint"]
            else:
                without = (*VOLATILE, *self._without(part))
                younger, older = (flat_config(content["config"], without) for content in (here, there))
                keys = ("trainer", "prompt", "split_sha256", "versions")
                same = {**younger, **older} == younger and all(there[key] == here[key] for key in keys)
                same = same and row["prompt_sha256"] == part.entries["prompt_sha256"]
                if same:
                    print(
                        f"Note: {folder} does not say with which weights it was tested; they are taken to be the same"
                    )
        except (KeyError, TypeError, AttributeError):
            return {}
        return there if same and predictions_file(folder, split).is_file() else {}

    def after_test(self, parts: list[Part], split: str) -> None:
        """Prints the table and writes it, and with full precision table.csv."""
        found = [part.record.content["splits"][split] for part in parts]
        names = [(part.record.content["prompt"], part.record.content["trainer"]) for part in parts]
        cells = [[format(row.get(key, float("nan")), form) for _, key, form in COLUMNS] for row in found]
        rows = [[*(escaped(x, "markdown") for x in name), *row] for name, row in zip(names, cells, strict=True)]
        headers = ["prompt", "method", *(heading for heading, _, _ in COLUMNS)]
        table = tabulate(rows, headers, tablefmt="github", disable_numparse=True, colalign=("left", "left"))
        print(f"\n{table}")
        write_text(self.record.folder / "table.md", table + "\n")
        keys = [key for _, key, _ in COLUMNS]
        values = [[*name, *map(row.get, keys)] for name, row in zip(names, found, strict=True)]
        write_text(self.record.folder / "table.csv", to_csv([["prompt", "method", *keys], *values]))
        self.record.content["splits"][split] = {"total": found[0]["total"], "parts": names}
        self.record.write()
