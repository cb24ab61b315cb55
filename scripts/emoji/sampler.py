"""Draws pre-training batches from the corpus: pictures, captions that are true and false of them, and banks."""

import random
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from . import corpus
from .captions import TEMPLATES, fill, scene_template, with_article
from .pictures import ATTRIBUTES, NONE, UNKNOWN, WORDS, backgrounds, compose_pictures, cut_out, normalize_pixels

N_COMPANIONS = 4  # categories of a batch's companions: few, so that several pictures share one
COUNTERED = 0.35  # share of the captions with claims that a false twin accompanies


@dataclass
class Bank:
    """Phrases of all categories under one or several contexts: who takes part, the right text, and texts left out."""

    texts: list[str]
    images: Tensor  # (M,) numbers of pictures
    target: Tensor  # (M,) number of the true text
    ignored: Tensor  # (M, T) bool: true, too, or not known to be false


@dataclass
class CaptionedBatch:
    """Pictures (B, 3, H, W), U texts, each picture's own text (B,), texts that are no negatives (B, U), banks."""

    images: Tensor
    texts: list[str]
    own: Tensor
    ignored: Tensor
    banks: list[Bank]


@dataclass
class Caption:
    """A text, the numbers of the category or label it names, and what it claims (A,)."""

    text: str
    category: int
    label: int
    claims: Tensor


