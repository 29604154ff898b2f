"""Search range of a parameter, declared by each method next to its configuration.

The declarations need no Optuna, which is an optional dependency; each gives the Optuna distribution that it stands for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Range:
    """Numbers between two limits, both included; whole ones when both limits are.

    Args:
        low: lower limit.
        high: upper limit.
        log: search on a logarithmic scale.

    Raises:
        ValueError: not ``low < high``, or a logarithmic scale that is not positive.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"a range needs low < high (and low > 0 on a logarithmic scale), got {self}")

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are meant."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def distribution(self) -> Any:
        """``optuna.distributions.IntDistribution`` or ``FloatDistribution``."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)


@dataclass(frozen=True)
class Choice:
    """One of several values.

    Args:
        options: strings, numbers or booleans.
    """

    options: tuple[str | float | bool, ...]

    def __post_init__(self) -> None:
        if len(self.options) < 2:
            raise ValueError(f"a choice needs at least two options, got {self.options}")

    def distribution(self) -> Any:
        """``optuna.distributions.CategoricalDistribution``."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.options)


SearchSpace = Mapping[str, Range | Choice]
"""Field of a method's configuration -> where to look for its best value."""
