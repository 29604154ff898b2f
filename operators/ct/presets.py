"""Scans of published benchmarks: geometry, noise and detector fault.

Lengths follow from ``pixel_mm``: the benchmarks work in pixels, so choose the pixel of your images and scale their
attenuation to 1/mm accordingly. LoDoPaB-CT and the AAPM sparse-view setting are
:meth:`~deft_ct.operators.ct.ParallelGeometry.lodopab` and
:meth:`~deft_ct.operators.ct.ParallelGeometry.aapm_sparse`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from deft_ct.operators.ct.faults import RingArtefact
from deft_ct.operators.ct.geometry import FanGeometry, ParallelGeometry
from deft_ct.operators.noise import GaussianNoise, NoiseModel, NoNoise, PoissonNoise

__all__ = ["DM4CTSetting", "ScanPreset", "dm4ct", "genregbench", "htc2022", "transmittance_scale"]

DM4CTSetting = Literal["i", "ii", "iii", "iv", "v"]


@dataclass(frozen=True, kw_only=True)
class ScanPreset:
    """A published scan.

    Attributes:
        geometry: the scan.
        noise: what the detector adds.
        fault: a fault of the detector that comes on top, or None.
    """

    geometry: ParallelGeometry | FanGeometry
    noise: NoiseModel
    fault: RingArtefact | None = None


def dm4ct(setting: DM4CTSetting, *, image_shape: tuple[int, int] = (512, 512), pixel_mm: float = 1.0) -> ScanPreset:
    """The five settings of DM4CT (ICLR 2026): parallel beam, as many detector elements as columns.

    - (i) 40 views without noise
    - (ii) 20 views with mild noise
    - (iii) 80 views with strong noise
    - (iv) 80 views with mild noise and rings
    - (v) 40 views over [0, 3 pi / 4] without noise

    The angles include both ends, so that the last
    view of a half turn mirrors the first, as in the benchmark.

    The benchmark scales its sinograms to a mean transmittance of one half before it counts photons
    (:func:`transmittance_scale`). Its code names 10,000 photons for mild and 5,000 for strong noise, and rings of
    amplitude 0.05 on a quarter of the elements; second-hand accounts of the paper differ (1e5 and 1e4).

    Args:
        setting: which one.
        image_shape: (rows, columns).
        pixel_mm: width of a pixel and of a detector element.

    Raises:
        ValueError: an unknown setting.
    """
    views = {"i": 40, "ii": 20, "iii": 80, "iv": 80, "v": 40}
    if setting not in views:
        raise ValueError(f"DM4CT has the settings {', '.join(get_args(DM4CTSetting))}, got {setting!r}")
    end = 0.75 * math.pi if setting == "v" else math.pi
    geometry = ParallelGeometry(
        image_shape=image_shape,
        pixel_mm=pixel_mm,
        angles=np.linspace(0, end, views[setting]),
        detectors=image_shape[1],
        detector_mm=pixel_mm,
    )
    photons = {"ii": 1e4, "iii": 5e3, "iv": 1e4}.get(setting)
    noise: NoiseModel = NoNoise() if photons is None else PoissonNoise(photons)
    fault = RingArtefact(amplitude=0.05, fraction=0.25) if setting == "iv" else None
    return ScanPreset(geometry=geometry, noise=noise, fault=fault)


def genregbench(views: int, *, wedge: bool = False, pixel_mm: float = 1.0) -> ScanPreset:
    """GenRegBench (Denker et al. 2026): 256 x 256 pixels, parallel beam, 363 detector elements, 0.01 white noise.

    The noise is that of data of an operator with unit norm and images in [0, 1]: use ``(1 / op.norm()) * op``, or
    multiply the standard deviation by ``op.norm()``.

    Args:
        views: 8, 16, 32, 64 or 128 in the benchmark; any number is taken.
        wedge: leave out the last 30 degrees (the limited-angle task).
        pixel_mm: width of a pixel and of a detector element.
    """
    span = math.radians(150) if wedge else math.pi
    geometry = ParallelGeometry(
        image_shape=(256, 256), pixel_mm=pixel_mm, views=views, angular_range=span, detectors=363, detector_mm=pixel_mm
    )
    return ScanPreset(geometry=geometry, noise=GaussianNoise(0.01))


def htc2022(
    degrees: float = 360.0, *, start_degrees: float = 0.0, image_shape: tuple[int, int] = (512, 512)
) -> ScanPreset:
    """The scanner of the Helsinki Tomography Challenge 2022: a flat fan beam, a view every half degree, ends included.

    Measured data come with their own noise, hence none here. To read a scan of the challenge, use
    :func:`deft_ct.datasets.htc2022.read_htc2022`, which takes the geometry from the file.

    Args:
        degrees: width of the wedge; level ``L`` of the challenge has ``100 - 10 L`` degrees, L = 1 to 7.
        start_degrees: the first angle.
        image_shape: (rows, columns) of pixels of 0.1483 mm, the width of a detector element at the axis.

    Raises:
        ValueError: ``degrees`` is not a positive multiple of a half.
    """
    steps = round(2 * degrees)
    if steps < 1 or steps != 2 * degrees:
        raise ValueError(f"degrees must be a positive multiple of 0.5, got {degrees}")
    geometry = FanGeometry(
        image_shape=image_shape,
        pixel_mm=0.2 * 410.66 / 553.74,
        angles=np.radians(start_degrees + 0.5 * np.arange(steps + 1)),
        detectors=560,
        detector_mm=0.2,
        source_to_center_mm=410.66,
        source_to_detector_mm=553.74,
    )
    return ScanPreset(geometry=geometry, noise=NoNoise())


def transmittance_scale(sinogram: Tensor, mean: float = 0.5) -> Tensor:
    """The factor that makes the mean transmittance ``exp(-factor * sinogram)`` of each sinogram equal to ``mean``.

    Args:
        sinogram: ``(B, ...)`` noise-free line integrals, not negative and not all zero.
        mean: in (0, 1), above the share of rays that see nothing.

    Returns:
        ``(B, 1, ...)``, to multiply the images and the sinograms by.

    Raises:
        ValueError: a mean that no factor gives.
    """
    flat = sinogram.detach().double().flatten(1)
    empty = (flat <= 0).double().mean(1)
    if not 0 < mean < 1 or bool((flat < 0).any()) or bool((empty >= mean).any()):
        raise ValueError(
            f"no factor gives a mean transmittance of {mean}: line integrals must not be negative, and the share of "
            f"rays that see nothing ({float(empty.max()):.3g}) must be below it"
        )
    # The mean transmittance falls with the factor: bracket, then bisect in its logarithm.
    middle = 1 / flat.mean(1)
    low, high = (middle * 1e-6).log(), (middle * 1e6).log()
    for _ in range(80):
        factor = 0.5 * (low + high)
        above = (-factor.exp()[:, None] * flat).exp().mean(1) > mean
        low, high = torch.where(above, factor, low), torch.where(above, high, factor)
    return (0.5 * (low + high)).exp().to(sinogram.dtype).reshape(-1, *[1] * (sinogram.ndim - 1))
