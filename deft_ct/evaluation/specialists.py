"""One network for many tasks against specialists for single tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deft_ct.evaluation.paired import paired_difference, signed_interval

Scores = Mapping[str, Mapping[str, Sequence[float]]]
"""A value for each image, by task and network; the specialist of a task has the name of the task."""


def against_specialists(scores: Scores, amortised: str) -> list[list[str]]:
    """Table rows that compare the network for all tasks with the specialists.

    Args:
        scores: larger is better.
        amortised: name of the network for all tasks.

    Returns:
        For each task: its name, the paired difference to its specialist, the one to the best other specialist, and how
        many of the other specialists are worse beyond the 95 % interval.
    """
    rows = []
    for task, row in scores.items():
        gains = {
            name: paired_difference(row[amortised], values)
            for name, values in row.items()
            if name not in (amortised, task)
        }
        best = min(gains, key=lambda name: gains[name].mean, default=None)
        worse = sum(gain.low > 0 for gain in gains.values())
        rows.append([
            task, signed_interval(paired_difference(row[amortised], row[task])),
            "" if best is None else f"{signed_interval(gains[best])} ({best})", f"{worse} of {len(gains)}",
        ])  # fmt: skip
    return rows
