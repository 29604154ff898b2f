"""Sets of points in space, for example the backbone of a protein: ``(N, 3)`` coordinates judged by their RMSD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deft_ct.evaluation.problem import Floats, Metric, SingleMeasurementProblem
from deft_ct.measurement.measurement import Measurement
from deft_ct.runtime.content_key import content_digest
from deft_ct.runtime.data_split import DataSplit

POINT_METRICS = (Metric(name="rmsd", key="rmsd", heading="RMSD", digits=3, best="lowest"),)
"""Root mean square distance of corresponding points, without superposition, in the unit of the coordinates."""


@dataclass(frozen=True)
class PointProblem(SingleMeasurementProblem):
    """Sets of points with one measurement for all of them.

    Args:
        points: ``(B, N, 3)`` true coordinates.
        label: name of the measurement; presets are stored by it.
        measurement: of ``(N, 3)`` coordinates.
        source: name of the data set.
        part: which part of the data it is; None if that is not known.
        seed: of the noise.
        batch_size: sets at once.
        device: where the data are.

    Raises:
        ValueError: the points have another shape, or there are none.
    """

    points: Tensor
    label: str
    measurement: Measurement
    source: str = "points"
    part: DataSplit | None = None
    seed: int = 0
    batch_size: int = 8
    device: str = "cpu"

    metrics = POINT_METRICS

    def __post_init__(self) -> None:
        if self.points.ndim != 3 or self.points.shape[2] != 3 or not len(self.points):
            raise ValueError(f"points must be (B, N, 3) with B >= 1, got shape {tuple(self.points.shape)}")

    @property
    def data(self) -> str:
        """Name of the data set."""
        return self.source

    @property
    def split(self) -> DataSplit | None:
        """Which part of the data it is."""
        return self.part

    @property
    def positions(self) -> list[int]:
        """All sets."""
        return list(range(len(self.points)))

    def images_at(self, positions: list[int]) -> Tensor:
        """``(B, N, 3)`` coordinates."""
        return self.points[positions]

    def measure(self, images: Floats) -> dict[str, NDArray[np.float64]]:
        """RMSD of ``(B, N, 3)`` coordinates."""
        squared = np.square(images.astype(np.float64) - self.truth).sum(-1)
        return {"rmsd": np.sqrt(squared.mean(-1))}

    def settings(self) -> dict[str, Any]:
        """Data and seed."""
        return {"data": self.data, "data_sha256": content_digest([self.points]), "sets": len(self), "seed": self.seed}

    def conventions(self) -> str:
        """Data and RMSD in words."""
        return f"Data: {self.data}. RMSD of corresponding points, without superposition."
