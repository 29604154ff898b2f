"""Settings that methods with a prior share.

Each method's configuration derives from those that apply to it. Its docstring says what it adds and what means
something else there; the other settings are documented here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from deft_ct.diffusion.schedule import Schedule, Spacing, time_grid
from deft_ct.methods.initial import Reference
from deft_ct.runtime.fields import check_fields


@dataclass(frozen=True, kw_only=True)
class StepsConfig:
    """Settings of every method that goes from noise to an image.

    Args:
        steps: evaluations of the prior for each sample.
        batch_size: samples that are walked at once; changes memory and speed, not results.

    Raises:
        ValueError: a value is out of range.
    """

    steps: int = 100
    batch_size: int = 8

    def __post_init__(self) -> None:
        check_fields(self)
        check_counts(steps=self.steps, batch_size=self.batch_size)


@dataclass(frozen=True, kw_only=True)
class GridConfig(StepsConfig):
    """Settings of a method that chooses the times of its steps; the rest as in :class:`StepsConfig`.

    Args:
        grid: the quantity in which the times are even, see :func:`~deft_ct.diffusion.schedule.time_grid`.

    Raises:
        ValueError: a value is out of range or unknown.
    """

    grid: Spacing = "uniform"

    def times(self, schedule: Schedule) -> list[int]:
        """Times of the steps, from the noisiest to the cleanest.

        Raises:
            ValueError: there are more steps than the schedule has times.
        """
        return time_grid(schedule, self.steps, spacing=self.grid)


@dataclass(frozen=True, kw_only=True)
class SamplerConfig(StepsConfig):
    """Settings of a sampler with a share of fresh noise; the rest as in :class:`StepsConfig`.

    Args:
        eta: 0 for the deterministic sampler, 1 for the ancestral one.

    Raises:
        ValueError: a value is out of range.
    """

    eta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta must lie in [0, 1], got {self.eta}")


@dataclass(frozen=True, kw_only=True)
class WarmStartConfig(GridConfig):
    """Settings of a sampling that may begin at a less noisy time; the rest as in :class:`GridConfig`.

    Args:
        start: noisiest time of the sampling, as a share of the prior's times. 1 begins at pure noise, as in the papers
            of the methods. Less begins at a quick reconstruction of the data with noise of that time, see
            :mod:`deft_ct.methods.guided.start`, and takes at most one step at each time.
        start_from: that reconstruction: ``"tv"``, or ``"fbp"`` for the pseudo-inverse.

    Raises:
        ValueError: a value is out of range.
    """

    start: float = 1.0
    start_from: Reference = "tv"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.start <= 1:
            raise ValueError(f"start must lie in (0, 1], got {self.start}")

    def times(self, schedule: Schedule) -> list[int]:
        """As in :class:`GridConfig`; a short sampling takes at most one step at each time."""
        if self.start == 1:
            return super().times(schedule)
        available = max(1, round(self.start * schedule.steps))
        return time_grid(schedule, min(self.steps, available), last=available - 1, spacing=self.grid)


@dataclass(frozen=True, kw_only=True)
class GuidedConfig(WarmStartConfig, SamplerConfig):
    """Settings of a sampler with fresh noise that may begin at a less noisy time."""


@dataclass(frozen=True, kw_only=True)
class ConjugateGradientConfig(StepsConfig):
    """Settings of a method whose steps solve the data term; the rest as in :class:`StepsConfig`.

    Args:
        cg_iterations: most conjugate-gradient iterations of a step.
        weighted: statistical weights instead of white noise.

    Raises:
        ValueError: a value is out of range.
    """

    cg_iterations: int = 20
    weighted: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(cg_iterations=self.cg_iterations)


@dataclass(frozen=True, kw_only=True)
class SliceCouplingConfig(StepsConfig):
    """Settings of a method that reconstructs volumes with a prior of slices; the rest as in :class:`StepsConfig`.

    Args:
        coupling: weight of the total variation along z, per unit of the prior's range, see
            :mod:`deft_ct.measurement.slice_coupling`. Not used for images.

    Raises:
        ValueError: a value is out of range.
    """

    coupling: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (math.isfinite(self.coupling) and self.coupling >= 0):
            raise ValueError(f"coupling must be a finite number >= 0, got {self.coupling}")


def check_counts(**values: int) -> None:
    """Refuse counts below 1.

    Raises:
        ValueError: a value is below 1; the message names all of them.
    """
    if any(value < 1 for value in values.values()):
        names, got = " and ".join(values), " and ".join(str(value) for value in values.values())
        raise ValueError(f"{names} must be at least 1, got {got}")


def check_positive(**values: float) -> None:
    """Refuse numbers that are not positive (infinity is).

    Raises:
        ValueError: a value is not above 0.
    """
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} must be above 0, got {value}")
