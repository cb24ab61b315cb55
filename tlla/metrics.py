"""Metrics of class probabilities, from a few numbers per image, so that no (N, K) table is kept.

`score` reduces a batch to columns, `summarize` turns the columns of all images into metrics. Top-k accuracy and ECE
equal those of torchmetrics. What the classwise ECE needs of each class is added up over the batches, in whole numbers,
so that the sum depends neither on their order nor on how they are divided among processes.
"""

import torch
from torch import Tensor

from .records.record import ECE_BINS

ONE = 2**32  # a probability of 1 in `classwise_gaps`


def score(probability: Tensor, label: Tensor) -> dict[str, Tensor]:
    """The numbers per image that the metrics need.

    Args:
        probability: Class probabilities, (B, K), float32.
        label: (B,), int64.

    Returns:
        Columns of shape (B,): `prediction`; `confidence`, its probability; `rank` of the label among the classes (0 is
        best; ties go to the lower class, as in argmax); `nll`, -ln of the label's probability, clamped at float32's
        epsilon because a vote can return 0; `brier`, the squared error summed over all classes (0 to 2).

    >>> columns = score(torch.tensor([[0.75, 0.25]]), torch.tensor([0]))
    >>> columns["prediction"], columns["rank"], columns["brier"]
    (tensor([0]), tensor([0]), tensor([0.1250]))
    """
    confidence, prediction = probability.max(dim=1)
    own = probability.gather(1, label[:, None])  # (B, 1)
    earlier = torch.arange(probability.shape[1], device=label.device) < label[:, None]
    rank = ((probability > own) | ((probability == own) & earlier)).sum(dim=1)
    nll = -own.squeeze(1).clamp_min(torch.finfo(torch.float32).eps).log()
    brier = probability.square().sum(dim=1) - 2 * own.squeeze(1) + 1
    return {"prediction": prediction, "confidence": confidence, "rank": rank, "nll": nll, "brier": brier}


def check_finite(columns: dict[str, Tensor]) -> None:
    """Raises FloatingPointError unless the probabilities behind `score`'s columns are finite.

    >>> check_finite(score(torch.tensor([[0.75, float("nan")]]), torch.tensor([0])))
    Traceback (most recent call last):
    FloatingPointError: a class probability is not finite (NaN or infinite): try PREC fp32
    """
    if not columns["brier"].isfinite().all():
        raise FloatingPointError("a class probability is not finite (NaN or infinite): try PREC fp32")


def summarize(columns: dict[str, Tensor], gaps: Tensor | None = None) -> dict[str, float]:
    """Metrics over all images.

    Args:
        columns: Of `score`, (N,).
        gaps: The sum of `classwise_gaps` over all images, (n_bins + 1, K), int64.

    Returns:
        `top5`, `ece`, `adaptive_ece`, `aurc` and, with `gaps`, `classwise_ece` in %, `nll` in nats, and `brier`.

    >>> columns = score(torch.tensor([[0.75, 0.25], [0.25, 0.75]]), torch.tensor([0, 0]))
    >>> {name: round(value, 3) for name, value in summarize(columns).items()}
    {'top5': 100.0, 'nll': 0.837, 'ece': 25.0, 'brier': 0.625, 'adaptive_ece': 25.0, 'aurc': 50.0}
    """
    confidence, correct = columns["confidence"], columns["rank"] == 0
    found = {
        "top5": 100 * (columns["rank"] < 5).double().mean().item(),
        "nll": columns["nll"].double().mean().item(),
        "ece": 100 * expected_calibration_error(confidence, correct),
        "brier": columns["brier"].double().mean().item(),
        "adaptive_ece": 100 * adaptive_calibration_error(confidence, correct),
        "aurc": 100 * area_under_risk_coverage(confidence, correct),
    }
    if gaps is not None:
        found["classwise_ece"] = 100 * classwise_calibration_error(gaps, len(confidence))
    return found


def expected_calibration_error(confidence: Tensor, correct: Tensor, n_bins: int = ECE_BINS) -> float:
    """ECE (Guo et al., arXiv 1706.04599): mean |accuracy - confidence| over equal bins, weighted by images per bin.

    Args:
        confidence: Probability of the predicted class, (N,).
        correct: Whether the prediction is right, (N,), bool.
        n_bins: Number of bins of equal width.

    Returns:
        A fraction, 0 to 1.

    >>> expected_calibration_error(torch.tensor([0.75, 0.75]), torch.tensor([True, False]))
    0.25
    """
    _, right, sure = calibration_bins(confidence, correct, n_bins)
    return ((right - sure).abs().sum() / len(confidence)).item()


