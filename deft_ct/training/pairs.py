"""Training pairs: slices of a data set, changed a little, with data simulated anew at every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deft_ct.measurement.likelihood import Likelihood
from deft_ct.measurement.measurement import Measurement
from deft_ct.measurement.scales import PerImageMap, PriorRange
from deft_ct.training.augment import augment


class ScannedSlices(Protocol):
    """Training slices in HU with their pixel size."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def batch(self, indices: Tensor) -> Tensor:
        """The slices ``indices``: ``(B, 1, H, W)`` float32 in HU."""
        ...

    @property
    def pixel_mm(self) -> NDArray[np.float64]:
        """Pixel size of each slice, ``(N,)``."""
        ...


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Clean images with their simulated data."""

    x0: Tensor
    likelihood: Likelihood


def simulate_unit_pixel(
    hu: Tensor, pixel_mm: Tensor, measurement: Measurement, value_range: PriorRange, *, seed: int, refine: int = 2
) -> Pairs:
    """Simulate data for slices that may differ in pixel size.

    The scan is the same in units of the pixel, as with a fixed number of detectors across the field of view: the
    measurement's geometry has a pixel of 1 mm, and the image is attenuation per pixel.

    Args:
        hu: ``(B, 1, H, W)``.
        pixel_mm: ``(B,)``.
        measurement: with a pixel of 1 mm and a Hounsfield scale.
        value_range: HU that -1 and +1 of the returned images stand for.
        seed: of the noise.
        refine: grid refinement of the simulation.

    Returns:
        Images in the value range, and the likelihood of their data.

    Raises:
        ValueError: the measurement has no Hounsfield scale.
    """
    affine = measurement.scale_to(value_range)
    width = pixel_mm.to(hu).reshape(-1, 1, 1, 1)
    to_physical = PerImageMap(width * affine.scale, width * affine.offset)
    x0 = value_range.to_prior(hu)
    y = measurement.simulate(to_physical(x0), seed=seed, refine=refine)
    return Pairs(x0=x0, likelihood=Likelihood(measurement, y, to_physical))


class PairSource:
    """Draws training pairs.

    Args:
        source: the slices.
        measurements: scans with a pixel of 1 mm; every draw uses one of them, at random.
        value_range: HU that -1 and +1 stand for.
        refine: grid refinement of the simulation, see ``Measurement.simulate``.
        weights: how often each measurement is drawn, relative to the others; all alike when left out.

    Raises:
        ValueError: there is no measurement, one has no Hounsfield scale, or the weights do not fit.
    """

    def __init__(
        self,
        source: ScannedSlices,
        measurements: Sequence[Measurement],
        value_range: PriorRange,
        *,
        refine: int = 2,
        weights: Sequence[float] | None = None,
    ) -> None:
        scales = [m.units for m in measurements]
        units = scales[0] if scales else None
        if units is None or None in scales:
            raise ValueError("every measurement needs units=HounsfieldScale(), and there must be at least one")
        if weights is not None and (len(weights) != len(measurements) or min(weights) < 0 or sum(weights) <= 0):
            raise ValueError(f"need one weight >= 0 for each of the {len(measurements)} measurements, got {weights}")
        self.source = source
        self.weights = None if weights is None else torch.tensor(weights, dtype=torch.float64)
        self.measurements = list(measurements)
        self.value_range = value_range
        self.refine = refine
        self._pixel_mm = torch.from_numpy(np.asarray(source.pixel_mm, np.float32))
        self._air_hu = units.background

    def __len__(self) -> int:
        return len(self.source)

    def description(self) -> dict[str, Any]:
        """What the pairs are drawn from, but for the slices themselves, JSON-ready."""
        return {
            "scans": [{k: v for k, v in m.describe().items() if k != "backend"} for m in self.measurements],
            "weights": [] if self.weights is None else self.weights.tolist(),
            "refine": self.refine,
            "slices": len(self),
        }

    def draw(self, indices: Tensor, generator: torch.Generator) -> Pairs:
        """Slices ``indices``, augmented, with fresh data; everything follows from the generator.

        Args:
            indices: int64 ``(B,)``, on the CPU.
            generator: on the device of the training.
        """
        seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
        return self.seeded(indices, seed, generator.device)

    def seeded(self, indices: Tensor, seed: int, device: torch.device | str = "cpu") -> Pairs:
        """:meth:`draw` from a number: the same pairs on every device, but for rounding.

        Args:
            indices: int64 ``(B,)``, on the CPU.
            seed: of all randomness.
            device: of the pairs.
        """
        host = torch.Generator().manual_seed(seed)
        hu = augment(self.source.batch(indices), host, air_hu=self._air_hu).to(device)
        if self.weights is None:
            choice = torch.randint(len(self.measurements), (1,), generator=host)
        else:
            choice = torch.multinomial(self.weights, 1, generator=host)
        scan = self.measurements[int(choice)]
        return simulate_unit_pixel(hu, self._pixel_mm[indices], scan, self.value_range, seed=seed, refine=self.refine)
