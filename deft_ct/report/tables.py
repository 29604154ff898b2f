"""Metrics of several methods as a table for the terminal, as Markdown and as JSON; the data range is always printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text
from tabulate import tabulate

from deft_ct.evaluation.statistics import Interval
from deft_ct.evaluation.tables import markdown_table
from deft_ct.problems.ct_metrics import CTMetrics
from deft_ct.runtime.plain_values import plain

_COLUMNS = (  # metric, heading, decimals
    ("psnr", "PSNR (dB)", 2),
    ("ssim", "SSIM", 4),
    ("rmse_hu", "RMSE (HU)", 1),
    ("bias_hu", "bias (HU)", 1),
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method of a table.

    Args:
        method: its name.
        metrics: of its reconstruction.
        seconds_per_slice: wall-clock time of the reconstruction divided by the number of slices, if it was measured.
    """

    method: str
    metrics: CTMetrics
    seconds_per_slice: float | None = None


def metrics_table(rows: Sequence[Row], *, title: str = "") -> Table:
    """A table for ``rich.console.Console.print``: means over slices.

    Args:
        rows: one per method, all with the same data range and number of slices.
        title: above the table.

    Raises:
        ValueError: no rows, or rows that cannot be compared.
    """
    caption = _convention(rows)
    table = Table(title=Text(title) if title else None, caption=caption)
    table.add_column("method", style="bold")
    for cells in _headings():
        table.add_column(cells, justify="right")
    for row in rows:
        table.add_row(Text(row.method), *_cells(row))
    return table


def metrics_markdown(rows: Sequence[Row]) -> str:
    """The same table in Markdown, followed by the line that states the conventions (see :func:`metrics_table`)."""
    caption, headings, body = _text(rows)
    return markdown_table(headings, body) + f"\n\n{caption}\n"


def metrics_html(rows: Sequence[Row]) -> str:
    """The same table in HTML, followed by the line that states the conventions (see :func:`metrics_table`)."""
    caption, headings, body = _text(rows)
    return f"{tabulate(body, headings, tablefmt='html', disable_numparse=True)}<p>{escape(caption)}</p>"


def metrics_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows for a JSON file: mean, 95 % interval (bootstrap over slices) and values per slice of every metric.

    Values that JSON cannot hold (NaN, infinity) become null.
    """
    _convention(rows)
    return [
        {
            "method": row.method,
            "slices": len(row.metrics),
            "data_range_hu": row.metrics.data_range_hu,
            "seconds_per_slice": row.seconds_per_slice,
            "metrics": {
                name: {
                    "mean": plain(interval.mean),
                    "low": plain(interval.low),
                    "high": plain(interval.high),
                    "slices": interval.n,
                    "per_slice": plain(getattr(row.metrics, name)),
                }
                for name, interval in row.metrics.summary().items()
            },
        }
        for row in rows
    ]


def metrics_by_slice(rows: Sequence[Row]) -> dict[str, dict[str, list[str]]]:
    """Method -> heading -> the metric of every slice, rounded as in the table; "-" where there is none."""
    return {
        row.method: {
            heading: [f"{value:.{decimals}f}" if np.isfinite(value) else "-" for value in getattr(row.metrics, name)]
            for name, heading, decimals in _COLUMNS
        }
        for row in rows
    }


def _headings() -> list[str]:
    return [*(heading for _, heading, _ in _COLUMNS), "s per slice"]


def _cells(row: Row) -> list[str]:
    summary = row.metrics.summary()
    cells = [_mean(summary[name], decimals) for name, _, decimals in _COLUMNS]
    return [*cells, "-" if row.seconds_per_slice is None else f"{row.seconds_per_slice:.3g}"]


def _mean(interval: Interval, decimals: int) -> str:
    return f"{interval.mean:.{decimals}f}"


def _text(rows: Sequence[Row]) -> tuple[str, list[str], list[list[str]]]:
    """Caption, headings and cells."""
    return _convention(rows), ["method", *_headings()], [[row.method, *_cells(row)] for row in rows]


def _convention(rows: Sequence[Row]) -> str:
    if not rows:
        raise ValueError("a table needs at least one row")
    kinds = {(row.metrics.data_range_hu, len(row.metrics)) for row in rows}
    if len(kinds) > 1:
        raise ValueError(
            f"rows of one table must share data range and slices, got (range in HU, slices) {sorted(kinds)}"
        )
    ((data_range, slices),) = kinds
    plural = "s" if slices > 1 else ""
    return (
        f"Means over {slices} slice{plural}. PSNR and SSIM: whole slice, data range {data_range:g} HU. "
        "RMSE and bias: inside the body."
    )
