"""What is taken of named data."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_SCANS = ("parallel60_1e5", "parallel20_1e5", "parallel60_1e5_120deg")
"""Scans that are simulated where the data have no observations of their own and none are named."""


@dataclass(frozen=True, kw_only=True)
class ProblemOptions:
    """What is taken of the data, and how.

    Args:
        every: keep every k-th image of the whole list.
        limit: keep at most so many of these, spread over the patients; all when None. A larger limit keeps the images
            of a smaller one.
        seed: of simulated noise.
        batch_size: images at once.
        device: where the data are.

    Raises:
        ValueError: ``every``, ``limit`` or ``batch_size`` is below 1.
    """

    every: int = 1
    limit: int | None = None
    seed: int = 0
    batch_size: int = 8
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("every", "limit", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
