"""What operators say of data: suspicions, and how to set up a quick reconstruction."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor


class DataWarning(UserWarning):
    """A warning about data or about a result that does not explain them; its text starts with the finding's name."""


@dataclass(frozen=True)
class Finding:
    """Something wrong with data, or with a measurement.

    Attributes:
        name: what it is, in a few words that do not change: ``"dead detector elements"``.
        text: one sentence with the numbers, what it does to the image, and what to do.
        repaired: whether the data were repaired before the reconstruction.
    """

    name: str
    text: str
    repaired: bool = False

    def __str__(self) -> str:
        return f"{self.name}: {self.text}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for run records."""
        return asdict(self)


@dataclass(frozen=True)
class Diagnosis:
    """What an operator finds suspicious in data.

    Attributes:
        record: JSON-ready statistics, for run records.
        findings: what should reach the user.
        repaired: the data with their repairs, of the shape of the data; None where nothing was repaired.
    """

    record: dict[str, Any] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    repaired: Tensor | None = field(default=None, compare=False)

    @property
    def warnings(self) -> tuple[str, ...]:
        """One sentence for each finding."""
        return tuple(str(finding) for finding in self.findings)


@dataclass(frozen=True)
class RegularisationHint:
    """How to set up a quick total-variation reconstruction.

    Attributes:
        strength: ``(B,)``, multiplies the usual strength.
        least_iterations: fewer do not converge.
    """

    strength: Tensor
    least_iterations: int
