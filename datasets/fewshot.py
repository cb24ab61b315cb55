"""Few-shot draws: the published ones for a seed, kept as JSON beside the data."""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .items import Item
from .listing import store_text
from .splits import Parts, by_label

VAL_SHOTS = 4  # CoOp draws at most this many a class for validation


def draw_shots(parts: Parts, shots: int, seed: int) -> Parts:
    """Draws `shots` items of each class for training, and at most 4 for validation.

    A seed of 0 or more has its own generator, started as `set_random_seed` starts Python's global one: the draws are
    the published ones, whatever was drawn before. A negative seed draws from the global generator.

    Args:
        parts: Items by part, drawn from in this order: train, then val.
        shots: Items a class; a class that has fewer gives all.
        seed: cfg.SEED.
    """
    rng = random.Random(seed) if seed >= 0 else random
    return {
        part: _draw(items, shots if part == "train" else min(shots, VAL_SHOTS), rng) for part, items in parts.items()
    }


def _draw(items: list[Item], shots: int, rng: Any) -> list[Item]:
    return [
        item
        for members in by_label(items).values()  # in order of first appearance: the published draws depend on it
        for item in (rng.sample(members, shots) if len(members) >= shots else members)
    ]


class DrawFile:
    """A draw on disk: `split_fewshot/shot_<n>-seed_<s>.json`, with paths relative to the data root.

    Args:
        folder: The dataset's folder.
        prefix: Where the items' paths begin, relative to the data root.
        key: What the draw depends on; a file with another key is stale.
    """

    def __init__(self, folder: str, prefix: str, key: dict[str, Any]):
        self.path = Path(folder) / "split_fewshot" / f"shot_{key['shots']}-seed_{key['seed']}.json"
        self.prefix = "" if prefix in ("", ".") else prefix.replace(os.sep, "/") + "/"
        self.key = key

    def load_or_draw(self, names: Callable[[], dict[int, str]], read: Callable[[], Parts]) -> Parts:
        """The stored draw if it is of this split, else a new one, which is stored.

        Args:
            names: Gives label -> class name.
            read: Gives the whole parts.
        """
        shots, seed = self.key["shots"], self.key["seed"]
        if seed >= 0 and (stored := self._load()):
            named = names()
            if all(label in named for rows in stored.values() for _, label in rows):
                print(f"Using the {shots}-shot draw in {self.path}")
                return {part: [Item(p, label, named[label]) for p, label in rows] for part, rows in stored.items()}
        print(f"Drawing {shots} shots a class (seed {seed})")
        parts = draw_shots(read(), shots, seed)
        if seed >= 0:  # a random draw must not be frozen under the name of a seed
            self._store(parts)
        return parts

    def _load(self) -> dict[str, list[tuple[str, int]]] | None:
        if not self.path.is_file():
            return None
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            if {k: content[k] for k in self.key} != self.key:
                print(f"{self.path} was drawn from another split or listing: drawing again")
                return None
            return {part: [(self._inside(p), int(y)) for p, y in content[part]] for part in content["parts"]}
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            print(f"{self.path} is not a stored draw ({type(error).__name__}: {error}): drawing again")
            return None

    def _inside(self, path: str) -> str:
        if not path.startswith(self.prefix):
            raise ValueError(f"{path} is not below {self.prefix}")
        return path[len(self.prefix) :]

    def _store(self, parts: Parts) -> None:
        rows = {part: [(self.prefix + i.path, i.label) for i in items] for part, items in parts.items()}
        text = json.dumps({**self.key, "parts": list(parts), **rows}, indent=0)
        if store_text(self.path, text + "\n", "the draw"):
            print(f"Stored the draw in {self.path}")
