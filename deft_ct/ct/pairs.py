"""Training pairs of CT: slices of any pixel size, scanned in units of their pixel."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from deft_ct.measurement.likelihood import Likelihood
from deft_ct.measurement.measurement import Measurement
from deft_ct.measurement.scales import PerImageMap, PriorRange
from deft_ct.runtime.content_key import content_digest
from deft_ct.training.pairs import Pairs, PairSource

AIR_HU = -1000.0


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


class SlicePairs(PairSource):
    """Draws training pairs of CT slices, see :func:`simulate_unit_pixel`.

    Args:
        source: the slices.
        measurements: scans with a pixel of 1 mm; every draw uses one of them, at random.
        value_range: HU of -1 and +1.
        refine: grid refinement of the simulation, see ``Measurement.simulate``.
        weights: how often each measurement is drawn, relative to the others; equally often when left out.

    Raises:
        ValueError: there is no measurement, one has no Hounsfield scale, or the weights do not fit.
    """

    value_range: PriorRange

    def __init__(
        self,
        source: ScannedSlices,
        measurements: Sequence[Measurement],
        value_range: PriorRange | None = None,
        *,
        refine: int = 2,
        weights: Sequence[float] | None = None,
    ) -> None:
        scales = [m.units for m in measurements]
        units = scales[0] if scales else None
        if units is None or None in scales:
            raise ValueError("every measurement needs units=HounsfieldScale(), and there must be at least one")
        super().__init__(
            source, measurements, value_range or PriorRange(), refine=refine, weights=weights,
            augment=partial(augment_slices, air_hu=units.background),
        )  # fmt: skip
        self._pixel_mm = torch.from_numpy(np.asarray(source.pixel_mm, np.float32))

    def description(self) -> dict[str, Any]:
        """See ``PairSource.description``; the pixel sizes scale the data."""
        return super().description() | {"pixel_mm": content_digest([self._pixel_mm])}

    def simulate(self, images: Tensor, indices: Tensor, measurement: Measurement, seed: int) -> Pairs:
        """See :func:`simulate_unit_pixel`; arguments as in ``PairSource.simulate``."""
        width = self._pixel_mm[indices]
        return simulate_unit_pixel(images, width, measurement, self.value_range, seed=seed, refine=self.refine)


def simulate_unit_pixel(
    hu: Tensor, pixel_mm: Tensor, measurement: Measurement, value_range: PriorRange, *, seed: int, refine: int = 2
) -> Pairs:
    """Simulate data for slices that may differ in pixel size.

    In units of the pixel the scan is the same, as with a fixed number of detectors across the field of view. The
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


def augment_slices(hu: Tensor, generator: torch.Generator, *, air_hu: float = AIR_HU) -> Tensor:
    """Mirror, shift, and at times rotate and scale slices a little: changes that keep anatomy plausible.

    Half are mirrored left to right; shifts are whole pixels, up to a 16th of the side; a third are rotated by up to 10
    degrees and scaled by up to 10 %. The resampling of the last kind smooths, so most slices keep their own noise
    texture.

    Args:
        hu: ``(B, 1, H, W)`` in HU.
        generator: source of all randomness, on the CPU.
        air_hu: fills what comes in from outside.

    Returns:
        ``(B, 1, H, W)`` in HU, never below ``air_hu``.
    """
    h, w = hu.shape[-2:]
    reach = min(h, w) // 16
    out = []
    for image in hu.clamp_min(air_hu).unbind(0):
        mirror, warp = torch.rand(2, generator=generator).tolist()
        dy, dx = (torch.randint(-reach, reach + 1, (2,), generator=generator)).tolist()
        angle, zoom = (2 * torch.rand(2, generator=generator) - 1).tolist()
        if mirror < 0.5:
            image = image.flip(-1)
        image = functional.pad(image, (reach, reach, reach, reach), value=air_hu)
        image = image[:, reach + dy : reach + dy + h, reach + dx : reach + dx + w]
        if warp < 1 / 3:
            image = _rotate_and_scale(image, 10 * angle, 1 + 0.1 * zoom, air_hu)
        out.append(image)
    return torch.stack(out)


def _rotate_and_scale(image: Tensor, degrees: float, zoom: float, fill: float) -> Tensor:
    angle = torch.tensor(degrees).deg2rad()
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    matrix = torch.stack([torch.stack([cos, -sin, cos * 0]), torch.stack([sin, cos, cos * 0])])[None]
    grid = functional.affine_grid(matrix.to(image), [1, *image.shape], align_corners=False)
    return functional.grid_sample(image[None] - fill, grid, align_corners=False)[0] + fill
