"""Panels of a benchmark: truth and reconstructions of one slice above, their errors below, in a window of HU."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from deft_ct.evaluation.metrics import psnr, rmse
from deft_ct.evaluation.problem import Floats, Problem
from deft_ct.problems.ct_metrics import DATA_RANGE_HU, body_mask
from deft_ct.report.figures import FOOTER, STYLE, Window, save_png, show_image
from deft_ct.report.panels import around_body, same_shape, window_for

__all__ = ["PANELS", "error_figure", "write_panels"]

PANELS = "panels"
"""Folder of the panels, in the folder of a benchmark."""

_CELL_INCHES = 2.2


def error_figure(
    truth: ArrayLike | torch.Tensor,
    reconstructions: Mapping[str, ArrayLike | torch.Tensor],
    *,
    window: Window | None = None,
    data_range_hu: float = DATA_RANGE_HU,
    title: str = "",
) -> Figure:
    """A slice, cropped to the body: truth and reconstructions in one window, and the error of each on one scale.

    Args:
        truth: ``(H, W)`` in HU.
        reconstructions: name -> HU, same shape, in the order of the columns.
        window: grey scale and error scale; :func:`~deft_ct.report.panels.window_for` the truth when None.
        data_range_hu: data range of the PSNR, which is of the whole slice; the RMSE is of the body.
        title: of the figure; the window is added to it.

    Raises:
        ValueError: shapes differ, or there is no reconstruction.
    """
    reference, images = same_shape(truth, reconstructions)
    if not images:
        raise ValueError("a panel needs at least one reconstruction")
    window = window or window_for(reference)
    body = body_mask(reference)
    part = around_body(body)
    height, width = reference[part].shape
    cell = _CELL_INCHES * height / width
    with rc_context(STYLE):
        figure = Figure(figsize=(_CELL_INCHES * (1 + len(images)), 2 * cell + 1.1))
        FigureCanvasAgg(figure)
        figure.set_layout_engine("compressed", h_pad=0.02, w_pad=0.02, rect=(0.0, 0.08, 1.0, 0.92))
        axes = figure.subplots(2, 1 + len(images), squeeze=False)
        low, high = window.limits
        show_image(axes[0, 0], reference[part], "gray", low, high)
        axes[0, 0].set_title("truth\n")
        axes[1, 0].set_axis_off()
        for (above, below), (name, image) in zip(axes[:, 1:].T, images.items(), strict=True):
            quality = psnr(image, reference, data_range=data_range_hu)[0]
            error = rmse(image, reference, mask=body)[0] if body.any() else float("nan")
            show_image(above, image[part], "gray", low, high)
            above.set_title(f"{name}\n{quality:.1f} dB, {error:.0f} HU")
            limit = window.error_limit
            picture = show_image(below, (image - reference)[part], "RdBu_r", -limit, limit)
        bar = figure.colorbar(picture, ax=axes[1, 0], location="left", extend="both", shrink=0.8, aspect=18)
        bar.set_label("error: reconstruction - truth, HU")
        grey = f"{window.name} window (level {window.level:.0f}, width {window.width:.0f} HU)"
        figure.suptitle(f"{title}; {grey}" if title else grey, fontsize=9)
        note = f"{FOOTER}.\nPSNR of the whole slice, data range {data_range_hu:g} HU; RMSE inside the body."
        figure.text(0.5, 0.012, note, ha="center", va="bottom", fontsize=7)
    return figure


def write_panels(
    folder: Path, problem: Problem, estimates: Mapping[str, Floats], *, images: Sequence[int] = (0,)
) -> list[Path]:
    """Write panels of some images of a problem to ``folder/panels``, where the page of the benchmark finds them.

    Args:
        folder: of the benchmark.
        problem: images in HU.
        estimates: method -> ``(N, H, W)`` HU, as ``Score.estimate``.
        images: places of the images in the problem.

    Returns:
        The files.

    Raises:
        ValueError: the problem is not in HU, or there is no such image.
    """
    if problem.unit != "HU":
        raise ValueError(
            f"panels show images in HU, and {problem.name} is in {problem.unit or 'values without a unit'}"
        )
    if wrong := [n for n in images if not 0 <= n < len(problem)]:
        raise ValueError(f"{problem.name} has {len(problem)} images, so none with the numbers {wrong}")
    written = []
    for n in images:
        name = problem.image_ids[n]
        figure = error_figure(
            problem.truth[n], {label: estimate[n] for label, estimate in estimates.items()},
            title=f"{problem.title}; {name}",
        )  # fmt: skip
        file = re.sub(r"[^A-Za-z0-9=.,_-]+", "-", f"{problem.name}-{name}") + ".png"
        written.append(save_png(figure, folder / PANELS / file))
    return written