class Sampler:
    """Draws batches."""

    def __init__(self, images: np.ndarray, items: list[corpus.CorpusItem], seed: int) -> None:
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        self.outside = torch.cat([backgrounds(part) for part in self.images.split(2048)])
        spread = [part.amax(1).float() - part.amin(1).float() for part in self.images.split(2048)]
        self.mono = torch.cat([s.mean((1, 2)) for s in spread]) < 3
        self.items = items
        self.rng = random.Random(seed)
        self.weights = torch.from_numpy(corpus.sampling_weights(items))
        self.categories = sorted({i.category for i in items if i.category})
        number = {c: k for k, c in enumerate(self.categories)}
        self.category = torch.tensor([number.get(i.category, NONE) for i in items])
        self.labels = sorted({i.label for i in items})
        labels = {label: k for k, label in enumerate(self.labels)}
        self.label = torch.tensor([labels[i.label] for i in items])

    def draw(self, size: int) -> CaptionedBatch:
        """A batch of `size` pictures."""
        index = torch.multinomial(self.weights, size)
        companion = self._companions(size)
        has_companion = torch.rand(size) < 0.2
        drawn = (index, companion[has_companion])
        main, second = (cut_out(self.images[i], self.outside[i], self.mono[i]) for i in drawn)
        pictures, values = compose_pictures(main, second, has_companion)
        values[has_companion, ATTRIBUTES["companion"]] = self.label[companion][has_companion]
        values[has_companion, ATTRIBUTES["companion category"]] = self.category[companion][has_companion]
        own, false = self._captions(index, values)
        table = {c.text: c for c in (*own, *false)}
        number = {text: k for k, text in enumerate(table)}
        own_number = torch.tensor([number[c.text] for c in own])
        ignored = self._not_false(index, values, list(table.values()))
        ignored[torch.arange(size), own_number] = False
        banks = [self._plain_bank(index, values), self._claiming_bank(index, values)]
        return CaptionedBatch(
            normalize_pixels(pictures), list(table), own_number, ignored, [b for b in banks if len(b.images)]
        )

    def _companions(self, size: int) -> Tensor:
        pool = torch.multinomial(self.weights, min(400, len(self.weights)))
        known = [c for c in self.category[pool].unique().tolist() if c >= 0]
        chosen = torch.tensor(self.rng.sample(known, min(N_COMPANIONS, len(known))))
        pool = pool[torch.isin(self.category[pool], chosen)]
        return pool[torch.randint(len(pool), (size,))]

    def word(self, attribute: str, value: int) -> str:
        """What a caption writes for a value."""
        if attribute == "companion":
            return self.labels[value]
        return self.categories[value] if attribute == "companion category" else WORDS[attribute][value]

    def _captions(self, index: Tensor, values: Tensor) -> tuple[list[Caption], list[Caption]]:
        """A true caption of each picture, and for some a twin that is false in one claim."""
        rng, own, false = self.rng, [], []
        companions = values[values[:, ATTRIBUTES["companion"]] >= 0]
        for i, value in zip(index.tolist(), values, strict=True):
            item = self.items[i]
            general = bool(item.category) and rng.random() < 0.45
            name = item.category if general else item.label
            about = (self.category[i].item() if general else NONE, NONE if general else self.label[i].item())
            claims = self._choose_claims(value)
            if not claims:
                text = self._plain_caption(item, name, general)
                own.append(Caption(text, *about, torch.full_like(value, UNKNOWN)))
                continue
            own.append(self._claiming(name, about, claims, seed := rng.random()))
            if rng.random() < COUNTERED and (wrong := self._counter(claims, companions)):
                false.append(self._claiming(name, about, wrong, seed))
        return own, false

    def _plain_caption(self, item: corpus.CorpusItem, name: str, general: bool) -> str:
        draw = self.rng.random()
        if item.category and not general and draw < 0.3:
            return f"{with_article(item.label)}, a kind of {item.category}."
        if item.tags and not general and draw < 0.45:
            tags = self.rng.sample(item.tags, min(len(item.tags), self.rng.randint(1, 3)))
            return "an icon of " + ", ".join(tags)
        return fill(self.rng.choice(TEMPLATES), name)

    def _choose_claims(self, value: Tensor) -> dict[str, int]:
        """Some of what is known of a picture: nothing for four pictures in ten, else one to three things."""
        if self.rng.random() < 0.4:
            return {}
        known = {name: v for name, v in zip(WORDS, value.tolist(), strict=True) if v >= 0}
        if "companion" in known:
            known.pop(self.rng.choice(("companion", "companion category")))
        if known["number"] == 0 and self.rng.random() < 0.6:
            known.pop("number")
        names = self.rng.sample(sorted(known), min(len(known), self.rng.choice((1, 1, 2, 3))))
        if self.rng.random() < 0.6:  # companions bring all the nouns into contexts
            names += [k for k in known if k.startswith("companion") and k not in names]
        return {name: known[name] for name in names}

    def _counter(self, claims: dict[str, int], companions: Tensor) -> dict[str, int] | None:
        """The same claims but one."""
        name = self.rng.choice(sorted(claims))
        if name.startswith("companion"):
            others = [v for v in companions[:, ATTRIBUTES[name]].tolist() if v != claims[name]]
        else:
            others = [v for v in range(len(WORDS[name])) if v != claims[name]]
        return claims | {name: self.rng.choice(others)} if others else None

    def _claiming(self, name: str, about: tuple[int, int], claims: dict[str, int], seed: float) -> Caption:
        words = {k: self.word(k, v) for k, v in claims.items()}
        claimed = torch.full((len(WORDS),), UNKNOWN)
        for key, v in claims.items():
            claimed[ATTRIBUTES[key]] = v
        return Caption(fill(scene_template(words, random.Random(seed)), name), *about, claimed)

    def _not_false(self, index: Tensor, values: Tensor, captions: list[Caption]) -> Tensor:
        """Which texts are no negatives of which pictures: (B, U).

        A text is false of a picture if it names another thing, or if a claim contradicts what is known.
        """
        category = torch.tensor([c.category for c in captions])
        label = torch.tensor([c.label for c in captions])
        claims = torch.stack([c.claims for c in captions])
        named = (self.category[index][:, None] == category) & (category >= 0) | (self.label[index][:, None] == label)
        beside = (values[:, ATTRIBUTES["companion"], None] == label) & (label >= 0)
        beside |= (values[:, ATTRIBUTES["companion category"], None] == category) & (category >= 0)
        wrong = (claims[None] != UNKNOWN) & (values[:, None] != UNKNOWN) & (claims[None] != values[:, None])
        return named & ~wrong.any(2) | beside

    def _targets(self, index: Tensor, values: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Categories of the chosen pictures (M,), and which categories a companion has (M, K): as true."""
        category, beside = self.category[index][chosen], values[chosen, ATTRIBUTES["companion category"]]
        ignored = beside[:, None] == torch.arange(len(self.categories))
        ignored[torch.arange(len(category)), category] = False
        return category, ignored

    def _plain_bank(self, index: Tensor, values: Tensor) -> Bank:
        """All categories under one template that claims nothing."""
        template = self.rng.choice(TEMPLATES)
        chosen = (self.category[index] >= 0).nonzero()[:, 0]
        target, ignored = self._targets(index, values, chosen)
        return Bank([fill(template, c) for c in self.categories], chosen, target, ignored)

    def _claiming_bank(self, index: Tensor, values: Tensor) -> Bank:
        """All categories under a context and its opposite: only the right category under the true one is true."""
        known = self.category[index] >= 0
        attribute = self.rng.choice([k for k in WORDS if k != "companion"])
        column = values[:, ATTRIBUTES[attribute]]
        found = [v for v in column[known].unique().tolist() if v >= 0]
        pair = self.rng.sample(found, min(2, len(found)))
        seed, texts = self.rng.random(), []
        for v in pair:
            template = scene_template({attribute: self.word(attribute, v)}, random.Random(seed))
            texts += [fill(template, c) for c in self.categories]
        chosen = (known & torch.isin(column, torch.tensor(pair))).nonzero()[:, 0]
        target, ignored = self._targets(index, values, chosen)
        second = column[chosen] == pair[-1] if len(pair) == 2 else torch.zeros(len(chosen), dtype=torch.bool)
        target = target + second * len(self.categories)
        ignored = ignored.repeat(1, max(1, len(pair)))
        return Bank(texts, chosen, target, ignored)
