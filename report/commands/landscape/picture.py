"""Pictures of losses over planes through prompts: runs side by side, with the same axes and the same levels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.contour import QuadContourSet
from matplotlib.lines import Line2D
from matplotlib.patches import Circle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from tlla.landscape.planes import Surface

from ... import style
from ...style import plt

N_LEVELS = 12
UNIT = 2.1  # inches of a contour panel


@dataclass(frozen=True)
class PictureRow:
    """One row of a picture."""

    label: str  # what it shows; may have several lines
    surfaces: Mapping[str, Surface]  # by run, in the order of the columns; losses (steps, steps)
    image: np.ndarray | None = None  # shown in front, (H, W, 3) uint8; None: nothing


def draw(
    rows: Sequence[PictureRow],
    quantity: str,
    rho: float,
    norms: Mapping[str, float],
    path: Path,
    relative: bool = False,
) -> list[Path]:
    """Draws each run's contours, then slices through all runs' prompts; the levels serve the whole picture.

    Args:
        rows: From top to bottom, of the same runs; all with images or none.
        quantity: Name of the loss.
        rho: A distance from the prompt, drawn as a circle.
        norms: Of the prompts, by run: 1 on the axes.
        path: Of the picture, without suffix.
        relative: Whether differences from the value at the prompt are drawn, so that rows of different height have the
            same levels and the same scale.

    Returns:
        The files written.
    """
    shown = [{name: change(own) if relative else own for name, own in row.surfaces.items()} for row in rows]
    names = list(rows[0].surfaces)
    first = int(rows[0].image is not None)
    widths = [0.6] * first + [1.0] * len(names) + [1.3]
    size = (UNIT * sum(widths) + 0.8, UNIT * len(rows) + 0.7)
    figure, axes = plt.subplots(len(rows), len(widths), figsize=size, width_ratios=widths, squeeze=False)
    bounds = levels([surface for surfaces in shown for surface in surfaces.values()])
    for line, row, surfaces in zip(axes, rows, shown, strict=True):
        if first:
            line[0].imshow(row.image, interpolation="none")  # its pixels as they are, also in an SVG file
            line[0].set_title(row.label, fontsize=7)
            line[0].set_axis_off()
        for axis, (name, surface) in zip(line[first:], surfaces.items(), strict=False):
            filled = draw_contours(axis, surface, bounds, rho / norms[name])
            axis.set_title(f"{name} ({centre(row.surfaces[name]):.2f} at +)", fontsize=8)
        line[first].set_ylabel("β")
        draw_slices(line[-1], surfaces, quantity)
        if relative:
            line[-1].sharey(axes[0, -1])
    for axis in axes[-1, first:]:
        axis.set_xlabel("α")
    axes[-1, -1].set_xlabel("α or β")
    figure.colorbar(filled, ax=axes[:, first:-1], label=quantity, location="bottom", aspect=40, pad=0.08 / len(rows))
    handles = [*legend(names), Line2D([], [], color="0.4", linestyle="--", label=f"circle: {rho:g} from the prompt")]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return style.save(figure, path)


def centre(surface: Surface) -> float:
    """The value at the prompt."""
    middle = len(surface.alphas) // 2
    return float(surface.losses[middle, middle])


def change(surface: Surface) -> Surface:
    """The difference from the value at the prompt."""
    return surface._replace(losses=surface.losses - centre(surface))


def levels(surfaces: Sequence[Surface]) -> np.ndarray:
    """Round contour levels that span all surfaces."""
    low = min(float(surface.losses.min()) for surface in surfaces)
    high = max(float(surface.losses.max()) for surface in surfaces)
    return MaxNLocator(N_LEVELS).tick_values(low, high)


def draw_contours(axis: Axes, surface: Surface, bounds: np.ndarray, radius: float) -> QuadContourSet:
    """Filled contours with lines between them; a cross at the prompt and a circle around it."""
    grid = surface.alphas.numpy(), surface.betas.numpy(), surface.losses.numpy().T  # rows of a picture are its y
    filled = axis.contourf(*grid, levels=bounds, cmap=style.SURFACE)
    axis.contour(*grid, levels=bounds, colors="white", linewidths=0.5, linestyles="solid")
    outline = [withStroke(linewidth=2.2, foreground="0.25")]
    axis.plot(0, 0, marker="+", color="white", markersize=7, markeredgewidth=1.3, path_effects=outline)
    axis.add_patch(Circle((0, 0), radius, fill=False, edgecolor="white", linestyle="--", path_effects=outline))
    span = float(surface.alphas[-1])
    axis.set(aspect="equal", xticks=(-span, 0, span), yticks=(-span, 0, span))
    axis.grid(False)
    return filled


def draw_slices(axis: Axes, surfaces: Mapping[str, Surface], quantity: str) -> None:
    """Each run's loss along the two axes of its plane."""
    for i, surface in enumerate(surfaces.values()):
        look, middle = style.line(i), len(surface.alphas) // 2
        every = max(1, len(surface.alphas) // 8)
        axis.plot(surface.alphas, surface.losses[:, middle], markevery=every, **look)
        axis.plot(
            surface.betas, surface.losses[middle], color=look["color"], linestyle=look["linestyle"], linewidth=0.7
        )
    axis.set_ylabel(quantity)


def legend(names: Sequence[str]) -> list[Line2D]:
    """Of the slices: the runs, and that thin lines are those along the second axis."""
    lines = [Line2D([], [], label=name, **style.line(i)) for i, name in enumerate(names)]
    return [*lines, Line2D([], [], color="0.4", linewidth=0.7, label="thin: along β")]
