"""How all pictures look and are saved: SVG and PNG, readable when small and in greyscale."""

import io
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from tlla.files import write_bytes

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

# Okabe and Ito's colours, ordered by brightness, so that they stay apart in greyscale; never the only difference.
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", ":", (0, (3, 1, 1, 1, 1, 1)), (0, (5, 1)), (0, (1, 1)))
HATCHES = ("", "///", "...", "xxx", "\\\\\\", "ooo", "+++")
SURFACE = "cividis"  # brightness grows evenly

plt.rcParams.update(
    {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "0.9",
        "legend.frameon": False,
        "svg.hashsalt": "tlla",  # the same picture gives the same file
        "figure.constrained_layout.use": True,
    }
)


def line(i: int) -> dict[str, object]:
    """Colour, marker and dashes of the i-th line of a plot."""
    n = i % len(COLOURS)
    return {"color": COLOURS[n], "marker": MARKERS[n], "linestyle": LINES[n], "markersize": 4, "linewidth": 1.4}


def save(figure: Figure, path: Path) -> list[Path]:
    """Writes <path>.svg and <path>.png (150 dpi), closes the figure, and returns both paths."""
    written = []
    for suffix, metadata in ((".svg", {"Date": None, "Creator": None}), (".png", {"Software": None})):
        target, buffer = path.with_name(path.name + suffix), io.BytesIO()
        figure.savefig(buffer, format=suffix[1:], dpi=150, metadata=metadata)
        write_bytes(target, buffer.getvalue())
        written.append(target)
    plt.close(figure)
    return written
