"""Figures of photographs: truth, data and methods side by side, each with its PSNR."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from deft_ct.evaluation.metrics import psnr
from deft_ct.report.figures import STYLE

__all__ = ["gallery_figure"]

_CELL_INCHES = 1.5
_DATA_RANGE = 2.0


def gallery_figure(truth: Tensor, data: Tensor, restored: Mapping[str, Tensor], *, title: str = "") -> Figure:
    """One row for each photograph: truth, data as a picture, and every method with its PSNR.

    Args:
        truth: ``(N, C, H, W)`` in [-1, 1], one channel or three.
        data: ``(N, C', H', W')``, see :func:`~deft_ct.problems.natural_pictures.data_pictures`; of any size.
        restored: method -> images of the shape of ``truth``.
        title: of the figure.

    Returns:
        A figure on an Agg canvas. Values are clipped to [-1, 1] to be shown, and not for the PSNR.

    Raises:
        ValueError: the counts or shapes differ.
    """
    if any(images.shape != truth.shape for images in restored.values()) or len(data) != len(truth):
        raise ValueError(f"a gallery needs images of one shape, {tuple(truth.shape)}, and as many data")
    columns: dict[str, Tensor] = {"truth": truth, "data": data, **restored}
    count, aspect = len(truth), truth.shape[2] / truth.shape[3]
    with rc_context(STYLE):
        figure = Figure(figsize=(_CELL_INCHES * len(columns), count * (_CELL_INCHES * aspect + 0.28) + 0.5))
        FigureCanvasAgg(figure)
        figure.set_layout_engine("constrained", h_pad=0.01, w_pad=0.01, hspace=0.0, wspace=0.0, rect=(0, 0, 1, 0.98))
        axes = figure.subplots(count, len(columns), squeeze=False)
        for column, (name, images) in enumerate(columns.items()):
            quality = psnr(images, truth, data_range=_DATA_RANGE) if name in restored else None
            for row in range(count):
                axis = axes[row, column]
                picture = (images[row].detach().cpu().clamp(-1, 1).numpy() + 1) / 2
                shown = picture[0] if len(picture) == 1 else np.moveaxis(picture, 0, -1)
                axis.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
                axis.set_axis_off()
                value = "" if quality is None else f"{quality[row]:.1f} dB"
                axis.set_title("\n".join(part for part in (name if row == 0 else "", value) if part), fontsize=7.5)
        figure.suptitle(title, fontsize=9)
    return figure
