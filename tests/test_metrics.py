"""Metrics against torchmetrics and against definitions written out."""

import math

import pytest
import torch
from dassl.evaluation.evaluator import macro_f1

from tlla.metrics import (
    adaptive_calibration_error,
    area_under_risk_coverage,
    classwise_calibration_error,
    classwise_gaps,
    expected_calibration_error,
    score,
    summarize,
)
from tlla.records.record import ECE_BINS

N, K = 400, 12


def random_case(seed=0, sharpness=3.0):
    """Probabilities that are right about half of the time, and labels."""
    generator = torch.Generator().manual_seed(seed)
    logits = sharpness * torch.randn(N, K, generator=generator)
    label = torch.where(torch.rand(N, generator=generator) < 0.5, logits.argmax(1), logits.sort(1).indices[:, -7])
    return logits.softmax(dim=1), label


@pytest.mark.parametrize("sharpness", (0.3, 3.0, 30.0))
def test_metrics_equal_torchmetrics(sharpness):
    from torchmetrics.functional import classification as reference  # here, as its import takes seconds

    probability, label = random_case(sharpness=sharpness)
    columns = score(probability, label)
    metrics = summarize(columns)
    ece = reference.multiclass_calibration_error(probability, label, num_classes=K, n_bins=15, norm="l1")
    assert metrics["ece"] == pytest.approx(100 * ece.item(), abs=1e-4)
    gaps = classwise_gaps(probability, label)
    of_class = [reference.binary_calibration_error(probability[:, k], label == k, n_bins=15) for k in range(K)]
    assert summarize(columns, gaps)["classwise_ece"] == pytest.approx(100 * sum(of_class).item() / K, abs=1e-4)
    top1 = reference.multiclass_accuracy(probability, label, num_classes=K, average="micro")
    assert (columns["rank"] == 0).float().mean() == pytest.approx(top1.item())
    top5 = reference.multiclass_accuracy(probability, label, num_classes=K, average="micro", top_k=5)
    assert metrics["top5"] == pytest.approx(100 * top5.item()) and metrics["top5"] < 100
    f1 = reference.multiclass_f1_score(probability, label, num_classes=K, average="macro")
    assert macro_f1(label.numpy(), columns["prediction"].numpy()) == pytest.approx(f1.item(), abs=1e-6)


def test_nll_and_brier_are_their_definitions():
    probability, label = random_case()
    metrics = summarize(score(probability, label))
    nll = [-math.log(probability[i, y].item()) for i, y in enumerate(label.tolist())]
    brier = [sum((probability[i, k].item() - (k == y)) ** 2 for k in range(K)) for i, y in enumerate(label.tolist())]
    assert metrics["nll"] == pytest.approx(sum(nll) / N, rel=1e-5)
    assert metrics["brier"] == pytest.approx(sum(brier) / N, rel=1e-5)


def test_a_vote_without_the_label_costs_a_finite_nll():
    columns = score(torch.tensor([[1.0, 0.0]]), torch.tensor([1]))
    assert columns["nll"].item() == pytest.approx(-math.log(torch.finfo(torch.float32).eps))
    assert columns["brier"].item() == 2


def test_of_equal_probabilities_the_lower_class_ranks_first():
    columns = score(torch.full((3, 3), 1 / 3), torch.tensor([0, 1, 2]))
    assert columns["rank"].tolist() == [0, 1, 2] and columns["prediction"].tolist() == [0, 0, 0]


def test_certainty_that_is_right_is_calibrated_and_that_is_wrong_is_not():
    ones = torch.ones(10)
    assert expected_calibration_error(ones, torch.ones(10, dtype=torch.bool)) == 0
    assert expected_calibration_error(ones, torch.zeros(10, dtype=torch.bool)) == 1


def test_fewer_than_five_classes_are_no_error():
    probability = torch.rand(6, 3).softmax(dim=1)
    assert summarize(score(probability, torch.tensor([0, 1, 2] * 2)))["top5"] == 100


def naive_adaptive_ece(confidence, correct, n_bins):
    """Bins of equally many images, one image after another; equal confidences share a bin."""
    pairs = sorted(zip(confidence, correct, strict=True))
    edges = sorted({pairs[round(b / n_bins * (len(pairs) - 1))][0] for b in range(n_bins + 1)})
    bins = [[] for _ in range(max(1, len(edges) - 1))]
    for sure, right in pairs:
        bins[max(0, sum(edge < sure for edge in edges) - 1)].append(right - sure)
    return sum(abs(sum(own)) for own in bins) / len(pairs)


def naive_aurc(confidence, correct):
    pairs = list(zip(confidence, correct, strict=True))
    accepted = [[right for other, right in pairs if other >= sure] for sure, _ in pairs]
    return sum(1 - sum(own) / len(own) for own in accepted) / len(pairs)


@pytest.mark.parametrize("case", ("distinct", "votes", "all equal", "one image", "fewer than bins"))
def test_adaptive_ece_and_aurc_are_their_definitions(case):
    probability, label = random_case(sharpness=1.0)
    n = {"one image": 1, "fewer than bins": 7}.get(case, 300)
    columns = score(probability[:n], label[:n])
    confidence, correct = columns["confidence"], columns["rank"] == 0
    if case == "votes":
        confidence = (4 * confidence).ceil() / 4
    elif case == "all equal":
        confidence = torch.full_like(confidence, 0.75)
    pair = confidence.tolist(), correct.tolist()
    assert adaptive_calibration_error(confidence, correct) == pytest.approx(naive_adaptive_ece(*pair, ECE_BINS))
    assert area_under_risk_coverage(confidence, correct) == pytest.approx(naive_aurc(*pair))
    order = torch.randperm(n)
    for metric in (adaptive_calibration_error, area_under_risk_coverage):
        assert metric(confidence[order], correct[order]) == pytest.approx(metric(confidence, correct), abs=1e-12)


def test_aurc_without_ties_is_the_mean_risk_over_all_coverages():
    confidence, correct = torch.rand(50), torch.rand(50) < 0.6
    wrong = (~correct)[confidence.argsort(descending=True)].double()
    risks = wrong.cumsum(0) / torch.arange(1, 51)
    assert area_under_risk_coverage(confidence, correct) == pytest.approx(risks.mean().item())


def test_classwise_gaps_of_batches_add_up_to_the_last_bit():
    probability, label = random_case()
    whole = classwise_gaps(probability, label)
    parts = [classwise_gaps(*batch) for batch in zip(probability.split(7), label.split(7), strict=True)]
    assert torch.equal(sum(reversed(parts)), whole)
    sums = {}
    for row, y in zip(probability.tolist(), label.tolist(), strict=True):
        for k, p in enumerate(row):
            sums[int(p * ECE_BINS), k] = sums.get((int(p * ECE_BINS), k), 0.0) + (k == y) - p
    naive = sum(map(abs, sums.values())) / (N * K)
    assert classwise_calibration_error(whole, N) == pytest.approx(naive, rel=1e-6)
