"""A MEASURED sinogram of a user, some of its views judged against the image of all of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.filters import threshold_otsu
from torch import Tensor

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.ct.scan import Scan
from deft_ct.datasets.sinogram_scan import SinogramScan
from deft_ct.evaluation.problem import Floats, Mask
from deft_ct.measurement.measurement import Measurement
from deft_ct.operators.ct import RayTransform, fbp
from deft_ct.operators.noise import PoissonNoise
from deft_ct.problems.ct_measured import PHOTONS, REFERENCE_METRICS, measure_against_references
from deft_ct.problems.ct_observed import ObservedCTProblem


@dataclass(frozen=True, kw_only=True)
class SinogramProblem(ObservedCTProblem):
    """Slices of a measured scan. The truth is the filtered back-projection of all views (Hann window).

    So the noise of the reference counts as truth: a method that removes it is judged worse than it is.

    Args:
        label: name of the data.
        source: the scan.
        views: how many of its views are used, equally spaced; all when None.
        seed: of the sampling.
        batch_size: images at once.
        device: where the data are.

    Raises:
        ValueError: more views than there are.
    """

    label: str
    source: SinogramScan
    views: int | None = None
    seed: int = 0
    batch_size: int = 8
    device: str = "cpu"

    metrics = REFERENCE_METRICS

    def __post_init__(self) -> None:
        there = self.source.geometry.sinogram_shape[0]
        if self.views is not None and self.views > there:
            raise ValueError(f"the scan has {there} views, {self.views} were asked for")

    @cached_property
    def chosen(self) -> NDArray[np.int64]:
        """Numbers of the views that are used."""
        there = self.source.geometry.sinogram_shape[0]
        return np.arange(there) if self.views is None else np.arange(self.views) * there // self.views

    @cached_property
    def _reference(self) -> NDArray[np.float32]:
        """``(slices, H, W)`` 1/mm."""
        return np.asarray(fbp(self.source.sinogram, self.source.geometry, "hann")[:, 0].numpy(), np.float32)

    @cached_property
    def units(self) -> HounsfieldScale:
        """The mean of what Otsu's threshold takes for material is 0 HU."""
        level = threshold_otsu(self._reference) if float(np.ptp(self._reference)) > 0 else 0.0
        material = float(self._reference[self._reference >= level].mean())
        if not (math.isfinite(material) and material > 0):
            raise ValueError(f"{self.label}: the image of all views shows no material; are these line integrals?")
        return HounsfieldScale(mu_water=material, mu_air=0.0)

    @cached_property
    def _measurement(self) -> Measurement:
        geometry = self.source.geometry
        few = geometry.replace(views=None, angles=geometry.angle_array[self.chosen])
        return Measurement(RayTransform(few), PoissonNoise(photons=PHOTONS), units=self.units).to(self.device)

    @property
    def scan(self) -> Scan:  # type: ignore[override]  # read-only
        """The most similar scan by name."""
        span = math.degrees(float(np.ptp(self.source.geometry.angle_array)))
        kind = self.source.geometry.kind
        full = span > 170 if kind == "parallel" else span > 350
        degrees = None if full else max(span, 1.0)
        return Scan(views=len(self.chosen), photons=PHOTONS, geometry=kind, degrees=degrees)  # type: ignore[arg-type]

    @property
    def name(self) -> str:
        """Of the measurement."""
        return f"sinogram-{len(self.chosen)}views"

    @property
    def title(self) -> str:
        """The measurement in words."""
        return f"{len(self.chosen)} of {self.source.geometry.sinogram_shape[0]} views of a measured sinogram"

    @property
    def data(self) -> str:
        """Name of the data."""
        return self.label

    @property
    def split(self) -> None:
        """Not known."""
        return None

    @property
    def image_ids(self) -> list[str]:
        """Number of each slice."""
        return [str(n) for n in range(len(self.source.sinogram))]

    @property
    def patients(self) -> list[str]:
        """All slices are of one object."""
        return [self.label] * len(self)

    def observation(self, n: int) -> Tensor:
        """``(1, views, detectors)``."""
        return self.source.sinogram[n][:, torch.from_numpy(self.chosen)]

    def true_image(self, n: int) -> NDArray[np.float32]:
        """``(H, W)`` of the reference."""
        found: NDArray[np.float32] = self.units.to_hu(self._reference[n])
        return found

    def measurement_of(self, n: int) -> Measurement:
        """One for all slices."""
        return self._measurement

    @property
    def mask(self) -> Mask:
        """Everywhere."""
        return np.ones(self.truth.shape, dtype=np.bool_)

    def measure(self, images: Floats) -> dict[str, NDArray[np.float64]]:
        """See :data:`~deft_ct.problems.ct_measured.REFERENCE_METRICS`."""
        return measure_against_references(images, self.truth)

    def settings(self) -> dict[str, Any]:
        """Data, views and centre."""
        return {
            "data": self.data, "data_sha256": self.data_sha256, "slices": len(self), "views": len(self.chosen),
            "center": self.source.center, "seed": self.seed, "metrics": "range of each reference",
        }  # fmt: skip

    def conventions(self) -> str:
        """Data and metrics in words."""
        return (
            f"Data: {self.label}, {len(self.chosen)} of {self.source.geometry.sinogram_shape[0]} views, axis at column "
            f"{self.source.center:.2f}. Truth: filtered back-projection of all views, with its noise. PSNR and SSIM: "
            f"range of each reference. 0 HU is {self.units.mu_water:.4g}/mm."
        )