def calibration_bins(confidence: Tensor, correct: Tensor, n_bins: int = ECE_BINS) -> tuple[Tensor, Tensor, Tensor]:
    """Number of images, of correct ones, and sum of confidences in each bin: three (n_bins + 1,) tensors, float64.

    Bins are [low, high), as in torchmetrics; a confidence of exactly 1 has its own bin, the last.

    Args:
        confidence: Probability of the predicted class, (N,).
        correct: Whether the prediction is right, (N,), bool.
        n_bins: Number of bins of equal width.

    >>> calibration_bins(torch.tensor([0.25, 0.75, 1.0]), torch.tensor([False, True, True]), n_bins=2)[2]
    tensor([0.2500, 0.7500, 1.0000], dtype=torch.float64)
    """
    edges = torch.linspace(0, 1, n_bins + 1, device=confidence.device)
    index = torch.bucketize(confidence, edges, right=True) - 1  # (N,), 0 .. n_bins
    rows = torch.stack([torch.ones_like(confidence), correct, confidence]).double()  # (3, N)
    images, right, sure = torch.zeros(3, n_bins + 1, dtype=torch.float64, device=confidence.device).index_add_(
        1, index, rows
    )
    return images, right, sure


def adaptive_calibration_error(confidence: Tensor, correct: Tensor, n_bins: int = ECE_BINS) -> float:
    """ECE over bins of equally many images (Nguyen & O'Connor, arXiv 1508.05154; Nixon et al., arXiv 1904.01685).

    Bins are (low, high]; their edges are the confidences at equal steps through the sorted ones, as in YonseiML/fpp
    (bb9917f, utils/metrics.py, AECE_Loss). Equal confidences share a bin, so that no order of the images matters; there
    are fewer bins if edges coincide. Where all confidences are equal, that code returns 0, this function their gap.

    Args:
        confidence: Probability of the predicted class, (N,), float32.
        correct: Whether the prediction is right, (N,), bool.
        n_bins: Number of bins.

    Returns:
        A fraction, 0 to 1.

    >>> adaptive_calibration_error(torch.tensor([0.5, 0.75, 0.75]), torch.tensor([True, True, False]), n_bins=2)
    0.0
    """
    steps = torch.linspace(0, 1, n_bins + 1, dtype=torch.float64, device=confidence.device) * (len(confidence) - 1)
    edges = torch.unique(confidence.sort().values[steps.round().long()])
    index = torch.bucketize(confidence, edges[1:-1])
    gaps = torch.zeros(n_bins, dtype=torch.float64, device=confidence.device)
    gaps.index_add_(0, index, correct.double() - confidence.double())
    return (gaps.abs().sum() / len(confidence)).item()


def classwise_gaps(probability: Tensor, label: Tensor, n_bins: int = ECE_BINS) -> Tensor:
    """What `classwise_calibration_error` needs: by bin and class, the sum of 1[label is the class] - probability.

    Bins are those of `calibration_bins`. The values are in steps of 2^-32, so that sums over batches are exact.

    Args:
        probability: Class probabilities, (B, K), float32.
        label: (B,), int64.
        n_bins: Number of bins of equal width.

    Returns:
        (n_bins + 1, K), int64.

    >>> classwise_gaps(torch.tensor([[0.75, 0.25]]), torch.tensor([0]), n_bins=2) / ONE
    tensor([[ 0.0000, -0.2500],
            [ 0.2500,  0.0000],
            [ 0.0000,  0.0000]])
    """
    n_classes, edges = probability.shape[1], torch.linspace(0, 1, n_bins + 1, device=probability.device)
    index = (torch.bucketize(probability, edges, right=True) - 1) * n_classes  # (B, K)
    gaps = -(probability.double() * ONE).round().long()
    gaps[torch.arange(len(label), device=label.device), label] += ONE
    cells = index + torch.arange(n_classes, device=probability.device)
    total = torch.zeros((n_bins + 1) * n_classes, dtype=torch.int64, device=probability.device)
    return total.index_add_(0, cells.flatten(), gaps.flatten()).view(n_bins + 1, n_classes)


def classwise_calibration_error(gaps: Tensor, n_images: int) -> float:
    """Classwise ECE: the mean over the classes of the ECE of each class's probability (SCE, arXiv 1904.01685).

    Args:
        gaps: The sum of `classwise_gaps` over all images, (n_bins + 1, K), int64.
        n_images: Number of images.

    Returns:
        A fraction, 0 to 1: at most 2 / K, as all other classes' probabilities are near 0.

    >>> classwise_calibration_error(classwise_gaps(torch.tensor([[0.75, 0.25]]), torch.tensor([0])), 1)
    0.25
    """
    return gaps.abs().sum().item() / ONE / (n_images * gaps.shape[1])


def area_under_risk_coverage(confidence: Tensor, correct: Tensor) -> float:
    """AURC: the error among the images at least as confident as each one, averaged (Geifman et al., arXiv 1805.08206).

    Images of equal confidence are accepted together, so that no order of the images matters.

    Args:
        confidence: Probability of the predicted class, (N,).
        correct: Whether the prediction is right, (N,), bool.

    Returns:
        A fraction, 0 to 1; low is good.

    >>> area_under_risk_coverage(torch.tensor([0.9, 0.5]), torch.tensor([True, False]))
    0.25
    """
    _, group, size = torch.unique(-confidence, return_inverse=True, return_counts=True)  # the most confident first
    wrong = torch.zeros(len(size), dtype=torch.float64, device=confidence.device).index_add_(
        0, group, (~correct).double()
    )
    return float((size * wrong.cumsum(0) / size.cumsum(0)).sum()) / len(confidence)
