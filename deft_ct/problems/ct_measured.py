"""MEASURED scans with a reference: the Helsinki Tomography Challenge 2022 and 2DeteCT.

The objects are no patients. Their attenuation is put on a Hounsfield scale whose water is a typical material of theirs,
so that it becomes 0 HU and air -1000 HU: methods with a prior of CT images then see values in its range.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
from deft_ct.datasets.htc2022 import HTCScan, challenge_score, read_htc2022
from deft_ct.datasets.htc2022_set import SIDE, HTCFiles, read_segmentation
from deft_ct.datasets.two_detect import TwoDetect
from deft_ct.evaluation.metrics import as_float64, psnr, rmse, ssim
from deft_ct.evaluation.problem import Floats, Mask, Metric
from deft_ct.measurement.measurement import Measurement
from deft_ct.operators.ct import RayTransform
from deft_ct.operators.noise import PoissonNoise
from deft_ct.problems.ct_observed import ObservedCTProblem
from deft_ct.runtime.data_split import DataSplit

HTC_SCALE = HounsfieldScale(mu_water=0.0333, mu_air=0.0)
"""Acrylic at 45 kV has 0.0333/mm in the challenge's own full reconstruction."""
HTC_METRICS = (Metric(name="score", key="challenge_score", heading="challenge score", digits=4, best="highest"),)
FRUIT_SCALE = HounsfieldScale(mu_water=0.02, mu_air=0.0)
REFERENCE_METRICS = (
    Metric(name="psnr", key="psnr_db", heading="PSNR (dB)", digits=2, best="highest"),
    Metric(name="ssim", key="ssim", heading="SSIM", digits=4, best="highest"),
    Metric(name="rmse", key="rmse_hu", heading="RMSE (HU)", digits=1, best="lowest"),
)
PHOTONS = 1e5
"""Assumed per element and view, as a weight of the data: the files do not tell."""


@dataclass(frozen=True, kw_only=True)
class HTCProblem(ObservedCTProblem):
    """Discs of the Helsinki Tomography Challenge 2022, judged by its score.

    An image is segmented by Otsu's threshold and compared with the reference segmentation by the correlation
    coefficient of Matthews.

    Args:
        files: the discs, each with a segmentation.
        side: pixels per side of the reconstruction, a divisor of 512; segmentations are compared at this size.
        degrees: use the first views of this angular range alone; all when None.
        seed: of the sampling.
        batch_size: images at once; every disc has a geometry of its own.
        device: where the data are.

    Raises:
        ValueError: no disc, one without segmentation, or ``side`` does not divide 512.
    """

    files: Sequence[HTCFiles]
    side: int = SIDE
    degrees: float | None = None
    every: int = 1
    seed: int = 0
    batch_size: int = 1
    device: str = "cpu"

    metrics = HTC_METRICS

    def __post_init__(self) -> None:
        if self.side < 1 or SIDE % self.side:
            raise ValueError(f"size must divide {SIDE}, got {self.side}")
        if self.degrees is not None and not 0 < self.degrees <= 360:
            raise ValueError(f"degrees must lie in (0, 360], got {self.degrees}")
        bare = [one.name for one in self.files if one.segmentation is None]
        if bare or not self.files:
            raise ValueError(f"no reference segmentation of {', '.join(bare) or 'any disc'}: nothing can be judged")

    @cached_property
    def _scans(self) -> list[HTCScan]:
        return [_wedge(_at_size(one, self.side), self.degrees) for one in self.files]

    @cached_property
    def _measurements(self) -> list[Measurement]:
        noise = PoissonNoise(photons=PHOTONS)
        return [Measurement(RayTransform(s.geometry), noise, units=HTC_SCALE).to(self.device) for s in self._scans]

    @property
    def scan(self) -> Scan:  # type: ignore[override]  # read-only
        """The most similar scan by name, that of the first disc."""
        angles = self._scans[0].geometry.angle_array
        span = math.degrees(float(np.ptp(angles)))
        return Scan(views=len(angles), photons=PHOTONS, geometry="fan", degrees=min(max(span, 1.0), 360.0))

    @property
    def name(self) -> str:
        """Of the measurement."""
        return "htc2022" if self.degrees is None else f"htc2022-{self.degrees:g}deg"

    @property
    def title(self) -> str:
        """The measurement in words."""
        return "measured fan-beam scans of the Helsinki Tomography Challenge 2022"

    @property
    def data(self) -> str:
        """Name of the data."""
        return "htc2022"

    @property
    def split(self) -> DataSplit:
        """Test, unless all discs are those of training (t..)."""
        return "val" if all(one.name.startswith(("htc2022_t", "htc2022_s")) for one in self.files) else "test"

    @property
    def image_ids(self) -> list[str]:
        """Name of each disc."""
        return [one.name for one in self.files]

    @property
    def patients(self) -> list[str]:
        """Every disc stands for itself."""
        return self.image_ids

    def observation(self, n: int) -> Tensor:
        """``(1, views, 560)``."""
        return self._scans[n].sinogram[0]

    def true_image(self, n: int) -> NDArray[np.float32]:
        """``(side, side)``: 0 HU where the reference segmentation has material, -1000 HU elsewhere."""
        path = self.files[n].segmentation
        assert path is not None
        step = SIDE // self.side
        share = read_segmentation(path).reshape(self.side, step, self.side, step).mean((1, 3))
        return np.where(share >= 0.5, 0.0, -1000.0).astype(np.float32)

    def measurement_of(self, n: int) -> Measurement:
        """Its own for each disc."""
        return self._measurements[n]

    @property
    def mask(self) -> Mask:
        """Everywhere."""
        return np.ones(self.truth.shape, dtype=np.bool_)

    def measure(self, images: Floats) -> dict[str, NDArray[np.float64]]:
        """See :data:`HTC_METRICS`."""
        scores = []
        for image, truth in zip(images, self.truth, strict=True):
            level = threshold_otsu(image) if float(np.ptp(image)) > 0 else np.inf
            scores.append(challenge_score(image > level, truth > -500.0))
        return {"score": np.array(scores)}

    def settings(self) -> dict[str, Any]:
        """Data, size and angular range."""
        return {
            "data": self.data, "data_sha256": self.data_sha256, "every": self.every, "slices": len(self),
            "size": self.side, "degrees": self.degrees, "seed": self.seed, "metrics": "Otsu, Matthews",
        }  # fmt: skip

    def conventions(self) -> str:
        """Data and metric in words."""
        return (
            f"Data: {len(self)} measured discs of HTC 2022, {self.side} x {self.side} pixels. Challenge score: "
            "correlation coefficient of Matthews of Otsu's segmentation with the reference. 0 HU is 0.0333/mm."
        )


