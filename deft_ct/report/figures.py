"""Pictures of reconstructions and the truth, in clinical windows.

Figures are built with matplotlib's object interface on the Agg canvas: no pyplot, no global state, no display, and the
same bytes for the same input.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import ArrayLike, NDArray

from deft_ct.evaluation.metrics import psnr, rmse
from deft_ct.problems.ct_metrics import DATA_RANGE_HU, body_mask
from deft_ct.runtime.atomic import atomic_file

FOOTER = "Research only, not for clinical use; simulated sparse view"
FOOTER_OF_PHOTOGRAPHS = "Research only; degraded photographs"


def footer_of(group_noun: str) -> str:
    """What results say of themselves.

    Args:
        group_noun: ``Problem.group_noun`` of their images.
    """
    return FOOTER_OF_PHOTOGRAPHS if group_noun == "photograph" else FOOTER


_CELL_INCHES = 2.3
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8.0,
    "axes.titlesize": 8.0,
    "savefig.dpi": 120,
    "figure.dpi": 120,
}


@dataclass(frozen=True, kw_only=True)
class Window:
    """A row of the figure: a grey-scale window and the colour scales that go with its contrast.

    Args:
        name: shown at the left of the row.
        level: centre in HU.
        width: in HU.
        spread_limit: upper end of the colour scale of the spread, in HU.
        error_limit: both ends of the colour scale of the error, in HU.
    """

    name: str
    level: float
    width: float
    spread_limit: float
    error_limit: float

    def __post_init__(self) -> None:
        for name in ("width", "spread_limit", "error_limit"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} of a window must be positive, got {getattr(self, name)}")

    @property
    def limits(self) -> tuple[float, float]:
        """Black and white, in HU."""
        return self.level - self.width / 2, self.level + self.width / 2


LUNG = Window(name="lung", level=-600, width=1500, spread_limit=150, error_limit=250)
SOFT_TISSUE = Window(name="soft tissue", level=40, width=400, spread_limit=100, error_limit=100)


@dataclass(frozen=True, kw_only=True)
class FigureStyle:
    """How a comparison is shown.

    Args:
        windows: the rows.
        data_range_hu: data range of the PSNR in the titles, which also give the RMSE inside the body.
        title: of the figure.
    """

    windows: tuple[Window, ...] = (LUNG, SOFT_TISSUE)
    data_range_hu: float = DATA_RANGE_HU
    title: str = ""


def comparison_figure(
    truth: ArrayLike | torch.Tensor,
    reconstructions: Mapping[str, ArrayLike | torch.Tensor],
    spread: ArrayLike | torch.Tensor | None = None,
    *,
    slice_index: int | None = None,
    error_of: str | None = None,
    calibrated: bool = False,
    style: FigureStyle = FigureStyle(),
) -> Figure:
    """One slice: truth, every method, the posterior spread and the error; one row per window.

    Args:
        truth: ``(Z, H, W)`` or ``(H, W)`` in HU.
        reconstructions: name of the method -> HU of the same shape, in the order of the columns.
        spread: posterior standard deviation in HU, same shape; no column without it.
        slice_index: which slice of a volume, the middle one by default.
        error_of: the method whose error (method minus truth) is shown, the last by default.
        calibrated: whether the spread is; said above its column.
        style: windows, titles.

    Returns:
        A figure on an Agg canvas; write it with :func:`save_png`.

    Raises:
        ValueError: no reconstruction, shapes differ, an unknown method, or no such slice.
    """
    windows, data_range_hu = style.windows, style.data_range_hu
    reference = as_image("truth", truth, slice_index)
    if not reconstructions:
        raise ValueError("comparison_figure needs at least one reconstruction")
    images = {name: as_image(name, image, slice_index) for name, image in reconstructions.items()}
    deviation = None if spread is None else as_image("spread", spread, slice_index)
    for name, image in {**images, **({} if deviation is None else {"spread": deviation})}.items():
        if image.shape != reference.shape:
            raise ValueError(f"{name} must have the shape of truth, {reference.shape}, got {image.shape}")
    shown = next(reversed(images)) if error_of is None else error_of
    if shown not in images:
        raise ValueError(f"error_of must be one of {sorted(images)}, got {error_of!r}")

    body = body_mask(reference)
    titles = {"truth": "truth\n"}
    for name, image in images.items():
        ratio = psnr(image, reference, data_range=data_range_hu)[0]
        error = rmse(image, reference, mask=body)[0]
        titles[name] = f"{name}\n{ratio:.1f} dB, {error:.0f} HU"

    columns = 1 + len(images) + (deviation is not None) + 1
    aspect = reference.shape[0] / reference.shape[1]
    with rc_context(STYLE):
        figure = Figure(figsize=(_CELL_INCHES * columns + 0.3, (_CELL_INCHES * aspect + 0.1) * len(windows) + 0.9))
        FigureCanvasAgg(figure)
        figure.set_layout_engine("compressed", h_pad=0.02, w_pad=0.02, rect=(0.0, 0.045, 1.0, 0.955))
        axes = figure.subplots(len(windows), columns, squeeze=False)
        for row, window in enumerate(windows):
            low, high = window.limits
            greys = {"truth": reference, **images}
            for axis, (name, image) in zip(axes[row], greys.items(), strict=False):
                show_image(axis, image, "gray", low, high)
                if row == 0:
                    axis.set_title(titles[name])
            axes[row, 0].set_ylabel(f"{window.name}\nlevel {window.level:.0f}, width {window.width:.0f} HU")
            if deviation is not None:
                picture = show_image(axes[row, -2], deviation, "magma", 0.0, window.spread_limit)
                figure.colorbar(picture, ax=axes[row, -2], extend="max", shrink=0.85, aspect=25)
            limit = window.error_limit
            picture = show_image(axes[row, -1], images[shown] - reference, "RdBu_r", -limit, limit)
            figure.colorbar(picture, ax=axes[row, -1], extend="both", shrink=0.85, aspect=25)
        if deviation is not None:
            axes[0, -2].set_title(f"{'calibrated' if calibrated else 'uncalibrated'} spread\nstandard deviation, HU")
        axes[0, -1].set_title(f"error\n{shown} - truth, HU")
        if style.title:
            figure.suptitle(style.title, fontsize=10)
        note = f"{FOOTER}.  PSNR at a data range of {data_range_hu:g} HU; RMSE inside the body."
        figure.text(0.5, 0.012, note, ha="center", va="bottom", fontsize=8)
    return figure


def save_png(figure: Figure, path: str | Path, *, comment: str = FOOTER) -> Path:
    """Write a figure as PNG: the same figure gives the same bytes (no date, no software version).

    Args:
        figure: from :func:`comparison_figure`, or any other.
        path: file to write, whole or not at all; an old one is replaced.
        comment: a note that the file carries.

    Returns:
        The path.
    """
    target = Path(path)
    with rc_context(STYLE), atomic_file(target) as part:
        figure.savefig(part, format="png", metadata={"Software": None, "Comment": comment})
    return target


def as_image(name: str, array: ArrayLike | torch.Tensor, slice_index: int | None) -> NDArray[np.float64]:
    """One slice ``(H, W)`` of an image or a volume, the middle one if None; ``name`` is for the error message.

    Raises:
        ValueError: another shape, or no such slice.
    """
    values = array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else np.asarray(array)
    if values.ndim not in (2, 3) or not values.size:
        raise ValueError(f"{name} must be (Z, H, W) or (H, W), got shape {values.shape}")
    if values.ndim == 3:
        index = len(values) // 2 if slice_index is None else slice_index
        if not 0 <= index < len(values):
            raise ValueError(f"slice_index must be between 0 and {len(values) - 1}, got {slice_index}")
        values = values[index]
    return values.astype(np.float64)


def show_image(axis: Axes, image: NDArray[np.float64], colors: str, low: float, high: float) -> AxesImage:
    """Draw an image without ticks and frame, between two values of a colour map; pixels stay pixels."""
    axis.set_xticks([])
    axis.set_yticks([])
    for side in axis.spines.values():
        side.set_visible(False)
    return axis.imshow(image, cmap=colors, vmin=low, vmax=high, aspect="equal", interpolation="nearest")
