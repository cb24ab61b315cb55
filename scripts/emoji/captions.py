"""Captions of the pre-training pictures, true or false, and the compact vocabulary that the text tower trains on."""

import random

import torch
from torch import Tensor

from tlla.backbones.openai_package import clip

from .corpus import CorpusItem
from .pictures import WORDS

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
KINDS = ("icon", "picture", "emoji", "drawing")
MAX_TOKENS = 30
START, END = 49406, 49407  # OpenAI's tokens around every text


def with_article(words: str) -> str:
    """'owl' -> 'an owl'."""
    return f"{'an' if words[:1] in 'aeiou' else 'a'} {words}"


def fill(template: str, words: str) -> str:
    """Put a name into a template."""
    return template.format(words, an=with_article(words))


def scene_template(claims: dict[str, str], rng: random.Random) -> str:
    """A template that says these things of the picture (attribute -> word), mostly before the name.

    {"size": "small", "ground": "red"} -> "on a red ground, a small icon of {an}." or "a small {} on a red ground."
    """
    adjectives = [claims[k] for k in ("size", "paint") if k in claims]
    rng.shuffle(adjectives)
    around = []
    if "position" in claims:
        place = claims["position"]
        around.append(f"{'in' if place == 'middle' else 'at' if place in ('top', 'bottom') else 'on'} the {place}")
    if "ground" in claims or "pattern" in claims:
        around.append(
            "on " + with_article(" ".join(claims[k] for k in ("pattern", "ground") if k in claims) + " ground")
        )
    for key in ("companion", "companion category"):
        if key in claims:
            around.append(f"{rng.choice(('beside', 'with', 'near'))} {with_article(claims[key])}")
    rng.shuffle(around)
    count = claims.get("number", "")
    if rng.random() < 0.5:
        kind = rng.choice(KINDS)
        words = " ".join([*adjectives, kind + ("s" if count == "two" else "")])
        head = (f"{count} {words}" if count else with_article(words)) + " of {an}"
    elif adjectives or count:
        words = " ".join([*adjectives, "{}"])
        head = f"{count} {words}" if count else with_article(words)
    else:
        head = "{an}"
    # The context of a prompt stands before the class name: so does most of what captions say.
    before = [a for a in around if rng.random() < 0.7]
    after = [a for a in around if a not in before]
    return (" ".join(before) + ", " if before else "") + " ".join([head, *after]) + "."


class Vocabulary:
    """The tokens of OpenAI's vocabulary that captions use, numbered from 0; the rest is left out while training."""

    def __init__(self, items: list[CorpusItem]) -> None:
        self.encode_text = clip._tokenizer.encode
        self.cache: dict[str, list[int]] = {}
        words = " ".join((*TEMPLATES, *KINDS, *(f"{k}s" for k in KINDS), *(w for ws in WORDS.values() for w in ws)))
        words += " a kind of , . in at on the ground beside with near"
        used = set(range(512)) | {START, END} | set(self.encode_text(words))
        for item in items:
            text = f"{item.label} , {item.category or ''} , {' , '.join(item.tags)}"
            for end in ("", "."):
                used.update(self.encode_text(text + end))
        self.tokens = sorted(used)
        self.number = {t: i for i, t in enumerate(self.tokens)}

    def ids(self, text: str) -> list[int]:
        """Compact numbers of a text, start and end included."""
        if text not in self.cache:
            if len(self.cache) > 200_000:  # scenes have many captions
                self.cache.clear()
            self.cache[text] = [self.number[START], *self.words(text)[:MAX_TOKENS], self.number[END]]
        return self.cache[text]

    def words(self, text: str) -> list[int]:
        """Compact numbers of a text alone; a token never seen in the captions is skipped."""
        return [self.number[t] for t in self.encode_text(text) if t in self.number]

    def batch(self, texts: list[str]) -> Tensor:
        """(N, longest) padded with 0. END is the highest number, so CLIP's argmax finds it."""
        rows = [self.ids(t) for t in texts]
        width = max(map(len, rows))
        return torch.tensor([row + [0] * (width - len(row)) for row in rows])
