"""The figure of a calibration: reliability, spread against error, sparsification."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from deft_ct.report.figures import FOOTER, STYLE

_COLORS = {"raw": "#c44e52", "calibrated": "#2a6fbb", "network": "#2a6fbb"}


def calibration_figure(found: Mapping[str, Any], *, title: str = "") -> Figure:
    """Three panels on how far a posterior standard deviation can be believed.

    Args:
        found: of :func:`deft_ct.evaluation.spread_fit.report`: ``"unit"``, and ``"raw"`` and perhaps ``"calibrated"``
            reports of :func:`deft_ct.evaluation.spread.spread_report`; or ``"network"``.
        title: of the figure.

    Returns:
        A figure on an Agg canvas; write it with :func:`~deft_ct.report.figures.save_png`.

    Raises:
        ValueError: there is no report.
    """
    kinds = {kind: found[kind] for kind in _COLORS if kind in found}
    if not kinds:
        raise ValueError("calibration_figure needs a raw or a calibrated report, or one of a network")
    with rc_context(STYLE):
        figure = Figure(figsize=(10.5, 3.9))
        FigureCanvasAgg(figure)
        figure.set_layout_engine("compressed", rect=(0.0, 0.05, 1.0, 0.95))
        coverage, errors, removal = figure.subplots(1, 3)
        _reliability(coverage, kinds)
        unit = found.get("unit", "")
        _spread_and_error(errors, kinds, unit)
        _sparsification(removal, kinds, unit)
        if title:
            figure.suptitle(title, fontsize=10)
        figure.text(0.5, 0.012, f"{FOOTER}.  Pixels inside the mask.", ha="center", va="bottom", fontsize=8)
    return figure


def _reliability(axis: Axes, kinds: Mapping[str, Any]) -> None:
    axis.plot([0, 100], [0, 100], color="0.6", linewidth=1, linestyle="--", label="as it should be")
    for kind, values in kinds.items():
        nominal, observed = ([100 * v for v in values["reliability"][key]] for key in ("nominal", "observed"))
        axis.plot(nominal, observed, color=_COLORS[kind], marker="o", markersize=3, label=f"intervals, {kind}")
    ranks = next(iter(kinds.values())).get("rank_coverage")
    if ranks is not None:
        axis.plot(
            [100 * r["nominal"] for r in ranks], [100 * r["observed"] for r in ranks], "k^", markersize=5,
            label="between samples",
        )  # fmt: skip
    axis.set(
        xlabel="nominal level (%)", ylabel="observed coverage (%)", title="coverage of central intervals",
        xlim=(0, 100), ylim=(0, 100), aspect="equal",
    )  # fmt: skip
    axis.legend(loc="upper left", frameon=False)


def _spread_and_error(axis: Axes, kinds: Mapping[str, Any], unit: str) -> None:
    ends: list[float] = []
    for kind, values in kinds.items():
        spread, error = (values["spread_and_error"][key] for key in ("spread", "rmse"))
        axis.plot(spread, error, color=_COLORS[kind], marker="o", markersize=4, label=kind)
        ends += [v for v in (*spread, *error) if v > 0]
    limits = (0.8 * min(ends), 1.25 * max(ends)) if ends else (1.0, 10.0)
    axis.plot(limits, limits, color="0.6", linewidth=1, linestyle="--")
    axis.set(
        xscale="log", yscale="log", xlim=limits, ylim=limits, aspect="equal", xlabel=_label("RMS spread", unit),
        ylabel=_label("RMS error", unit), title="error in bins of the spread",
    )  # fmt: skip
    axis.legend(loc="upper left", frameon=False)


def _sparsification(axis: Axes, kinds: Mapping[str, Any], unit: str) -> None:
    curves = next(iter(kinds.values()))["sparsification"]  # a calibration does not change the order of the pixels
    removed = [100 * share for share in curves["removed"]]
    axis.plot(removed, curves["by_spread"], color="k", marker="o", markersize=3, label="largest spread first")
    axis.plot(removed, curves["by_error"], color="0.6", linestyle="--", label="largest error first")
    axis.axhline(curves["by_error"][0], color="0.6", linewidth=1, linestyle=":", label="at random")
    axis.set(
        xlabel="pixels removed (%)", ylabel=_label("RMSE of the others", unit), title="sparsification", xlim=(0, 100),
        ylim=(0, 1.25 * max(curves["by_error"][0], 1e-6)),
    )  # fmt: skip
    axis.legend(loc="upper right", frameon=False)


def _label(text: str, unit: str) -> str:
    return f"{text} ({unit})" if unit else text
