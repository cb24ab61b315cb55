"""STSS against a naive loop over images, views and perturbations in plain Python."""

import math

import pytest
import torch
import torch.nn.functional as F

from tlla.errors import InputError
from tlla.selection import ViewScores, check_vote, entropy, lowest, score_views, select_and_vote, vote

SCALE = 20.0


@pytest.fixture
def features():
    """Views (B, V, E) and text (R + 1, K, E), normalised."""
    return F.normalize(torch.randn(3, 7, 8), dim=-1), F.normalize(torch.randn(5, 4, 8), dim=-1)


def naive_probabilities(view, text):
    logits = [SCALE * sum(a * b for a, b in zip(view, row, strict=True)) for row in text]
    top = max(logits)
    weights = [math.exp(x - top) for x in logits]
    return [w / sum(weights) for w in weights]


def naive_entropy(p):
    return -sum(q * math.log(q) for q in p if q > 0)


def naive_scores(views, text, lam):
    """score(view) = H(p) + lambda * max_r [H(p + delta_r) - H(p)], one number at a time."""
    scores = []
    for image in views.tolist():
        row = []
        for view in image:
            plain = naive_entropy(naive_probabilities(view, text[0].tolist()))
            rises = [naive_entropy(naive_probabilities(view, t.tolist())) - plain for t in text[1:]]
            row.append(plain + lam * max(rises))
        scores.append(row)
    return scores


@pytest.mark.parametrize("lam", (0.0, 1.0, 2.5))
def test_scores_equal_the_naive_loop(features, lam):
    views, text = features
    scores = score_views(views, text, SCALE, lam)
    torch.testing.assert_close(scores.score, torch.tensor(naive_scores(views, text, lam)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("s", (1, 3, 4, 7))
def test_majority_equals_a_naive_count_with_ties_broken_by_mean_probability(features, s):
    views, text = features
    winners = []
    for b, row in enumerate(naive_scores(views, text, 1.0)):
        kept = sorted(range(len(row)), key=lambda v: row[v])[:s]
        probabilities = [naive_probabilities(views[b, v].tolist(), text[0].tolist()) for v in kept]
        votes = [p.index(max(p)) for p in probabilities]
        mean = [sum(p[k] for p in probabilities) / s for k in range(4)]
        winners.append(max(range(4), key=lambda k: (votes.count(k), mean[k])))
    result = select_and_vote(score_views(views, text, SCALE, 1.0), s, "majority")
    assert result.argmax(dim=1).tolist() == winners
    torch.testing.assert_close(result.sum(dim=1), torch.ones(3))


def test_a_tie_goes_to_the_higher_mean_probability_and_never_beats_a_vote():
    tie = torch.tensor([[[3.0, 0.0], [0.0, 5.0]]])
    assert vote(tie, "majority").argmax().item() == 1
    two_weak_against_one_sure = torch.tensor([[[0.1, 0.0], [0.1, 0.0], [-50.0, 50.0]]])
    assert vote(two_weak_against_one_sure, "majority").argmax().item() == 0
    assert vote(two_weak_against_one_sure, "mean_prob").argmax().item() == 1


def test_soft_votes_are_the_mean_probability_and_the_mean_logit():
    logits = torch.randn(2, 5, 3)
    torch.testing.assert_close(vote(logits, "mean_prob"), logits.softmax(-1).mean(1))
    torch.testing.assert_close(vote(logits, "mean_logit"), logits.mean(1).softmax(-1))


def test_no_perturbation_or_lambda_0_is_entropy_selection(features):
    views, text = features
    plain = entropy(SCALE * views @ text[0].t())
    assert torch.equal(score_views(views, text, SCALE, 0.0).score, plain)
    assert torch.equal(score_views(views, text[:1], SCALE, 1.0).score, plain)


def test_images_do_not_influence_each_other(features):
    views, text = features
    together = select_and_vote(score_views(views, text, SCALE, 1.0), 3, "majority")
    order = [2, 0, 1]
    shuffled = select_and_vote(score_views(views[order], text, SCALE, 1.0), 3, "majority")
    alone = torch.cat(
        [select_and_vote(score_views(views[b : b + 1], text, SCALE, 1.0), 3, "majority") for b in range(3)]
    )
    torch.testing.assert_close(shuffled, together[order], atol=1e-6, rtol=0)
    torch.testing.assert_close(alone, together, atol=1e-6, rtol=0)


def test_entropy_is_exact_at_its_limits():
    assert entropy(torch.zeros(4)).item() == pytest.approx(math.log(4))
    assert entropy(torch.tensor([1e4, 0.0, -1e4])).item() == 0.0
    assert entropy(torch.zeros(2, 1)).tolist() == [0.0, 0.0]  # K = 1


def test_one_hot_probabilities_and_a_single_class_give_no_nan():
    views, text = F.normalize(torch.randn(2, 4, 8), dim=-1), F.normalize(torch.randn(3, 1, 8), dim=-1)
    for scores in (score_views(views, text, SCALE, 1.0), score_views(views, text.repeat(1, 3, 1), 1e30, 1.0)):
        assert not scores.score.isnan().any()
        assert not select_and_vote(scores, 2, "majority").isnan().any()


def test_equal_scores_keep_the_earlier_view():
    assert lowest(torch.zeros(1, 50), 3).tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("s", (0, 8))
def test_keeping_no_view_or_more_than_there_are_is_refused(s):
    scores = ViewScores(*(torch.zeros(1, 7),) * 3, torch.zeros(1, 7, 2))
    with pytest.raises(InputError, match=f"between 1 and the number of views, 7, but got {s}"):
        select_and_vote(scores, s, "majority")


def test_an_unknown_vote_is_refused():
    with pytest.raises(InputError, match="VOTE must be one of"):
        check_vote("median")
