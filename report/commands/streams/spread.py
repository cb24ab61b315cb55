"""The picture of `report streams`: every order of each method and stream as a point on one scale."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ... import style
from ...style import plt
from .orders import Orders

TAIL = {"color": "#D55E00", "linewidth": 1.8}
MEAN = {"color": "black", "linewidth": 1.8}


def draw(rows: Sequence[Orders], path: Path) -> list[Path]:
    """A line of points for each row, equal accuracies side by side, with its mean and its tail. Returns the files."""
    figure, axis = plt.subplots(figsize=(7.5, 1.4 + 0.5 * len(rows)))
    for y, row in enumerate(rows):
        axis.plot(*_places(row.accuracies, y), "o", color="#0072B2", markersize=2.5, alpha=0.6, zorder=1)
        summary = row.summary()
        mean, tail = (summary[name] for name in ("mean", "tail"))
        axis.plot([mean, mean], [y - 0.38, y + 0.38], **MEAN, label=None if y else "mean")
        axis.plot([tail, tail], [y - 0.38, y + 0.38], **TAIL, label=None if y else "tail: mean of the worst 10 %")
    axis.set_yticks(range(len(rows)), [_label(row, rows) for row in rows])
    axis.invert_yaxis()
    if len(datasets := {row.dataset for row in rows}) == 1:
        axis.set_title(*datasets, fontsize=9)
    axis.set_xlabel("top-1 accuracy, %: a point for each order of the images")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return style.save(figure, path)


def _places(values: Sequence[float], y: float) -> tuple[list[float], list[float]]:
    """Points whose equal values lie above and below each other within 0.3 of the line."""
    most, seen = max(Counter(values).values()), Counter[float]()
    heights = []
    for value in values:
        step = 0.6 * ((seen[value] + 1) // 2) / max(most, 20)
        heights.append(y + step * (1 if seen[value] % 2 else -1))
        seen[value] += 1
    return list(values), heights


def _label(row: Orders, rows: Sequence[Orders]) -> str:
    """What tells a row from the others: its stream, which says that labels composed it, dataset and seed."""
    parts = [row.method]
    if len({other.dataset for other in rows}) > 1:
        parts.append(row.dataset)
    if len({other.seed for other in rows}) > 1:
        parts.append(f"seed {row.seed}")
    stream = row.stream_name + ",\ncomposed by labels" * row.stream.composed_by_labels
    return "\n".join([", ".join(parts), stream])
