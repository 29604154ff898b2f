"""What changed between two benchmarks: the same methods on the same images, before and after."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pandas as pd

from deft_ct.evaluation.problem import Metric
from deft_ct.evaluation.summary import COSTS, GROUP, PAIRED, check_rows, finished, image_values, paired_line, records
from deft_ct.evaluation.tables import markdown_table

__all__ = ["diff_markdown", "diff_table"]

_MOST_CHANGES = 4


def diff_table(a: pd.DataFrame, b: pd.DataFrame, metrics: Sequence[Metric]) -> pd.DataFrame:
    """Differences ``b - a`` of every metric, for each method on each problem that both benchmarks have.

    Images are paired by their name. Several seeds are averaged image by image first.

    Args:
        a: rows of the benchmark that is compared with.
        b: rows of the other one.
        metrics: what is compared.

    Returns:
        A line for each method on each problem and each metric. It has the columns of
        :data:`~deft_ct.evaluation.summary.GROUP` and :data:`~deft_ct.evaluation.summary.PAIRED`, and these:

        - ``metric``: its key;
        - ``a`` and ``b``: means over the common images;
        - ``seconds_ratio``: time of b over time of a;
        - ``only_a`` and ``only_b``: number of images with a result in one benchmark alone;
        - ``status``: ``"both"``, ``"only a"`` or ``"only b"``;
        - ``changed``: the recorded settings, versions and hashes that differ.

    Raises:
        ValueError: see :func:`~deft_ct.evaluation.summary.check_rows`, or the benchmarks share no method on a problem.
    """
    check_rows(a, metrics)
    check_rows(b, metrics)
    sides = [{names: part for names, part in rows.groupby(list(GROUP), sort=False, dropna=False)} for rows in (a, b)]
    first, second = ({tuple(map(str, names)): part for names, part in side.items()} for side in sides)
    if not first.keys() & second.keys():
        raise ValueError("these benchmarks share no method on a problem, so that there is nothing to compare")
    lines = []
    for names in dict.fromkeys([*first, *second]):
        head = dict(zip(GROUP, names, strict=True))
        if names not in first or names not in second:
            lines.append({**head, "status": "only a" if names in first else "only b"})
            continue
        lines += [{**head, **line} for line in _compared(first[names], second[names], metrics)]
    order = [*GROUP, "metric", "status", "a", "b", *PAIRED, "seconds_ratio", "only_a", "only_b", "changed"]
    return pd.DataFrame(lines, columns=order)


def _compared(a: pd.DataFrame, b: pd.DataFrame, metrics: Sequence[Metric]) -> list[dict[str, Any]]:
    """The lines of one method on one problem."""
    before, after = (set(finished(rows)["image_id"]) for rows in (a, b))
    shared = {
        "status": "both", "only_a": len(before - after), "only_b": len(after - before), "changed": _changed(a, b),
        "seconds_ratio": _mean(b, "seconds") / _mean(a, "seconds"),
    }  # fmt: skip
    lines = []
    for metric in metrics:
        both = image_values(b, metric.key).merge(
            image_values(a, metric.key), on=["image_id", "patient"], suffixes=("_b", "_a")
        )
        line = paired_line(both["value_b"], both["value_a"], both["patient"].tolist(), metric)
        means = {"a": both["value_a"].mean(), "b": both["value_b"].mean()}
        lines.append({"metric": metric.key, **shared, **means, **(line or {})})
    return lines


def _mean(rows: pd.DataFrame, name: str) -> float:
    assert name in COSTS
    return float(finished(rows)[name].astype(float).mean())


def _changed(a: pd.DataFrame, b: pd.DataFrame) -> str:
    """Recorded settings that differ, by name, from the first finished row of both."""
    before, after = (_settings(rows) for rows in (a, b))
    names = [name for name in dict.fromkeys([*before, *after]) if before.get(name) != after.get(name)]
    said = [f"{name}: {_short(before.get(name))} -> {_short(after.get(name))}" for name in names[:_MOST_CHANGES]]
    return "; ".join([*said, *([f"{len(names) - _MOST_CHANGES} more"] if len(names) > _MOST_CHANGES else [])])


_RESULTS = ("seconds", "data_residual", "warnings", "device")
"""Parts of a provenance that are results, and not settings."""


def _settings(rows: pd.DataFrame) -> dict[str, Any]:
    done = finished(rows)
    if done.empty or "provenance" not in done.columns:
        return {}
    return dict(_flat("", json.loads(done["provenance"].iloc[0] or "{}")))


def _flat(name: str, value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        return [(name, value)]
    return [
        pair
        for key, item in value.items()
        if name or not key.startswith(_RESULTS)
        for pair in _flat(f"{name}.{key}" if name else key, item)
    ]


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 16 else f"{text[:12]}..."


def diff_markdown(table: pd.DataFrame, metrics: Sequence[Metric]) -> str:
    """The differences as Markdown, a table for each problem, and what only one of the benchmarks has.

    Args:
        table: of :func:`diff_table`.
        metrics: those of it that are shown.
    """
    shown = {metric.key: metric for metric in metrics}
    parts = []
    both = table[(table["status"] == "both") & table["metric"].isin(list(shown))]
    for names, part in both.groupby(["data", "split", "problem"], sort=False, dropna=False):
        cells = [_cells(line, shown[line["metric"]]) for line in records(part)]
        data, split, problem = names
        head = f"### {problem} on {data}" + (f" ({split})" if split and split != "None" else "")
        parts.append(f"{head}\n\n{markdown_table(_HEADINGS, cells, align='llrrrrrrll')}\n")
    for line in records(table[table["status"] != "both"]):
        parts.append(f"- {line['method']} on {line['problem']} of {line['data']}: {line['status']}\n")
    return "\n".join([*parts, _LEGEND])


_HEADINGS = ["method", "metric", "A", "B", "B - A [95 % over patients]", "p", "images / patients", "time", "verdict",
             "changed"]  # fmt: skip
_LEGEND = (
    "B - A: mean over the images that both have; in brackets its bootstrap interval over patients (over images, marked "
    "*, with one patient). p: Wilcoxon's signed-rank test on the means of patients; n patients can give no less than "
    "2 / 2^n. Verdict: whether the interval over patients leaves out zero.\n"
)


def _cells(line: dict[str, Any], metric: Metric) -> list[str]:
    digits = metric.digits
    if pd.isna(line["images"]):
        return [line["method"], metric.heading, *["-"] * 7, line["changed"]]
    of_patients = not pd.isna(line["patients_low"])
    ends = (line["patients_low"], line["patients_high"]) if of_patients else (line["low"], line["high"])
    interval = f"{line['difference']:+.{digits}f} [{ends[0]:+.{digits}f}, {ends[1]:+.{digits}f}]"
    counts = f"{line['images']:.0f} / {line['patients']:.0f}"
    alone = [f"{line[name]:.0f} {words}" for name, words in (("only_a", "in A alone"), ("only_b", "in B alone"))
             if line[name]]  # fmt: skip
    return [
        line["method"], metric.heading, f"{line['a']:.{digits}f}", f"{line['b']:.{digits}f}",
        interval + ("" if of_patients else "*"), p_text(line["p_value"]), ", ".join([counts, *alone]),
        f"x {line['seconds_ratio']:.2f}", line["verdict"], line["changed"] or "nothing recorded",
    ]  # fmt: skip


def p_text(value: float) -> str:
    """A p-value with two digits; a dash where there is none."""
    return "-" if pd.isna(value) else "< 0.001" if value < 0.001 else f"{value:.2g}"
