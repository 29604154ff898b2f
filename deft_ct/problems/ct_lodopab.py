"""LoDoPaB-CT with its own observations, judged by its own conventions.

Leuschner, Schmidt, Baguer and Maass, Scientific Data 8:109 (2021). Its board reports PSNR with the range of each true
image (maximum less minimum), PSNR-FR with the fixed range 1 of the normalised images, and SSIM with the range of each
image. Values are normalised by ``MU_MAX``, and nothing is clipped. The formulas are those of the library dival.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.ct.scan import Scan
from deft_ct.datasets.lodopab import MIN_PHOTONS, PHOTONS, LoDoPaB, LoDoPaBSlices
from deft_ct.evaluation.metrics import Mask, as_float64, bias, rmse
from deft_ct.evaluation.problem import Floats, Metric
from deft_ct.measurement.measurement import Measurement
from deft_ct.operators.ct import ParallelGeometry, RayTransform
from deft_ct.operators.noise import PoissonNoise
from deft_ct.problems.ct_lodopab_metrics import lodopab_quality, lodopab_values
from deft_ct.problems.ct_observed import ObservedCTProblem
from deft_ct.runtime.data_split import DataSplit

LODOPAB_METRICS = (
    Metric(name="psnr", key="psnr_db", heading="PSNR (dB)", digits=2, best="highest"),
    Metric(name="psnr_fr", key="psnr_fr_db", heading="PSNR-FR (dB)", digits=2, best="highest"),
    Metric(name="ssim", key="ssim", heading="SSIM", digits=4, best="highest"),
    Metric(name="ssim_fr", key="ssim_fr", heading="SSIM-FR", digits=4, best="highest", in_table=False),
    Metric(name="rmse", key="rmse_body_hu", heading="RMSE in body (HU)", digits=1, best="lowest"),
    Metric(name="bias", key="bias_body_hu", heading="bias in body (HU)", digits=1, best=None, in_table=False),
)
"""The two conventions of LoDoPaB-CT, and errors in HU."""


@dataclass(frozen=True, kw_only=True)
class LoDoPaBProblem(ObservedCTProblem):
    """Images of one part of LoDoPaB-CT with the observations that come with them.

    Args:
        source: the part; its number of views is that of the observations.
        every: keep every k-th image.
        limit: of these, keep at most so many.
        seed: of the sampling; the observations have their own noise.
        batch_size: images at once.
        device: where the data are.

    Raises:
        FileNotFoundError: the ground truth is not there (challenge set).
    """

    source: LoDoPaB
    every: int = 1
    limit: int | None = None
    seed: int = 0
    batch_size: int = 8
    device: str = "cpu"

    metrics = LODOPAB_METRICS

    def __post_init__(self) -> None:
        if not self.source.has_truth:
            raise FileNotFoundError(
                f"{self.source.root} holds no ground truth of the challenge set, so nothing can be compared with it: "
                "write a submission with `deft-ct data challenge`, or compare on the part test"
            )

    @property
    def scan(self) -> Scan:  # type: ignore[override]  # read-only
        """The most similar scan by name."""
        return lodopab_scan(self.source.views)

    @cached_property
    def slices(self) -> LoDoPaBSlices:
        """The true images that are judged."""
        return LoDoPaBSlices(self.source, self.every, self.limit)

    @property
    def data(self) -> str:
        """Name of the part."""
        return self.slices.name

    @property
    def split(self) -> DataSplit:
        """Which part it is."""
        return self.slices.split

    @cached_property
    def image_ids(self) -> list[str]:
        """Numbers of the images in their part."""
        return [str(n) for n in self.slices.positions]

    @property
    def patients(self) -> list[str]:
        """Patient numbers; without the patient lists every image stands for itself."""
        return self.slices.patients

    def observation(self, n: int) -> Tensor:
        """``(1, views, 513)``."""
        return torch.from_numpy(self.source.observation(int(self.image_ids[n])))[None]

    def true_image(self, n: int) -> NDArray[np.float32]:
        """``(362, 362)`` HU."""
        found: NDArray[np.float32] = HounsfieldScale().to_hu(self.source.truth(int(self.image_ids[n])))
        return found

    def measurement_of(self, n: int) -> Measurement:
        """One for all images."""
        return self._measurement

    @cached_property
    def _measurement(self) -> Measurement:
        return lodopab_measurement(self.source.views).to(self.device)

    def measure(self, images: Floats) -> dict[str, NDArray[np.float64]]:
        """See :data:`LODOPAB_METRICS`."""
        return measure_lodopab(images, self.truth, self.body)

    def settings(self) -> dict[str, Any]:
        """Data, views and what is kept of them."""
        return {
            "data": self.data, "data_sha256": self.data_sha256, "every": self.every, "limit": self.limit,
            "slices": len(self), "views": self.source.views, "seed": self.seed, "metrics": "dival",
        }  # fmt: skip

    def conventions(self) -> str:
        """Data and metrics in words."""
        kept = f"every {self.every}" + ("" if self.limit is None else f", at most {self.limit}")
        unknown = "" if self.source.patients is not None else " The patient lists are missing."
        return (
            f"Data: LoDoPaB-CT, part {self.source.part}, {kept}: n = {len(self)} of {len(self.source):,}, own "
            f"observations, {self.source.views} of 1000 views, {PHOTONS} photons.{unknown} PSNR and SSIM: range of "
            "each true image; PSNR-FR: range 1 of images over 81.36/m; nothing clipped. RMSE: inside the body."
        )


def lodopab_scan(views: int = 1000) -> Scan:
    """The scan of LoDoPaB-CT by name, by which tuned parameters are chosen."""
    return Scan(views=views, photons=PHOTONS, detectors=513)


def lodopab_measurement(views: int = 1000) -> Measurement:
    """Geometry, noise and units of LoDoPaB-CT.

    Args:
        views: of 1000, a divisor.
    """
    noise = PoissonNoise(photons=PHOTONS, floor=MIN_PHOTONS)
    return Measurement(RayTransform(ParallelGeometry.lodopab(views)), noise, units=HounsfieldScale())


def measure_lodopab(images: ArrayLike, truth: ArrayLike, body: Mask) -> dict[str, NDArray[np.float64]]:
    """The metrics of :data:`LODOPAB_METRICS`: name -> a value for every image.

    Args:
        images: ``(N, H, W)`` HU.
        truth: ``(N, H, W)`` HU.
        body: ``(N, H, W)``, where errors in HU are taken.
    """
    made, true = as_float64("images", images), as_float64("truth", truth)
    found = lodopab_quality(lodopab_values(made), lodopab_values(true))
    return {
        "psnr": found["psnr_lodopab"],
        "psnr_fr": found["psnr_fr"],
        "ssim": found["ssim_lodopab"],
        "ssim_fr": found["ssim_fr"],
        "rmse": rmse(made, true, mask=body),
        "bias": bias(made, true, mask=body),
    }
