"""Metrics of class probabilities, from a few numbers per image, so that no (N, K) table is kept.

`score` reduces a batch to columns, `summarize` turns the columns of all images into metrics. Top-k accuracy and ECE
equal those of torchmetrics.
"""

import torch
from torch import Tensor

ECE_BINS = 15


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


def summarize(columns: dict[str, Tensor]) -> dict[str, float]:
    """Metrics over all images: `top5` and `ece` in %, `nll` in nats, and `brier`.

    >>> columns = score(torch.tensor([[0.75, 0.25], [0.25, 0.75]]), torch.tensor([0, 0]))
    >>> {name: round(value, 3) for name, value in summarize(columns).items()}
    {'top5': 100.0, 'nll': 0.837, 'ece': 25.0, 'brier': 0.625}
    """
    return {
        "top5": 100 * (columns["rank"] < 5).double().mean().item(),
        "nll": columns["nll"].double().mean().item(),
        "ece": 100 * expected_calibration_error(columns["confidence"], columns["rank"] == 0),
        "brier": columns["brier"].double().mean().item(),
    }


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
