"""Running averages for the progress line."""

from collections import defaultdict
from collections.abc import Mapping

from torch import Tensor


class AverageMeter:
    """The newest value and the average of a number."""

    def __init__(self):
        self.val = self.avg = self.sum = self.count = 0

    def update(self, val: float | Tensor, n: int = 1) -> None:
        """Adds a value that stands for ``n`` samples."""
        self.val = val.item() if isinstance(val, Tensor) else val
        self.sum += self.val * n
        self.count += n
        if self.count:
            self.avg = self.sum / self.count


class MetricMeter:
    """Named meters; as text ``loss 1.2000 (1.3000) acc 50.0000 (48.0000)``."""

    def __init__(self):
        self.meters: defaultdict[str, AverageMeter] = defaultdict(AverageMeter)

    def update(self, input_dict: Mapping[str, float | Tensor] | None) -> None:
        """Adds one value for each name; None is ignored. TypeError if it is not a dictionary."""
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
        return " ".join(f"{name} {meter.val:.4f} ({meter.avg:.4f})" for name, meter in self.meters.items())
