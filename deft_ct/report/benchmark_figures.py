"""Figures of a benchmark: the spread of a metric over images, and quality against time."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter

from deft_ct.evaluation.problem import Metric
from deft_ct.evaluation.summary import finished, image_values, records
from deft_ct.report.figures import FOOTER, STYLE, save_png
from deft_ct.runtime.atomic import write_text

__all__ = ["PAGE_COLORS", "PRINT_COLORS", "FigureColors", "box_figure", "inline_svg", "save_figure", "time_figure"]


@dataclass(frozen=True)
class FigureColors:
    """Colours of a figure: of text, of lines of lesser weight, of the grid, two for the data, and of the paper."""

    ink: str
    muted: str
    grid: str
    data: str
    light: str
    paper: str


PRINT_COLORS = FigureColors("#1c1e21", "#5d6470", "#dfe2e7", "#0b6bcb", "#cfe3f7", "#ffffff")
PAGE_COLORS = FigureColors("#a10001", "#a10002", "#a10003", "#a10004", "#a10005", "#a10006")
"""Stand-ins that :func:`inline_svg` replaces by the variables of the page, so that figures follow its theme."""
_VARIABLES = {
    "#a10001": "ink",
    "#a10002": "muted",
    "#a10003": "line",
    "#a10004": "accent",
    "#a10005": "accent-soft",
    "#a10006": "card",
}

_MOST_COLUMNS = 3
_Point = tuple[float, float, float, float, str]
_MOST_POINTS = 400


def box_figure(rows: pd.DataFrame, metric: Metric, *, colors: FigureColors = PRINT_COLORS) -> Figure:
    """Values of every image: a box (quartiles, median) and whiskers (5 to 95 %) for each method, one plot a problem.

    Args:
        rows: of a benchmark, at least one of them with a result.
        metric: what is shown.
        colors: of the figure.

    Returns:
        A figure on an Agg canvas.

    Raises:
        ValueError: no method has a value.
    """
    problems = _problems(finished(rows), metric)
    methods = list(dict.fromkeys(str(name) for _, part in problems for name in part["method"]))
    places = {name: place for place, name in enumerate(reversed(methods), start=1)}
    figure, axes = _grid(len(problems), 0.27 * len(methods) + 0.75, colors, sharey=True)
    for axis, (title, part) in zip(axes, problems, strict=True):
        groups = {str(name): _defined(own, metric) for name, own in part.groupby("method", sort=False)}
        groups = {name: values for name, values in groups.items() if len(values)}
        line = {"color": colors.ink, "linewidth": 0.9}
        axis.boxplot(
            list(groups.values()), positions=[places[name] for name in groups], orientation="horizontal", whis=(5, 95),
            widths=0.55, showfliers=False, patch_artist=True, manage_ticks=False,
            boxprops={"facecolor": colors.light, "edgecolor": colors.data, "linewidth": 0.9},
            medianprops={"color": colors.data, "linewidth": 1.8}, whiskerprops=line, capprops=line,
        )  # fmt: skip
        for name, values in groups.items():
            kept = values[:: -(-len(values) // _MOST_POINTS)]
            offset = ((np.arange(len(kept)) * 0.618034) % 1 - 0.5) * 0.36  # spread evenly and without chance
            axis.plot(kept, places[name] + offset, ".", color=colors.muted, markersize=2.2, alpha=0.7, zorder=3)
        axis.set_yticks(list(places.values()), list(places))
        axis.set_ylim(0.4, len(methods) + 0.6)
        _finish(axis, title, colors)
        axis.set_xlabel(metric.heading + _direction(metric))
    return figure


def time_figure(summary: pd.DataFrame, metric: Metric, *, colors: FigureColors = PRINT_COLORS) -> Figure:
    """Mean of a metric against seconds per image, with the 95 % interval over patients, one plot for each problem.

    With one patient the interval is that over images. The line joins the methods that no faster one equals, where the
    metric has a direction.

    Args:
        summary: see :func:`~deft_ct.evaluation.summary.summary_frame`.
        metric: what is shown.
        colors: of the figure.

    Raises:
        ValueError: no method has a value.
    """
    problems = _problems(summary, metric)
    figure, axes = _grid(len(problems), 2.9, colors)
    drawn = []
    for axis, (title, part) in zip(axes, problems, strict=True):
        points = sorted(point for line in records(part) if (point := _point(line, metric)) is not None)
        axis.set_xscale("log")
        front = _front(points, metric)
        if front:
            axis.plot(*zip(*front, strict=True), "-", color=colors.data, linewidth=1.0, alpha=0.6, zorder=1)
        for seconds, mean, low, high, _ in points:
            if np.isfinite(low):
                axis.plot([seconds, seconds], [low, high], "-", color=colors.muted, linewidth=0.9, zorder=2)
            axis.plot(seconds, mean, "o", color=colors.data, markersize=5, zorder=3)
        axis.margins(0.16, 0.14)
        _finish(axis, title, colors)
        axis.set_xlabel("seconds per image")
        axis.set_ylabel(metric.heading + _direction(metric))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        drawn.append(points)
    figure.canvas.draw()  # so that the places of the points are known
    for axis, points in zip(axes, drawn, strict=True):
        _label(axis, points, metric, colors)
    return figure


def _point(line: dict[str, Any], metric: Metric) -> _Point | None:
    """Seconds, mean, interval and method; None if they cannot be drawn."""
    mean, seconds = float(line[metric.key]), float(line["seconds"])
    if not (np.isfinite(mean) and seconds > 0):
        return None
    ends = [(line[f"{metric.key}{over}_low"], line[f"{metric.key}{over}_high"]) for over in ("_patients", "")]
    low, high = next((pair for pair in ends if not np.isnan(pair[0])), (np.nan, np.nan))
    return seconds, mean, float(low), float(high), str(line["method"])


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG and as SVG, with text as outlines; the same figure gives the same bytes.

    Args:
        figure: on an Agg canvas.
        path: without a suffix.
    """
    save_png(figure, path.with_name(path.name + ".png"))
    write_text(path.with_name(path.name + ".svg"), _svg(figure, "path", transparent=False))


