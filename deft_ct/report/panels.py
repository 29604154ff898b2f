"""One slice in detail: reconstructions above; errors, spread and unmeasured energy below, on common colour scales."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from deft_ct.evaluation.metrics import Mask, psnr, rmse
from deft_ct.problems.ct_metrics import DATA_RANGE_HU, body_mask
from deft_ct.report.figures import FOOTER, LUNG, SOFT_TISSUE, STYLE, Window, as_image, show_image

_CELL_INCHES = 2.6
_MARGIN_PX = 6
_LUNG_HU = -500.0
_LUNG_SHARE = 0.2


def window_for(truth: ArrayLike | torch.Tensor) -> Window:
    """The window that fits a slice: lung where lung (below -500 HU) fills a fifth of the body, else soft tissue.

    Args:
        truth: ``(H, W)`` in HU.

    Raises:
        ValueError: another shape, or values that are not finite.
    """
    image = as_image("truth", truth, None)
    body = body_mask(image)
    return LUNG if body.any() and float((image[body] < _LUNG_HU).mean()) > _LUNG_SHARE else SOFT_TISSUE


def same_shape(
    truth: ArrayLike | torch.Tensor, images: Mapping[str, ArrayLike | torch.Tensor]
) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """The truth and images as arrays ``(H, W)``.

    Raises:
        ValueError: an image has another shape than the truth, or values that are not finite.
    """
    reference = as_image("truth", truth, None)
    found = {name: as_image(name, image, None) for name, image in images.items()}
    for name, image in found.items():
        if image.shape != reference.shape:
            raise ValueError(f"{name} must have the shape of truth, {reference.shape}, got {image.shape}")
    return reference, found


def panel_figure(
    truth: ArrayLike | torch.Tensor,
    reconstructions: Mapping[str, ArrayLike | torch.Tensor],
    maps: Mapping[str, ArrayLike | torch.Tensor],
    *,
    errors_of: tuple[str, ...],
    window: Window | None = None,
    data_range_hu: float = DATA_RANGE_HU,
    title: str = "",
) -> Figure:
    """A slice, cropped to the body: truth and reconstructions in the first row, errors and maps in the second.

    Args:
        truth: ``(H, W)`` in HU.
        reconstructions: name -> HU, same shape, in the order of the columns.
        maps: name -> map in HU, >= 0, same shape (spread, unmeasured energy); all on one colour scale.
        errors_of: reconstructions whose error (minus truth) is shown; all on one colour scale.
        window: grey scale and colour scales; :func:`window_for` the truth when None.
        data_range_hu: data range of the PSNR in the titles, which is of the whole slice; the RMSE is of the body.
        title: of the figure; the window is added to it.

    Returns:
        A figure on an Agg canvas; write it with :func:`~deft_ct.report.save_png`.

    Raises:
        ValueError: shapes differ, there is nothing to show in a row, or an unknown name in ``errors_of``.
    """
    reference, images = same_shape(truth, reconstructions)
    _, energies = same_shape(truth, maps)
    unknown = [name for name in errors_of if name not in images]
    if unknown or not images or not errors_of or not energies:
        raise ValueError(
            f"expected reconstructions, maps and errors_of some of the reconstructions, got {sorted(images)}, "
            f"{sorted(energies)} and {list(errors_of)}"
        )
    window = window or window_for(reference)
    body = body_mask(reference)
    part = around_body(body)
    columns = max(1 + len(images), len(errors_of) + len(energies))
    height, width = reference[part].shape
    cell = _CELL_INCHES * min(1.0, height / width)
    with rc_context(STYLE):
        figure = Figure(figsize=(_CELL_INCHES * columns, 2 * cell + 2.0))
        FigureCanvasAgg(figure)
        figure.set_layout_engine("compressed", h_pad=0.03, w_pad=0.03, rect=(0.0, 0.045, 1.0, 0.955))
        axes = figure.subplots(2, columns, squeeze=False)
        for axis in axes.flat:
            axis.set_axis_off()
        low, high = window.limits
        for axis, (name, image) in zip(axes[0], {"truth": reference, **images}.items(), strict=False):
            show_image(axis, image[part], "gray", low, high)
            axis.set_title(name if name == "truth" else f"{name}\n{_quality(image, reference, body, data_range_hu)}")
        count = len(errors_of)
        for axis, name in zip(axes[1], errors_of, strict=False):
            difference = images[name] - reference
            limit = window.error_limit
            picture = show_image(axis, difference[part], "RdBu_r", -limit, limit)
            axis.set_title(f"error of {name}")
        bar = figure.colorbar(picture, ax=axes[1, :count], location="bottom", extend="both", shrink=0.7, aspect=35)
        bar.set_label("reconstruction - truth, HU")
        for axis, (name, image) in zip(axes[1, count:], energies.items(), strict=False):
            picture = show_image(axis, image[part], "magma", 0.0, window.spread_limit)
            axis.set_title(name)
        shown = axes[1, count : count + len(energies)]
        bar = figure.colorbar(picture, ax=shown, location="bottom", extend="max", shrink=0.7, aspect=50)
        bar.set_label("HU")
        grey = f"{window.name} window (level {window.level:.0f}, width {window.width:.0f} HU)"
        figure.suptitle(f"{title}; {grey}" if title else grey, fontsize=10)
        note = f"{FOOTER}.  PSNR of the whole slice at a data range of {data_range_hu:g} HU; RMSE inside the body."
        figure.text(0.5, 0.012, note, ha="center", va="bottom", fontsize=8)
    return figure


def _quality(image: NDArray[np.float64], truth: NDArray[np.float64], body: Mask, data_range_hu: float) -> str:
    ratio = psnr(image, truth, data_range=data_range_hu)[0]
    return f"{ratio:.1f} dB, {rmse(image, truth, mask=body)[0]:.0f} HU"


def around_body(body: Mask) -> tuple[slice, slice]:
    """The rectangle around the body ``(H, W)``, with a margin; everything where there is none."""
    if not body.any():
        return slice(None), slice(None)
    spans = [np.flatnonzero(body.any(axis=axis)) for axis in (1, 0)]
    rows, columns = (slice(max(0, int(s[0]) - _MARGIN_PX), int(s[-1]) + 1 + _MARGIN_PX) for s in spans)
    return rows, columns
