"""MEASURED cone-beam scans of walnuts, judged against the reference reconstruction of all three orbits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.ct.scan import Scan
from deft_ct.datasets.walnuts import Walnuts, WalnutScan, WalnutScanOptions
from deft_ct.evaluation.metrics import as_float64, psnr, rmse, ssim
from deft_ct.evaluation.problem import Floats, Mask
from deft_ct.measurement.measurement import Measurement
from deft_ct.operators.ct import RayTransform
from deft_ct.operators.noise import PoissonNoise
from deft_ct.problems.ct_measured import PHOTONS, REFERENCE_METRICS
from deft_ct.problems.ct_observed import ObservedCTProblem

WALNUT_SCALE = HounsfieldScale(mu_water=0.03, mu_air=0.0)
"""A walnut has some 0.03/mm at the 40 kV of the scanner; it only sets the unit of errors."""


@dataclass(frozen=True, kw_only=True)
class WalnutProblem(ObservedCTProblem):
    """Volumes of walnuts. Every walnut has a geometry of its own, one source and detector a view.

    Args:
        source: the walnuts.
        numbers: of those that are judged.
        how: orbits, views, bins and size.
        every: how the walnuts were chosen, for records.
        seed: of the sampling.
        batch_size: has no effect: every walnut has a geometry of its own.
        device: where the data are.

    Raises:
        FileNotFoundError: no walnut, or one without a reference.
    """

    source: Walnuts
    numbers: Sequence[int]
    how: WalnutScanOptions = field(default_factory=WalnutScanOptions)
    every: int = 1
    seed: int = 0
    batch_size: int = 1
    device: str = "cpu"

    metrics = REFERENCE_METRICS

    def __post_init__(self) -> None:
        known = set(self.source.referenced())
        bare = [f"Walnut{n}" for n in self.numbers if n not in known]
        if bare or not self.numbers:
            orbits = ", ".join(f"tubeV{n}" for n in self.how.orbits)
            raise FileNotFoundError(
                f"{self.source.root} holds no walnut with {orbits} and Reconstructions/full_AGD_50_*.tiff"
                + (f"; {', '.join(bare[:3])} has no reference" if bare else "")
            )

    @cached_property
    def _measured(self) -> dict[int, tuple[WalnutScan, Measurement]]:
        """What was read, by place."""
        return {}

    def _of(self, n: int) -> tuple[WalnutScan, Measurement]:
        if n not in self._measured:
            scan = self.source.scan(self.numbers[n], self.how)
            made = Measurement(RayTransform(scan.geometry), PoissonNoise(photons=PHOTONS), units=WALNUT_SCALE)
            self._measured[n] = scan, made.to(self.device)
        return self._measured[n]

    @property
    def scan(self) -> Scan:  # type: ignore[override]  # read-only
        """The most similar scan by name."""
        return Scan(views=self.how.views, photons=PHOTONS, geometry="fan")

    @property
    def name(self) -> str:
        """Of the measurement."""
        orbits = "".join(map(str, self.how.orbits))
        return f"walnut-orbit{orbits}-{self.how.views}views-{self.how.side}"

    @property
    def title(self) -> str:
        """The measurement in words."""
        orbits = " and ".join(map(str, self.how.orbits))
        return f"measured cone beams of walnuts, orbit {orbits}, {self.how.views} of 1200 views of each"

    @property
    def data(self) -> str:
        """Name of the data."""
        return "walnut"

    @property
    def split(self) -> None:
        """The data set has none."""
        return None

    @property
    def image_ids(self) -> list[str]:
        """Folder of each walnut."""
        return [f"Walnut{n}" for n in self.numbers]

    @property
    def patients(self) -> list[str]:
        """Every walnut stands for itself."""
        return self.image_ids

    def observation(self, n: int) -> Tensor:
        """``(1, views, rows, columns)``, orbits one after the other."""
        return self._of(n)[0].sinogram

    def true_image(self, n: int) -> NDArray[np.float32]:
        """``(size, size, size)`` of the reference reconstruction."""
        found: NDArray[np.float32] = WALNUT_SCALE.to_hu(self.source.reference(self.numbers[n], side=self.how.side))
        return found

    def measurement_of(self, n: int) -> Measurement:
        """Its own for each walnut."""
        return self._of(n)[1]

    @property
    def mask(self) -> Mask:
        """Everywhere."""
        return np.ones(self.truth.shape, dtype=np.bool_)

    def measure(self, images: Floats) -> dict[str, NDArray[np.float64]]:
        """PSNR and RMSE of each volume, and the mean SSIM of its slices; with the range of each reference."""
        made, true = as_float64("images", images), as_float64("truth", self.truth)
        spans = [float(np.ptp(one)) or 1.0 for one in true]
        pairs = list(zip(made, true, spans, strict=True))
        return {
            "psnr": np.array([psnr(a[None], b[None], data_range=span)[0] for a, b, span in pairs]),
            "ssim": np.array([ssim(a, b, data_range=span).mean() for a, b, span in pairs]),
            "rmse": rmse(made, true),
        }

    def picture(self, image: Floats) -> Floats:
        """The middle slice."""
        middle: Floats = image[len(image) // 2]
        return middle

    def release(self) -> None:
        """Forget what was read."""
        super().release()
        self.__dict__.pop("_measured", None)

    def settings(self) -> dict[str, Any]:
        """Data, orbits, views and size."""
        return {
            "data": self.data, "data_sha256": self.data_sha256, "every": self.every, "slices": len(self),
            "orbits": list(self.how.orbits), "views": self.how.views, "bins": self.how.bins, "size": self.how.side,
            "seed": self.seed, "metrics": "range of each reference",
        }  # fmt: skip

    def conventions(self) -> str:
        """Data and metrics in words."""
        return (
            f"Data: {len(self)} walnuts, {self.how.side} voxels along each axis ({self.how.voxel_mm:.3g} mm), "
            f"{self.how.views} of 1200 views of orbit {', '.join(map(str, self.how.orbits))}, detector binned by "
            f"{self.how.bins}. Truth: the reference reconstruction of all views and orbits. PSNR of the volume, mean "
            "SSIM of its slices: range of each reference. 0 HU is 0.03/mm."
        )
