"""Captions of the pre-training images, and the compact vocabulary that the text tower trains on."""

import random

import clip
import torch
from torch import Tensor

from .corpus import Item

# "{an}" takes the name with its article. A fixed "a {}" is there too: prompts in use write it before any name.
TEMPLATES = (
    "an icon of {an}.",
    "an icon of a {}.",
    "an icon of {}.",
    "a picture of {an}.",
    "an emoji of {an}.",
    "a drawing of {an}.",
    "{}",
    "{}.",
    "a {} icon.",
    "a symbol of {}.",
    "an icon showing {an}.",
    "a photo of a {}.",
)
# Words that say nothing of the content: they fill the place of context vectors, so that a prompt of 4 or 16
# context tokens is nothing new to the text tower.
FILLERS = (
    "x a an the of this that is in style small big good bad clean simple nice cute color black white line flat art "
    "image photo picture icon emoji drawing sketch cartoon rendition painting clip design plain one many low quality"
).split()
MAX_FILLERS = 16
MAX_TOKENS = 14  # of a caption without fillers
START, END = 49406, 49407  # OpenAI's tokens around every text


def with_article(words: str) -> str:
    """'owl' -> 'an owl'."""
    return f"{'an' if words[:1] in 'aeiou' else 'a'} {words}"


def filler(rng: random.Random) -> str:
    """1 to 16 filler words: half of the time all 'x', as CoOp writes its place holders."""
    count = rng.randint(1, MAX_FILLERS)
    if rng.random() < 0.5:
        return " ".join(["x"] * count)
    return " ".join(rng.choices(FILLERS, k=count))


def bank_template(rng: random.Random) -> str:
    """A template for all categories at once."""
    return f"{filler(rng)} {{}}." if rng.random() < 0.3 else rng.choice(TEMPLATES)


def fill(template: str, words: str) -> str:
    """Put a name into a template."""
    return template.format(words, an=with_article(words))


def caption(item: Item, rng: random.Random) -> tuple[str, bool]:
    """A caption, and whether it names only the category (so that it is true of other images, too)."""
    draw = rng.random()
    if item.category and draw < 0.25:
        return fill(rng.choice(TEMPLATES), item.category), True
    if item.category and draw < 0.45:
        return f"{with_article(item.label)}, a kind of {item.category}.", False
    if item.tags and draw < 0.55:
        tags = rng.sample(item.tags, min(len(item.tags), rng.randint(1, 3)))
        return "an icon of " + ", ".join(tags), False
    return fill(rng.choice(TEMPLATES), item.label), False


class Vocabulary:
    """The tokens of OpenAI's vocabulary that captions use, numbered from 0; the rest is left out while training."""

    def __init__(self, items: list[Item]) -> None:
        self.encode_text = clip.clip._tokenizer.encode
        self.cache: dict[str, list[int]] = {}
        words = " ".join((*TEMPLATES, *FILLERS, "a kind of , ."))
        used = set(range(512)) | {START, END} | set(self.encode_text(words))
        for item in items:
            text = f"{item.label} , {item.category or ''} , {' , '.join(item.tags)}"
            for end in ("", "."):
                used.update(self.encode_text(text + end))
        self.tokens = sorted(used)
        self.number = {t: i for i, t in enumerate(self.tokens)}

    def ids(self, text: str) -> list[int]:
        """Compact numbers of a text, start and end included; a token never seen in the captions is skipped."""
        if text not in self.cache:
            limit = MAX_TOKENS + MAX_FILLERS
            known = [self.number[t] for t in self.encode_text(text) if t in self.number]
            self.cache[text] = [self.number[START], *known[:limit], self.number[END]]
        return self.cache[text]

    def batch(self, texts: list[str]) -> Tensor:
        """(N, longest) padded with 0. END is the highest number, so CLIP's argmax finds it."""
        rows = [self.ids(t) for t in texts]
        width = max(map(len, rows))
        return torch.tensor([row + [0] * (width - len(row)) for row in rows])
