"""Mean and spread over seeds, and McNemar's exact test."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# 97.5 % quantiles of Student's t for 1 to 30 degrees of freedom; beyond, the normal one is less than 0.08 away.
T95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


@dataclass(frozen=True)
class Summary:
    """Of one value per seed."""

    mean: float
    std: float | None  # sample standard deviation (n - 1); None for a single seed
    ci95: float | None  # half width of the 95 % interval of the mean, by Student's t; None for a single seed
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.1f}" if self.std is None else f"{self.mean:.1f} ± {self.std:.1f}"


def averaged(values: Sequence[float]) -> Summary:
    """Mean and spread of at least one value."""
    n, mean = len(values), statistics.fmean(values)
    if n == 1:
        return Summary(mean, None, None, n)
    std = statistics.stdev(values)
    quantile = T95[n - 2] if n - 2 < len(T95) else 1.96
    return Summary(mean, std, quantile * std / math.sqrt(n), n)


def harmonic_mean(base: float, new: float) -> float:
    """H = 2 base new / (base + new) of two accuracies; 0 if both are."""
    return 2 * base * new / (base + new) if base + new else 0.0


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p-value of McNemar's test.

    Under the null hypothesis each image that exactly one method got right is as likely the one's as the other's.

    Args:
        only_first: Images that only the first method got right.
        only_second: Images that only the second got right.
    """
    n = only_first + only_second
    term, tail = 1, 0  # C(n, i), and the sum of those up to the smaller count
    for i in range(min(only_first, only_second) + 1):
        tail += term
        term = term * (n - i) // (i + 1)
    return min(1.0, float(2 * tail / 2**n))
