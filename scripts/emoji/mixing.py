"""Between words: a text encoder learns to answer to contexts that are no words but lie between those of two captions.

Captions have words only. An encoder that knows nothing else ignores what lies off them, and with it a random
perturbation or a small step of a learned context. Here a context's embeddings are mixed with those of other words, and
the features have to be mixed alike: a part of the way to other words is a part of the way to what they mean.
"""

import copy
import math
import random
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .captions import END, KINDS, START, TEMPLATES, Vocabulary, scene_template
from .pictures import WORDS

BATCH = 160
RATE = 1e-3
WARM_UP = 30  # steps
MAX_NAME = 10  # tokens


class Contexts:
    """Draws pairs of texts of one name: after a template's words, and after as many other tokens in their places."""

    def __init__(self, vocabulary: Vocabulary, categories: Sequence[str], labels: Sequence[str], seed: int) -> None:
        self.vocabulary, self.categories, self.labels = vocabulary, categories, labels
        self.rng = random.Random(seed)
        self.spoken = [*KINDS, *(word for words in WORDS.values() for word in words)]

    def draw(self, size: int) -> tuple[Tensor, Tensor]:
        """Compact tokens of both texts, (N, L) each, padded with 0."""
        pairs = [self._pair() for _ in range(size)]
        width = max(len(first) for first, _ in pairs)
        first, second = (
            torch.tensor([[*row, *[0] * (width - len(row))] for row in rows]) for rows in zip(*pairs, strict=True)
        )
        return first, second

    def _pair(self) -> tuple[list[int], list[int]]:
        rng = self.rng
        words = self.vocabulary.words
        name = rng.choice(self.categories if rng.random() < 0.5 else self.labels)
        context = words(self._template().split("{")[0])
        others: list[int] = []
        while len(others) < len(context):
            others += words(rng.choice(self.spoken if rng.random() < 0.4 else self.labels))
        if rng.random() < 0.5:  # only some of the words
            others = [rng.choice(pair) for pair in zip(context, others, strict=False)]
        start, end = (self.vocabulary.number[token] for token in (START, END))
        tail = [*words(f"{name}.")[:MAX_NAME], end]
        return [start, *context, *tail], [start, *others[: len(context)], *tail]

    def _template(self) -> str:
        """A template with words before the name."""
        spoken = [t.replace("{an}", "a {}") for t in TEMPLATES if not t.startswith("{}")]
        if self.rng.random() < 0.7:
            return self.rng.choice(spoken)
        claims = {key: self.rng.choice(WORDS[key]) for key in self.rng.sample(("size", "ground", "paint"), 2)}
        return scene_template(claims, self.rng).replace("{an}", "a {}")


def encode_mixed(model: nn.Module, embeddings: Tensor, tokens: Tensor) -> Tensor:
    """CLIP's text encoder on embeddings (N, L, D) of tokens, whose highest number is the end: unit features (N, E)."""
    x = embeddings + model.positional_embedding[: embeddings.shape[1]]
    x = model.ln_final(model.transformer(x.permute(1, 0, 2)).permute(1, 0, 2))
    return F.normalize(x[torch.arange(len(x)), tokens.argmax(dim=1)] @ model.text_projection, dim=-1)


def mixing_loss(model: nn.Module, teacher: nn.Module, first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """1 - cosine of the features of mixed embeddings and the teacher's mixed features; `share` (N,) of the second."""
    share = share[:, None]
    with torch.no_grad():
        ends = [encode_mixed(teacher, teacher.token_embedding(tokens), tokens) for tokens in (first, second)]
        target = F.normalize(torch.lerp(*ends, share), dim=-1)
    mixed = torch.lerp(model.token_embedding(first), model.token_embedding(second), share[..., None])
    return 1 - (encode_mixed(model, mixed, first) * target).sum(dim=-1).mean()


def learn_between(model: nn.Module, contexts: Contexts, steps: int) -> Iterator[float]:
    """Trains the text encoder in place, with itself as it was as the teacher; yields the loss of each step."""
    teacher = copy.deepcopy(model).eval().requires_grad_(False)
    own = [p.requires_grad_(True) for n, p in model.named_parameters() if not n.startswith(("visual.", "logit_scale"))]
    optimizer = torch.optim.AdamW(own, lr=RATE, betas=(0.9, 0.98), weight_decay=0.05)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / WARM_UP) * (0.5 * (1 + math.cos(math.pi * step / steps)) + 0.01)
        share = torch.rand(BATCH) * (torch.rand(BATCH) < 0.8)  # a fifth stays where it is
        loss = mixing_loss(model, teacher, *contexts.draw(BATCH), share)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        yield loss.item()
