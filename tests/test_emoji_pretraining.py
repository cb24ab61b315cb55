"""Pre-training batches: what captions claim of pictures is true, and false twins are negatives."""

import random

import numpy as np
import pytest
import torch

from scripts.emoji import mixing
from scripts.emoji.captions import Vocabulary, fill, scene_template
from scripts.emoji.corpus import CorpusItem
from scripts.emoji.mixing import Contexts, learn_between, mixing_loss
from scripts.emoji.pictures import (
    ATTRIBUTES,
    COLOURS,
    NONE,
    UNKNOWN,
    WORDS,
    Layer,
    Placement,
    backgrounds,
    grounds,
    recolour,
)
from scripts.emoji.sampler import Sampler
from tlla.backbones.openai_package import CLIP

CATEGORIES = ("bird", "fruit", "tool", "drink", "heart")


def drawing(k: int) -> np.ndarray:
    """A square on white, black for even k."""
    picture = np.full((64, 64, 3), 255, dtype=np.uint8)
    picture[16:48, 12 + k : 40 + k] = (0, 0, 0) if k % 2 == 0 else (220, 30, 30)
    return picture


@pytest.fixture(scope="module")
def sampler() -> Sampler:
    items = [
        CorpusItem("set", "1f" if k % 3 else "", f"{c} {k}", ("tag",), c if k < 9 else None, 1.0, "")
        for k in range(10)
        for c in CATEGORIES
    ]
    return Sampler(np.stack([drawing(k) for k in range(10) for _ in CATEGORIES]), items, seed=1)


def test_white_that_touches_the_border_is_outside():
    picture = torch.full((2, 3, 64, 64), 255, dtype=torch.uint8)
    picture[:, :, 10:50, 10:50] = 0
    picture[0, :, 20:40, 20:40] = 255  # a hole
    picture[1, :, 20:40, 20:] = 255  # a bay
    found = backgrounds(picture)
    assert not found[0, 30, 30] and found[1, 30, 30] and found[:, 0].all() and not found[:, 15, 15].any()


def test_the_colour_of_a_drawing_is_named():
    rgb = torch.tensor([COLOURS["red"], COLOURS["blue"], COLOURS["green"]])[:, :, None, None].expand(3, 3, 8, 8)
    layer = Layer(rgb.clone(), torch.ones(3, 1, 8, 8), torch.zeros(3, dtype=torch.bool))
    names = set()
    for seed in range(8):
        torch.manual_seed(seed)
        values = recolour(Layer(layer.rgb.clone(), layer.alpha, layer.mono))
        names |= {WORDS["paint"][v] for v in values.tolist() if v != UNKNOWN}
    assert {"red", "blue", "green"} <= names


def test_a_white_ground_is_white_and_plain():
    pictures, colour, pattern = grounds(6, torch.tensor([True, False] * 3))
    assert (pictures[::2] == 1).all() and {WORDS["ground"][c] for c in colour[::2]} == {"white"}
    assert {WORDS["pattern"][p] for p in pattern[::2]} == {"plain"}


def test_a_place_says_on_which_side_a_drawing_stands():
    place = Placement(torch.tensor([-0.8, 0.0, 0.02]), torch.tensor([0.1, 0.7, 0.05]), torch.ones(3))
    assert [WORDS["position"][v] for v in place.attribute()] == ["left", "bottom", "middle"]


def test_a_template_says_all_claims_and_takes_the_name():
    claims = {"size": "small", "ground": "red", "number": "two", "companion": "owl", "position": "top"}
    for seed in range(20):
        text = fill(scene_template(claims, random.Random(seed)), "apple")
        assert all(word in text for word in ("small", "red ground", "two", "an owl", "at the top", "apple"))


def test_batches_fit_together(sampler):
    torch.manual_seed(0)
    for _ in range(3):
        batch = sampler.draw(32)
        assert batch.images.shape == (32, 3, 64, 64) and batch.ignored.shape == (32, len(batch.texts))
        assert not batch.ignored[torch.arange(32), batch.own].any()
        for bank in batch.banks:
            assert len(bank.texts) % len(CATEGORIES) == 0 and bank.ignored.shape == (len(bank.images), len(bank.texts))
            assert not bank.ignored[torch.arange(len(bank.target)), bank.target].any()


def test_a_false_twin_is_a_negative_of_its_picture_and_a_true_text_is_not(sampler):
    index = torch.tensor([0, 5])  # two pictures of birds
    values = torch.full((2, len(WORDS)), NONE)
    values[:, ATTRIBUTES["size"]] = torch.tensor([0, UNKNOWN])

    def caption(name, about, claims):
        return sampler._claiming(name, about, claims, 0.0)

    bird = (sampler.category[0].item(), NONE)
    texts = [caption("bird", bird, {"size": 0}), caption("bird", bird, {"size": 1})]
    texts.append(caption("fruit", (sampler.category[1].item(), NONE), {"size": 0}))
    # The size of the second picture is not known: neither caption may count against it.
    assert sampler._not_false(index, values, texts).tolist() == [[True, False, False], [True, True, False]]


def test_a_text_encoder_learns_to_answer_between_words(sampler, monkeypatch):
    monkeypatch.setattr(mixing, "BATCH", 64)
    vocabulary = Vocabulary(sampler.items)
    torch.manual_seed(0)
    model = CLIP(32, 32, 2, 64, 16, 77, len(vocabulary.tokens), 64, 1, 2).float()
    contexts = Contexts(vocabulary, sampler.categories, sampler.labels, seed=0)
    first, second = contexts.draw(8)
    assert first.shape == second.shape and (first != second).any() and (first.amax(1) == second.amax(1)).all()
    for share in (torch.zeros(8), torch.ones(8)):  # at the ends it is its own teacher
        assert mixing_loss(model, model, first, second, share).item() == pytest.approx(0, abs=1e-5)
    assert mixing_loss(model, model, first, second, torch.full((8,), 0.5)) > 1e-4
    before = model.visual.conv1.weight.clone()
    losses = list(learn_between(model, contexts, 12))
    assert losses[-1] < losses[0] and torch.equal(model.visual.conv1.weight, before)
