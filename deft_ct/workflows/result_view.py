"""What the viewer of a report shows of a result: layers, windows, and the slice that is worst."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deft_ct.report.figures import LUNG, SOFT_TISSUE
from deft_ct.report.tables import metrics_by_slice
from deft_ct.report.viewer import Layer, ViewWindow, VolumeView, axis_letters

if TYPE_CHECKING:
    from deft_ct.workflows.series_output import FinishedRun

Volume = NDArray[np.float32]

_CT_WINDOWS = (
    *(ViewWindow(name=w.name, level=w.level, width=w.width, limit=w.error_limit) for w in (SOFT_TISSUE, LUNG)),
    ViewWindow(name="bone", level=400, width=1800, limit=250),
    ViewWindow(name="whole range", level=400, width=2800, limit=500),
)


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A result without a truth.

    Attributes:
        title: of the mean.
        mean: ``(Z, H, W)`` in ``unit``.
        std: posterior standard deviation likewise, or None.
        unit: "HU", or that of the attenuation.
        spacing_zyx: distances of slices, rows and columns.
        affine: ``(4, 4)`` to LPS millimetres; None if there is no patient.
        names: of the slices, if they have some.
        stacked: whether they are a volume.
    """

    title: str
    mean: Volume
    std: Volume | None
    unit: str
    spacing_zyx: tuple[float, float, float]
    affine: NDArray[np.float64] | None = None
    names: Sequence[str] = ()
    stacked: bool = True


def view_of(shown: Shown) -> VolumeView:
    """The view of a result without a truth: the mean and, if there is one, the spread."""
    layers = [Layer(key="mean", title=shown.title, kind="image", unit=shown.unit, volume=lambda: shown.mean)]
    worst = None
    if (std := shown.std) is not None:
        layers.append(_spread(lambda: std, shown.unit))
        worst = _widest(std)
    return VolumeView(
        layers=layers, spacing_zyx=shown.spacing_zyx, worst=worst, names=shown.names, stacked=shown.stacked,
        windows=_CT_WINDOWS if shown.unit == "HU" else _own_windows(shown.mean, shown.std),
        directions=() if shown.affine is None else axis_letters(shown.affine),
    )  # fmt: skip


def series_view(run: FinishedRun) -> VolumeView:
    """The view of a series whose scan was simulated: mean, error, spread, differences to the other methods."""
    main, volume = run.rows[-1].method, run.series.volume
    layers = [Layer(key="mean", title=main, kind="image", unit="HU", volume=lambda: run.shown_hu, primary=True)]
    layers.append(_difference(run, "error", "error", "reference", lambda: run.reference_hu, primary=True))
    if (std := run.std_hu) is not None:
        layers.append(_spread(lambda: std, "HU", calibrated=run.calibrated))
    for name, row in zip(list(run.records)[:-1], run.rows[:-1], strict=True):
        title = f"{main} - {row.method}"
        layers.append(_difference(run, name, title, row.method, lambda name=name: run.compared_hu(name)))  # type: ignore[misc]
    if (unmeasured := run.unmeasured_hu) is not None:
        layers.append(Layer(key="unmeasured", title="not measured", kind="map", unit="HU", volume=lambda: unmeasured))
    psnr = run.rows[-1].metrics.psnr
    lowest = int(np.argmin(psnr))
    return VolumeView(
        layers=layers, spacing_zyx=(volume.z_mm, *volume.spacing_mm), windows=_CT_WINDOWS,
        directions=axis_letters(volume.affine), metrics=metrics_by_slice(run.rows),
        worst=(lowest, f"PSNR {psnr[lowest]:.2f} dB, the lowest of {main}"),
    )  # fmt: skip


def _difference(
    run: FinishedRun, key: str, title: str, other: str, read: Callable[[], Volume], *, primary: bool = False
) -> Layer:
    return Layer(
        key=key, title=title, kind="difference", unit="HU", volume=lambda: run.shown_hu - read(), subtracted=other,
        primary=primary,
    )  # fmt: skip


def _spread(read: Callable[[], Volume], unit: str, *, calibrated: bool | None = None) -> Layer:
    word = "spread" if calibrated is None else f"{'calibrated' if calibrated else 'uncalibrated'} spread"
    return Layer(key="spread", title=word, kind="map", unit=unit, volume=read)


def _widest(std: Volume) -> tuple[int, str]:
    means = std.mean(axis=(1, 2), dtype=np.float64)
    widest = int(np.argmax(means))
    return widest, f"mean spread {means[widest]:.3g}, the largest"


def _own_windows(mean: Volume, std: Volume | None) -> tuple[ViewWindow, ...]:
    """Windows of values that are no CT numbers."""
    low, high = (float(v) for v in np.percentile(mean, (0.2, 99.8)))
    width = max(high - low, 1e-6 * max(abs(low), abs(high), 1.0))
    limit = width / 10 if std is None else max(float(np.percentile(std, 99)), 1e-6 * width)
    middle = (low + high) / 2
    return (
        ViewWindow(name="usual range", level=middle, width=width, limit=limit),
        ViewWindow(name="upper half", level=middle + width / 4, width=width / 2, limit=limit / 2),
        ViewWindow(name="lower half", level=middle - width / 4, width=width / 2, limit=limit / 2),
        ViewWindow(name="whole range", level=float(mean.min() + mean.max()) / 2,
                   width=max(float(mean.max() - mean.min()), width), limit=2 * limit),
    )  # fmt: skip
