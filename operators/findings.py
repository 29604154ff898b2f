"""What operators say of data: suspicions, and how to set up a quick reconstruction."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Diagnosis:
    """What an operator finds suspicious in data.

    Attributes:
        record: JSON-ready findings, for run records.
        warnings: one sentence for each finding that should reach the user.
    """

    record: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class RegularisationHint:
    """How to set up a quick total-variation reconstruction.

    Attributes:
        strength: ``(B,)``, multiplies the usual strength.
        least_iterations: fewer do not converge.
    """

    strength: Tensor
    least_iterations: int