@dataclass(frozen=True, kw_only=True)
class TwoDetectProblem(ObservedCTProblem):
    """Slices of 2DeteCT, judged against the reference reconstruction of all 3600 views.

    Args:
        source: the slices of one mode.
        numbers: of the slices that are judged.
        reference_mode: the mode whose reconstruction is the truth: 2, the clean one, for mode 1 as well.
        views: of 3600, a divisor.
        side: pixels per side, a divisor of 1024.
        every: how the slices were chosen, for records.
        seed: of the sampling.
        batch_size: images at once.
        device: where the data are.

    Raises:
        FileNotFoundError: a reference reconstruction is missing.
        ValueError: views or side do not divide.
    """

    source: TwoDetect
    numbers: Sequence[int]
    reference_mode: int = 2
    views: int = 3600
    side: int = 512
    every: int = 1
    seed: int = 0
    batch_size: int = 8
    device: str = "cpu"

    metrics = REFERENCE_METRICS

    def __post_init__(self) -> None:
        known = set(self.source.references(self.reference_mode))
        bare = [f"slice{n:05d}" for n in self.numbers if n not in known]
        if bare or not self.numbers:
            raise FileNotFoundError(
                f"{self.source.root} holds no reconstruction.tif of mode {self.reference_mode} of "
                f"{', '.join(bare[:3]) or 'any slice'}{', ...' if len(bare) > 3 else ''}: the reconstructions are an "
                "archive of their own (Zenodo 8017582 and following); unpack it into the same folder"
            )
        self.source.geometry(self.numbers[0], views=self.views, side=self.side)

    @cached_property
    def _shared(self) -> dict[float, Measurement]:
        """By the shift of the detector, the one thing in which scans differ."""
        found: dict[float, Measurement] = {}
        for number in self.numbers:
            geometry = self.source.geometry(number, views=self.views, side=self.side)
            if geometry.detector_offset_mm not in found:
                made = Measurement(RayTransform(geometry), PoissonNoise(photons=PHOTONS), units=FRUIT_SCALE)
                found[geometry.detector_offset_mm] = made.to(self.device)
        return found

    @property
    def scan(self) -> Scan:  # type: ignore[override]  # read-only
        """The most similar scan by name."""
        return Scan(views=self.views, photons=PHOTONS, geometry="fan")

    @property
    def name(self) -> str:
        """Of the measurement."""
        return f"2detect-mode{self.source.mode}-{self.views}views"

    @property
    def title(self) -> str:
        """The measurement in words."""
        return f"measured fan-beam scans of 2DeteCT, mode {self.source.mode}, {self.views} of 3600 views"

    @property
    def data(self) -> str:
        """Name of the data."""
        return "2detect"

    @property
    def split(self) -> None:
        """The data set has none."""
        return None

    @property
    def image_ids(self) -> list[str]:
        """Folder of each slice."""
        return [f"slice{n:05d}" for n in self.numbers]

    @property
    def patients(self) -> list[str]:
        """The data set does not say which slices are of one sample: every slice stands for itself."""
        return self.image_ids

    def observation(self, n: int) -> Tensor:
        """``(1, views, 956)``."""
        return self.source.sinogram(self.numbers[n], views=self.views)

    def true_image(self, n: int) -> NDArray[np.float32]:
        """``(side, side)`` of the reference reconstruction."""
        reference = self.source.reference(self.numbers[n], mode=self.reference_mode, side=self.side)
        found: NDArray[np.float32] = FRUIT_SCALE.to_hu(reference)
        return found

    def measurement_of(self, n: int) -> Measurement:
        """Shared by all slices with the detector at one place."""
        geometry = self.source.geometry(self.numbers[n], views=self.views, side=self.side)
        return self._shared[geometry.detector_offset_mm]

    @property
    def mask(self) -> Mask:
        """Everywhere."""
        return np.ones(self.truth.shape, dtype=np.bool_)

    def measure(self, images: Floats) -> dict[str, NDArray[np.float64]]:
        """See :data:`REFERENCE_METRICS`; PSNR and SSIM with the range of each reference."""
        return measure_against_references(images, self.truth)

    def settings(self) -> dict[str, Any]:
        """Data, modes, views and size."""
        return {
            "data": self.data, "data_sha256": self.data_sha256, "every": self.every, "slices": len(self),
            "mode": self.source.mode, "reference_mode": self.reference_mode, "views": self.views, "size": self.side,
            "seed": self.seed, "metrics": "range of each reference",
        }  # fmt: skip

    def conventions(self) -> str:
        """Data and metrics in words."""
        return (
            f"Data: 2DeteCT, mode {self.source.mode}, n = {len(self)} slices, {self.views} of 3600 views, {self.side} "
            f"pixels per side. Truth: the reference reconstruction of mode {self.reference_mode}. PSNR and SSIM: range "
            "of each reference. 0 HU is 0.02/mm."
        )


