"""Training pairs: images of a data set, changed a little, with data simulated anew at every step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol

import torch
from torch import Tensor

from deft_ct.measurement.content import measurement_content
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.measurement.measurement import Measurement
from deft_ct.measurement.scales import PriorRange
from deft_ct.operators.memory import check_memory
from deft_ct.runtime.content_key import content_digest
from deft_ct.training.augment import Augmentation, unchanged


class TrainingSource(Protocol):
    """Training images, or points."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def batch(self, indices: Tensor) -> Tensor:
        """The images ``indices``: ``(B, *image_shape)`` float32, in the unit of their scale or in the prior's range."""
        ...


_READ_AT_ONCE = 32


def images_digest(source: TrainingSource) -> str:
    """SHA-256 of all images of a source, wherever they are stored; reads each of them once."""
    return content_digest(source.batch(part) for part in torch.arange(len(source)).split(_READ_AT_ONCE))


def augmentation_name(augment: Augmentation) -> str:
    """Name of an augmentation with the arguments that are bound to it, for content keys."""
    if isinstance(augment, partial):
        return f"{augmentation_name(augment.func)}{augment.args}{sorted(augment.keywords.items())}"
    return f"{augment.__module__}.{getattr(augment, '__qualname__', type(augment).__qualname__)}"


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Clean images ``(B, *image_shape)`` in the prior's range, with the likelihood of their simulated data."""

    x0: Tensor
    likelihood: Likelihood


class PairSource:
    """Draws training pairs for measurements of one domain.

    Args:
        source: the images.
        measurements: every draw uses one of them, at random.
        value_range: values, in the unit of the scale, of -1 and +1; None for a domain without a scale.
        augment: random change of the images before the simulation; none when left out.
        refine: grid refinement of the simulation, see ``Measurement.simulate``.
        weights: how often each measurement is drawn, relative to the others; equally often when left out.

    Raises:
        ValueError: there is no measurement, the scales do not fit the value range, or the weights do not fit.
    """

    def __init__(
        self,
        source: TrainingSource,
        measurements: Sequence[Measurement],
        value_range: PriorRange | None = None,
        *,
        augment: Augmentation = unchanged,
        refine: int = 1,
        weights: Sequence[float] | None = None,
    ) -> None:
        if not measurements:
            raise ValueError("there must be at least one measurement")
        for measurement in measurements:
            measurement.scale_to(value_range)
        if weights is not None and (len(weights) != len(measurements) or min(weights) < 0 or sum(weights) <= 0):
            raise ValueError(f"need one weight >= 0 for each of the {len(measurements)} measurements, got {weights}")
        self.source = source
        self.weights = None if weights is None else torch.tensor(weights, dtype=torch.float64)
        self.measurements = list(measurements)
        self.value_range = value_range
        self.augment = augment
        self.refine = refine

    def __len__(self) -> int:
        return len(self.source)

    def description(self) -> dict[str, Any]:
        """All that the pairs depend on, JSON-ready; images by their content."""
        return {
            "data": self._images,
            "scans": [measurement_content(m) for m in self.measurements],
            "weights": [] if self.weights is None else self.weights.tolist(),
            "value_range": self.value_range and [self.value_range.low, self.value_range.high],
            "augment": augmentation_name(self.augment),
            "refine": self.refine,
            "slices": len(self),
        }

    @cached_property
    def _images(self) -> str:
        return images_digest(self.source)

    def draw(self, indices: Tensor, generator: torch.Generator) -> Pairs:
        """Images ``indices``, augmented, with fresh data; everything follows from the generator.

        Args:
            indices: int64 ``(B,)``, on the CPU.
            generator: on the device of the training.
        """
        seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
        return self.seeded(indices, seed, generator.device)

    def seeded(self, indices: Tensor, seed: int, device: torch.device | str = "cpu") -> Pairs:
        """:meth:`draw` from a number: the same pairs on every device, up to rounding.

        Args:
            indices: int64 ``(B,)``, on the CPU.
            seed: of all randomness.
            device: of the pairs.

        Raises:
            ValueError: they do not fit into memory.
        """
        operator = self.measurements[0].operator
        needed = 4 * len(indices) * (2 * math.prod(operator.domain_shape) + math.prod(operator.range_shape))
        check_memory(needed, f"a batch of {len(indices)} pairs", "take a smaller batch_size, or accumulate more parts")
        host = torch.Generator().manual_seed(seed)
        images = self.augment(self.source.batch(indices), host).to(device)
        if self.weights is None:
            choice = torch.randint(len(self.measurements), (1,), generator=host)
        else:
            choice = torch.multinomial(self.weights, 1, generator=host)
        return self.simulate(images, indices, self.measurements[int(choice)], seed)

    def simulate(self, images: Tensor, indices: Tensor, measurement: Measurement, seed: int) -> Pairs:
        """Simulate data of images.

        Args:
            images: ``(B, *image_shape)`` in the unit of the scale, or in the prior's range.
            indices: which images of the source they are.
            measurement: one of the measurements.
            seed: of the noise.
        """
        if images.device.type != "cpu":
            measurement = measurement.to(images.device)
        x0 = images if self.value_range is None else self.value_range.to_prior(images)
        y = measurement.simulate(measurement.scale_to(self.value_range)(x0), seed=seed, refine=self.refine)
        return Pairs(x0=x0, likelihood=measurement.likelihood(y, self.value_range))