def inline_svg(figure: Figure, title: str) -> str:
    """A figure in :data:`PAGE_COLORS` as an SVG element: its colours are variables of the page, its text is text.

    Args:
        figure: on an Agg canvas.
        title: read aloud instead of the picture.
    """
    text = _svg(figure, "none", transparent=True)
    text = text[text.index("<svg") :]
    for stand_in, name in _VARIABLES.items():
        text = text.replace(stand_in, f"var(--{name})")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*pt"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*pt"', r"\1", text))
    quoted = title.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    return text.replace("<svg", f'<svg role="img" aria-label="{quoted}"', 1).replace("'DejaVu Sans'", "inherit")


def _svg(figure: Figure, fonts: str, *, transparent: bool) -> str:
    stream = io.StringIO()
    with rc_context({**STYLE, "svg.fonttype": fonts, "svg.hashsalt": "deft-ct"}):
        figure.savefig(
            stream,
            format="svg",
            transparent=transparent,
            metadata={"Date": None, "Creator": None, "Description": FOOTER},
        )
    return stream.getvalue()


def _problems(rows: pd.DataFrame, metric: Metric) -> list[tuple[str, pd.DataFrame]]:
    """Title and rows, or lines of a summary, of every problem with a value of the metric."""
    groups = list(rows.groupby(["data", "split", "problem"], sort=False, dropna=False))
    several = len({names[0] for names, _ in groups}) > 1
    found = [
        (f"{names[2]}\n{names[0]}" if several else str(names[2]), part)
        for names, part in groups
        if part[metric.key].notna().any()
    ]
    if not found:
        raise ValueError(f"no method has a value of {metric.key}")
    return found


def _defined(rows: pd.DataFrame, metric: Metric) -> Any:
    values = image_values(rows, metric.key)["value"].to_numpy(dtype=np.float64)
    return values[np.isfinite(values)]


def _grid(count: int, height: float, colors: FigureColors, *, sharey: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure with one plot for each problem."""
    columns = min(count, _MOST_COLUMNS)
    lines = -(-count // columns)
    with rc_context({**STYLE, "axes.edgecolor": colors.muted}):
        figure = Figure(figsize=(3.5 * columns + 0.3, height * lines + 0.2), layout="constrained")
        FigureCanvasAgg(figure)
        axes = list(figure.subplots(lines, columns, squeeze=False, sharey=sharey).flat)
    for spare in axes[count:]:
        spare.remove()
    return figure, axes[:count]


def _finish(axis: Axes, title: str, colors: FigureColors) -> None:
    axis.set_title(title, color=colors.ink, fontsize=9, fontweight="bold", loc="left")
    axis.grid(axis="both" if axis.get_xscale() == "log" else "x", color=colors.grid, linewidth=0.7, which="major")
    axis.set_axisbelow(True)
    axis.tick_params(colors=colors.muted, labelcolor=colors.ink, which="both", length=0)
    for name, side in axis.spines.items():
        side.set_visible(name in ("bottom", "left"))
        side.set_color(colors.grid)
    axis.xaxis.label.set_color(colors.muted)
    axis.yaxis.label.set_color(colors.muted)


def _direction(metric: Metric) -> str:
    return {"highest": ", higher is better", "lowest": ", lower is better", None: ""}[metric.best]


def _front(points: Sequence[_Point], metric: Metric) -> list[tuple[float, float]]:
    """The points that no faster one equals, in order of time."""
    if metric.best is None:
        return []
    sign = 1 if metric.best == "highest" else -1
    found: list[tuple[float, float]] = []
    for seconds, mean, *_ in points:
        if not found or sign * mean > sign * found[-1][1]:
            found.append((seconds, mean))
    return found


def _label(axis: Axes, points: Sequence[_Point], metric: Metric, colors: FigureColors) -> None:
    """Names beside the points, away from the line that joins the best ones, and each in a place of its own."""
    to_points = 72 / axis.figure.dpi
    edge = float(axis.bbox.x1)
    places = [tuple(axis.transData.transform(point[:2])) for point in points]
    taken = [(x - 5, x + 5, y - 5, y + 5) for x, y in places]
    outward = -1 if metric.best != "lowest" else 1  # the line rises to the right if high values are better
    for (x, y), (seconds, mean, *_, name) in zip(places, points, strict=True):
        width = 4.4 * len(name) / to_points
        for step in range(2000):
            left, shift = bool(step % 2), (12 + 7 * (step // 2)) * (-outward if step % 2 else outward)
            begin = x - width - 4 if left else x + 4
            box = (begin, begin + width, y + shift - 7, y + shift + 7)
            inside = box[1] <= edge or left
            if inside and not any(a < box[1] and box[0] < b and c < box[3] and box[2] < d for a, b, c, d in taken):
                break
        taken.append(box)
        axis.annotate(
            name, (seconds, mean), xytext=(-4 * to_points if left else 4 * to_points, shift * to_points),
            textcoords="offset points", ha="right" if left else "left", va="center", color=colors.ink, fontsize=7.5,
            zorder=4, path_effects=[withStroke(linewidth=2.2, foreground=colors.paper)],
        )  # fmt: skip