def measure_against_references(images: Floats, truth: Floats) -> dict[str, NDArray[np.float64]]:
    """The metrics of :data:`REFERENCE_METRICS`.

    Args:
        images: ``(N, H, W)`` HU.
        truth: ``(N, H, W)`` HU; the range of each is that of its PSNR and SSIM.
    """
    made, true = as_float64("images", images), as_float64("truth", truth)
    spans = [float(np.ptp(one)) or 1.0 for one in true]
    pairs = list(zip(made, true, spans, strict=True))
    return {
        "psnr": np.array([psnr(a, b, data_range=span)[0] for a, b, span in pairs]),
        "ssim": np.array([ssim(a, b, data_range=span)[0] for a, b, span in pairs]),
        "rmse": rmse(made, true),
    }


def _at_size(one: HTCFiles, side: int) -> HTCScan:
    pixel = read_htc2022(one.scan).geometry.pixel_rc[0]
    return read_htc2022(one.scan, image_shape=(side, side), pixel_mm=pixel * SIDE / side)


def _wedge(scan: HTCScan, degrees: float | None) -> HTCScan:
    """The views of the first ``degrees`` of a scan, ends included."""
    if degrees is None:
        return scan
    angles = scan.geometry.angle_array
    kept = int((angles - angles[0] <= math.radians(degrees) + 1e-9).sum())
    geometry = scan.geometry.replace(views=None, angles=angles[:kept])
    return HTCScan(torch.clone(scan.sinogram[:, :, :kept]), geometry, True, scan.parameters)
