"""The three middle planes of a volume, for results without a truth."""

from __future__ import annotations

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deft_ct.report.figures import STYLE, show_image

_WINDOWS = (("soft tissue", 40.0, 400.0), ("lung", -600.0, 1500.0))
_INCHES = 3.2


def planes_figure(
    hu: NDArray[np.floating], spacing_zyx: tuple[float, float, float], *, title: str, note: str
) -> Figure:
    """The axial, coronal and sagittal plane through the middle, in two windows, in the proportions of the patient.

    Args:
        hu: ``(slices, rows, columns)`` HU, from feet to head.
        spacing_zyx: (slice, row, column spacing) in mm.
        title: above the pictures.
        note: below them.
    """
    dz, dy, dx = spacing_zyx
    middle = [n // 2 for n in hu.shape]
    planes = {
        f"axial, slice {middle[0] + 1} of {len(hu)}": (hu[middle[0]], dy / dx),
        "coronal": (hu[::-1, middle[1]], dz / dx),
        "sagittal": (hu[::-1, :, middle[2]], dz / dy),
    }
    with rc_context(STYLE):
        figure = Figure(figsize=(len(planes) * _INCHES, len(_WINDOWS) * _INCHES + 0.6))
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(_WINDOWS), len(planes), squeeze=False)
        for row, (name, level, width) in enumerate(_WINDOWS):
            for column, (plane, (image, aspect)) in enumerate(planes.items()):
                axis = axes[row, column]
                show_image(axis, image.astype(np.float64), "gray", level - width / 2, level + width / 2)
                axis.set_aspect(aspect)
                if row == 0:
                    axis.set_title(plane)
            axes[row, 0].set_ylabel(f"{name}\nlevel {level:g}, width {width:g} HU")
        figure.suptitle(title, fontsize=10)
        figure.text(0.5, 0.012, note, ha="center", va="bottom", fontsize=8)
    return figure
