"""A benchmark's rows, one for each method and image, summed up: means with intervals, failures, paired differences.

Rows are as the benchmark's store gives them: a frame with the columns :data:`GROUP`, ``seed``, ``image_id``,
``patient``, ``status`` (``"ok"`` or ``"failed"``), ``reason``, ``note``, the costs of :data:`COSTS` and one column for
each metric, named by its key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from deft_ct.evaluation.paired import PairedTest, paired_test
from deft_ct.evaluation.problem import Metric
from deft_ct.evaluation.statistics import Interval, cluster_interval, deviation, mean_interval

__all__ = [
    "COSTS", "GROUP", "PAIRED", "Judged", "best_method", "check_rows", "finished", "image_values", "paired_frame",
    "paired_line", "records", "summarize", "summary_frame",
]  # fmt: skip

GROUP = ("data", "split", "problem", "method")
"""What a line of a summary is for."""
COSTS = ("seconds", "evaluations", "peak_memory_mib", "data_residual")
"""Costs of an image, and how well the data are explained; their means are reported without intervals."""
_MOST_DRAWN = (
    20_000_000  # values in a bootstrap, which takes 16 bytes for each: fewer resamples of 2,000 images or more
)
_NEEDED = (*GROUP, "seed", "image_id", "patient", "status", "reason", "note", *COSTS)


class Judged:
    """One metric of one method on one problem.

    Args:
        values: ``(n,)``, one for each image; NaN where it is undefined.
        patients: ``(n,)``.

    Attributes:
        images: mean with its interval over images; None where no value is defined.
        patients: the same with the interval over patients.
        std: standard deviation over images.
    """

    def __init__(self, values: Sequence[float], patients: Sequence[str]) -> None:
        defined = bool(np.any(~np.isnan(np.asarray(values, dtype=np.float64))))
        draws = max(1000, min(10_000, _MOST_DRAWN // max(len(values), 1)))
        self.images: Interval | None = mean_interval(values, resamples=draws) if defined else None
        self.patients: Interval | None = cluster_interval(values, patients) if defined else None
        self.std = deviation(values)

    @property
    def mean(self) -> float:
        """Over images; NaN where no value is defined."""
        return float("nan") if self.images is None else self.images.mean


def check_rows(rows: pd.DataFrame, metrics: Sequence[Metric]) -> None:
    """Refuse a frame that is no benchmark.

    Raises:
        ValueError: there are no rows, or columns are missing.
    """
    missing = [name for name in (*_NEEDED, *(metric.key for metric in metrics)) if name not in rows.columns]
    if missing:
        raise ValueError(f"these rows are of no benchmark: the columns {', '.join(missing)} are missing")
    if rows.empty:
        raise ValueError("there are no rows to sum up: run the benchmark first")


def finished(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with a result."""
    return rows[rows["status"] == "ok"]


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The lines of a frame as dictionaries."""
    return [{str(name): value for name, value in line.items()} for line in table.to_dict("records")]


def image_values(rows: pd.DataFrame, key: str) -> pd.DataFrame:
    """A column of one method on one problem, image by image: the mean over seeds, with the patient.

    Args:
        rows: of one method on one problem.
        key: name of the column.

    Returns:
        Columns ``image_id``, ``patient`` and ``value``, ordered by ``image_id``; missing values are NaN.
    """
    table = finished(rows)[["image_id", "patient", key]].rename(columns={key: "value"})
    table["value"] = table["value"].astype(float)
    return table.groupby(["image_id", "patient"], as_index=False, sort=True).agg({"value": "mean"})


def summarize(rows: pd.DataFrame, key: str) -> Judged:
    """One metric of one method on one problem; several seeds are averaged image by image first."""
    table = image_values(rows, key)
    return Judged(table["value"].tolist(), table["patient"].tolist())


def summary_frame(rows: pd.DataFrame, metrics: Sequence[Metric]) -> pd.DataFrame:
    """One line for each method on each problem, in the order of the rows.

    Args:
        rows: of a benchmark.
        metrics: what is summed up.

    Returns:
        The columns :data:`GROUP`, then the counts ``images``, ``patients``, ``seeds`` and ``failed`` (rows without a
        result). Each metric has its mean under its key and ``KEY_std``. ``KEY_low`` and ``KEY_high`` are its 95 %
        interval over images, ``KEY_patients_low`` and ``KEY_patients_high`` that over patients. The means of
        :data:`COSTS` follow, then ``reason`` and ``note`` with every different text once.

    Raises:
        ValueError: see :func:`check_rows`.
    """
    check_rows(rows, metrics)
    lines = []
    for names, part in rows.groupby(list(GROUP), sort=False, dropna=False):
        done = finished(part)
        line: dict[str, Any] = dict(zip(GROUP, names, strict=True))
        line |= {
            "images": done["image_id"].nunique(), "patients": done["patient"].nunique(),
            "seeds": part["seed"].nunique(), "failed": len(part) - len(done),
        }  # fmt: skip
        for metric in metrics:
            line |= _columns(metric.key, summarize(part, metric.key))
        line |= {name: done[name].astype(float).mean() for name in COSTS}
        line |= {
            name: "; ".join(text for text in part[name].fillna("").unique() if text) for name in ("reason", "note")
        }
        lines.append(line)
    return pd.DataFrame(lines)


def _columns(key: str, found: Judged) -> dict[str, float]:
    nothing = float("nan")
    over, across = found.images, found.patients
    return {
        key: found.mean, f"{key}_std": found.std,
        f"{key}_low": over.low if over else nothing, f"{key}_high": over.high if over else nothing,
        f"{key}_patients_low": across.low if across else nothing,
        f"{key}_patients_high": across.high if across else nothing,
    }  # fmt: skip


def best_method(rows: pd.DataFrame, metric: Metric) -> str | None:
    """The method of one problem with the best mean, among those that finished every image that any of them finished.

    Returns:
        Its name; None where neither high nor low is better, or nothing is defined.
    """
    if metric.best is None:
        return None
    found = {str(name): image_values(part, metric.key) for name, part in rows.groupby("method", sort=False)}
    most = max((len(table) for table in found.values()), default=0)
    means = {name: float(table["value"].mean()) for name, table in found.items() if len(table) == most}
    means = {name: value for name, value in means.items() if not np.isnan(value)}
    if not means:
        return None
    order = sorted(means, key=lambda name: means[name], reverse=metric.best == "highest")
    return order[0]


def paired_frame(rows: pd.DataFrame, metric: Metric, *, against: str) -> pd.DataFrame:
    """Every method of one problem against one of them, on the images that both finished.

    Args:
        rows: of one problem.
        metric: what is compared.
        against: name of the method that the others are compared with.

    Returns:
        A line for each other method, with ``method``, ``images`` and ``patients``. ``difference`` is the method minus
        ``against``. ``low`` and ``high`` are its 95 % interval over images, ``patients_low`` and ``patients_high`` that
        over patients. ``p_value`` and ``smallest_p`` are explained in
        :class:`~deft_ct.evaluation.paired.PairedTest`. ``verdict`` is ``"better"`` or ``"worse"`` if the interval over
        patients leaves out zero, else ``"open"``.

    Raises:
        ValueError: there is no such method.
    """
    names = list(rows["method"].unique())
    if against not in names:
        raise ValueError(f"against must be one of {', '.join(names)}, got {against!r}")
    reference = image_values(rows[rows["method"] == against], metric.key)
    lines = []
    for name in names:
        if name == against:
            continue
        both = image_values(rows[rows["method"] == name], metric.key).merge(
            reference, on=["image_id", "patient"], suffixes=("", "_against")
        )
        line = paired_line(both["value"], both["value_against"], both["patient"].tolist(), metric)
        if line is not None:
            lines.append({"method": name, **line})
    return pd.DataFrame(lines, columns=["method", *PAIRED])


PAIRED = (
    "images", "patients", "difference", "low", "high", "patients_low", "patients_high", "p_value", "smallest_p",
    "verdict",
)  # fmt: skip
"""Columns of a paired comparison."""


def paired_line(ours: Any, theirs: Any, patients: list[str], metric: Metric) -> dict[str, Any] | None:
    """The columns :data:`PAIRED` of ``ours - theirs``; None where no image has both."""
    gaps = np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
    if not np.any(~np.isnan(gaps)):
        return None
    found = paired_test(ours, theirs, patients)
    return {
        "images": found.images.n, "patients": found.patients.n, "difference": found.images.mean,
        "low": found.images.low, "high": found.images.high, "patients_low": found.patients.low,
        "patients_high": found.patients.high, "p_value": found.p_value, "smallest_p": found.smallest_p,
        "verdict": _verdict(found, metric),
    }  # fmt: skip


def _verdict(found: PairedTest, metric: Metric) -> Literal["better", "worse", "open"]:
    low, high = found.patients.low, found.patients.high
    if metric.best is None or not (low > 0 or high < 0):
        return "open"
    return "better" if (low > 0) == (metric.best == "highest") else "worse"
