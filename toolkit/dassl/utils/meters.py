"""Running averages for the progress line."""

from collections import defaultdict
from collections.abc import Mapping

from torch import Tensor

__all__ = ["AverageMeter", "MetricMeter"]


class AverageMeter:
    """The newest value and the average of a number.

    Args:
        ema: Average exponentially (0.9 old, 0.1 new) instead of over all values.
    """

    def __init__(self, ema: bool = False):
        self.ema = ema
        self.reset()

    def reset(self) -> None:
        """Forgets all values."""
        self.val = self.avg = self.sum = self.count = 0

    def update(self, val: float | Tensor, n: int = 1) -> None:
        """Adds a value that stands for ``n`` samples."""
        self.val = val.item() if isinstance(val, Tensor) else val
        self.sum += self.val * n
        self.count += n
        if self.ema:
            self.avg = self.avg * 0.9 + self.val * 0.1
        elif self.count:
            self.avg = self.sum / self.count


class MetricMeter:
    """Named meters; as text ``loss 1.2000 (1.3000) acc 50.0000 (48.0000)``."""

    def __init__(self, delimiter: str = " "):
        self.meters: defaultdict[str, AverageMeter] = defaultdict(AverageMeter)
        self.delimiter = delimiter

    def update(self, input_dict: Mapping[str, float | Tensor] | None) -> None:
        """Adds one value for each name; None is ignored.

        Raises:
            TypeError: It is not a dictionary.
        """
        if input_dict is None:
            return
        if not isinstance(input_dict, Mapping):
            raise TypeError(
                "forward_backward() must return a dictionary of name -> number, such as {'loss': loss.item()}, "
                f"but returned {type(input_dict).__name__}"
            )
        for name, value in input_dict.items():
            self.meters[name].update(value)

    def __str__(self) -> str:
        return self.delimiter.join(f"{name} {meter.val:.4f} ({meter.avg:.4f})" for name, meter in self.meters.items())
