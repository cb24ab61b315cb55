"""Names beside the points of a plot, in a column that keeps them apart."""

from collections.abc import Sequence

from matplotlib.axes import Axes


def place_labels(wanted: Sequence[float], step: float) -> list[float]:
    """The ascending places nearest to some ascending ones (least squares) that are at least `step` apart."""
    blocks: list[tuple[float, int]] = []  # mean of place - step * number, and how many names share it
    for number, place in enumerate(wanted):
        mean, count = place - step * number, 1
        while blocks and blocks[-1][0] > mean:
            other, n = blocks.pop()
            mean, count = (mean * count + other * n) / (count + n), count + n
        blocks.append((mean, count))
    means = [mean for mean, count in blocks for _ in range(count)]
    return [mean + step * number for number, mean in enumerate(means)]


def name_points(axis: Axes, points: Sequence[tuple[float, float, str]], size: float = 7) -> None:
    """Writes the names of points (x, y, name) to the right of the axis, each with a thin line to its point.

    To be called when the limits of the y axis and the figure's size are final.
    """
    ordered = sorted(points, key=lambda point: (point[1], point[0]))
    low, high = axis.get_ylim()
    height = axis.get_window_extent().height * 72 / axis.figure.dpi  # in points
    places = place_labels([y for _, y, _ in ordered], 1.25 * size * (high - low) / height)
    for (x, y, name), place in zip(ordered, places, strict=True):
        axis.annotate(
            name,
            (x, y),
            xytext=(1.03, place),
            textcoords=("axes fraction", "data"),
            fontsize=size,
            va="center",
            arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": "0.6", "shrinkA": 1, "shrinkB": 3},
            annotation_clip=False,
        )
