"""Predictions of images, with details of the method.

Letters in shapes: N images that could be read, K classes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..arguments import file_path, sequence, short, whole
from ..errors import InputError
from ..files import write_bytes
from .rows import Row, csv_text, json_line, rounded, table_text


@dataclass(frozen=True)
class BadImage:
    """An image that could not be read: its index, its name, and the reason in one sentence."""

    index: int
    name: str
    reason: str


@dataclass(frozen=True)
class Predictions:
    """Predictions of all images that could be read.

    Attributes:
        class_names: K names.
        names: Paths of the N images, or "image <index>".
        index: Index of each image among all images, (N,), int64.
        probability: (N, K), float32; rows sum to 1.
        seconds: Wall time per image, averaged over its batch, (N,), float32.
        details: Values of the method per image, (N,) each. STSS: "sharpness", the mean sharpness of the views that
            voted (nats); "agreement", the fraction of them that agree with the prediction; "unanimous", 0 or 1.
        errors: The images that could not be read.
        top_k: Classes per image in rows and tables.
    """

    class_names: list[str]
    names: list[str]
    index: Tensor
    probability: Tensor
    seconds: Tensor
    details: dict[str, Tensor] = field(default_factory=dict)
    errors: list[BadImage] = field(default_factory=list)
    top_k: int = 5

    def __post_init__(self) -> None:
        names, classes = (sequence(name, getattr(self, name), "texts") for name in ("names", "class_names"))
        sequence("errors", self.errors, "bad images")
        whole("top_k", self.top_k, 1)
        if not isinstance(self.details, dict):
            raise InputError(f"details must be a dict of tensors, but got {short(self.details)}")
        columns = {"index": self.index, "seconds": self.seconds, **self.details}
        expected = dict.fromkeys(columns, (len(names),)) | {"probability": (len(names), len(classes))}
        for name, value in {**columns, "probability": self.probability}.items():
            if not isinstance(value, Tensor) or value.shape != expected[name]:
                raise InputError(f"{name} must be a tensor of shape {expected[name]}, but got {short(value)}")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def labels(self) -> list[str]:
        """The predicted class of each image."""
        return [self.class_names[k] for k in self.probability.argmax(dim=1).tolist()] if len(self) else []

    @property
    def top(self) -> list[list[tuple[str, float]]]:
        """The `top_k` most probable classes of each image with their probabilities, highest first."""
        values, classes = self.probability.topk(min(self.top_k, len(self.class_names)), dim=1)
        pairs = zip(classes.tolist(), values.tolist(), strict=True)
        return [[(self.class_names[k], p) for k, p in zip(ks, ps, strict=True)] for ks, ps in pairs]

    @property
    def entropy(self) -> Tensor:
        """Entropy of each image's probabilities in nats, (N,): 0 is certain, log(K) is uniform."""
        entropy: Tensor = torch.special.entr(self.probability).sum(dim=1)
        return entropy

    @property
    def sharpness(self) -> Tensor | None:
        """Mean sharpness (nats) of the views that voted, (N,); None for other methods than STSS."""
        return self.details.get("sharpness")

    @property
    def agreement(self) -> Tensor | None:
        """Fraction of the voting views that agree with the prediction, (N,); None for other methods than STSS."""
        return self.details.get("agreement")

    def rows(self) -> Iterator[Row]:
        """One dict per image, also for those that could not be read, in the order of the images."""
        bad = [(e.index, {"index": e.index, "file": e.name, "error": e.reason}) for e in self.errors]
        yield from (row for _, row in sorted([*self._good_rows(), *bad], key=lambda pair: pair[0]))

    def _good_rows(self) -> Iterator[tuple[int, Row]]:
        columns = {"entropy": self.entropy, **self.details, "seconds": self.seconds}
        numbers = zip(*(values.tolist() for values in columns.values()), strict=True)
        for index, name, top, values in zip(self.index.tolist(), self.names, self.top, numbers, strict=True):
            best = [[label, rounded(p)] for label, p in top]
            row: Row = {"index": index, "file": name, "prediction": best[0][0], "probability": best[0][1], "top": best}
            cells = (value if isinstance(value, int) else rounded(value) for value in values)
            yield index, row | dict(zip(columns, cells, strict=True))

    def table(self) -> str:
        """A table for the terminal."""
        return table_text(self.rows())

    def to_csv(self, path: str | Path) -> None:
        """Writes one line per image, atomically."""
        write_bytes(file_path("path", path), csv_text(list(self.rows())).encode("utf-8", "surrogateescape"))

    def to_jsonl(self, path: str | Path) -> None:
        """Writes one JSON object per image and line, atomically."""
        write_bytes(file_path("path", path), "".join(map(json_line, self.rows())).encode())


def joined(parts: Sequence[Predictions]) -> Predictions:
    """The predictions of one or more batches as one.

    >>> part = Predictions(["cat", "dog"], ["a.png"], torch.tensor([0]), torch.tensor([[0.25, 0.75]]), torch.zeros(1))
    >>> joined([part, part]).labels
    ['dog', 'dog']
    """
    keys = next((part.details for part in parts if len(part)), {})
    return Predictions(
        parts[0].class_names,
        [name for part in parts for name in part.names],
        torch.cat([part.index for part in parts]),
        torch.cat([part.probability for part in parts]),
        torch.cat([part.seconds for part in parts]),
        {key: torch.cat([part.details[key] for part in parts if len(part)]) for key in keys},
        [error for part in parts for error in part.errors],
        parts[0].top_k,
    )
