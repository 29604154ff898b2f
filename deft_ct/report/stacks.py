"""Slices or frames of a result without a truth, with a scale in its own unit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deft_ct.report.figures import STYLE, show_image

MOST_PICTURES = 6
_COLUMNS = 3
_INCHES = 3.4


def stack_figure(
    stacks: Sequence[tuple[NDArray[np.floating], str]], *, names: Sequence[str], title: str, note: str
) -> Figure:
    """Up to six images of a stack, evenly spread, for the mean and, if there is one, for the spread.

    Args:
        stacks: ``(n, rows, columns)`` and its unit: the mean, and perhaps the posterior standard deviation.
        names: of the images.
        title: above the pictures.
        note: below them.
    """
    count = len(names)
    chosen = np.unique(np.linspace(0, count - 1, min(count, MOST_PICTURES)).round().astype(int))
    columns = min(len(chosen), _COLUMNS)
    rows = -(-len(chosen) // columns)
    with rc_context(STYLE):
        figure = Figure(figsize=(columns * _INCHES + 0.9, len(stacks) * rows * _INCHES + 0.8), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(stacks) * rows, columns, squeeze=False)
        for axis in axes.flat:
            axis.set_axis_off()
        for block, (stack, unit) in enumerate(stacks):
            own = axes[block * rows : (block + 1) * rows].ravel()
            low, high = (float(v) for v in np.percentile(stack, (0.2, 99.8)))
            low, high = (min(0.0, low) if block else low), high if high > low else low + 1.0
            shown = None
            for axis, n in zip(own, chosen, strict=False):
                axis.set_axis_on()
                shown = show_image(axis, stack[n].astype(np.float64), "gray" if block == 0 else "magma", low, high)
                axis.set_title(names[n] if block == 0 else f"{names[n]}, posterior std")
            assert shown is not None
            bar = figure.colorbar(shown, ax=own.tolist(), shrink=0.85, pad=0.02)
            bar.set_label(unit)
        figure.suptitle(title, fontsize=10)
        figure.supxlabel(note, fontsize=8)
    return figure
