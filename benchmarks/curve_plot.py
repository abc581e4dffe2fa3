"""The figure of `benchmarks.curves`: four panels, each slope in its legend."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import NullLocator, StrMethodFormatter

from benchmarks.curve_record import PANELS, Curve, PanelName, Record, mark
from benchmarks.slopes import Power

# Colours that the colour-blind can tell apart (Okabe and Ito), and markers for print without any.
STYLES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"))

LEGEND_LINE_INCHES = 0.19


def plot(record: Record, path: Path) -> None:
    """Draw what the record has of the four panels; time and memory of a group share one."""
    figure = Figure(figsize=(10, 8), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
    figure.suptitle(record.title(), fontsize=11)
    for panel, axes in _axes(figure).items():
        curves = [curve for curve in record.curves if curve.panel == panel]
        if curves:
            draw(axes, panel, curves)
        else:
            axes.remove()
    figure.savefig(path, dpi=150)


def _axes(figure: Figure) -> dict[PanelName, Any]:
    """Two rows of two, the second one of them halved."""
    grid = figure.add_gridspec(2, 2)
    halves = grid[0, 1].subgridspec(2, 1)
    places: dict[PanelName, Any] = {
        "batch": grid[0, 0], "group": halves[0], "memory": halves[1], "iterations": grid[1, 0], "size": grid[1, 1],
    }  # fmt: skip
    return {name: figure.add_subplot(place) for name, place in places.items()}


def draw(axes: Any, panel: PanelName, curves: Sequence[Curve]) -> None:
    """Points and fitted lines, labelled with their slopes."""
    shown = PANELS[panel]
    for curve, (colour, marker) in zip(curves, STYLES, strict=False):
        label = f"{curve.name}: {curve.describe()}"
        places = fit_places(curve)
        axes.plot(curve.x, curve.median, marker, color=colour, markersize=5)
        axes.plot(places, [curve.fit.at(place) for place in places], color=colour, linewidth=1.2)
        axes.plot([], [], f"-{marker}", color=colour, markersize=5, label=label)
        if curve.limit is not None:
            axes.axvline(curve.limit, color=colour, linestyle=":", linewidth=1, label=f"full at N = {curve.limit}")
    axes.set(title=shown.title, xlabel=shown.x_label, ylabel=shown.y_label)
    ticks = {x: mark(curve, x) for curve in curves for x in curve.x}
    if shown.law is Power:
        axes.set(xscale="log", yscale="log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.grid(alpha=0.3)
    legend = axes.legend(frameon=False, fontsize=9, loc="upper left", labelspacing=0.3)
    _make_room(axes, len(legend.get_texts()) * LEGEND_LINE_INCHES / shown.inches)


def _make_room(axes: Any, share: float) -> None:
    """Leave this share of the height free above the points, for the legend."""
    low, high = axes.get_ylim()
    if axes.get_yscale() == "log":
        axes.set_ylim(low, low * (high / low) ** (1 / (1 - share)))
    else:
        axes.set_ylim(0, high / (1 - share))


def fit_places(curve: Curve) -> list[float]:
    """Where a fit is drawn: over the points that it looked at, a line from 0 on, which shows the fixed cost."""
    last = curve.limit or curve.x[-1]
    if isinstance(curve.fit, Power):
        return [float(place) for place in np.geomspace(curve.x[0], last, 20)]
    return [0.0, float(last)]
