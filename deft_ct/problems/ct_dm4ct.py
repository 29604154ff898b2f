"""The five settings of DM4CT on CT slices: as published, and a corrected one of another name.

DM4CT (ICLR 2026) scales the images of all volumes together to [0, 1] and treats them as attenuation, whatever their
Hounsfield units. It projects them on the grid of the reconstruction. It scales the sinogram of each image to a mean
transmittance of one half and draws Poisson counts. Angles include both ends, so that the last of a half turn repeats
the first. The detector has as many elements as the image has columns. PSNR and SSIM are taken of images in [-1, 1] with
data range 2. Geometry, noise and rings are those of :func:`deft_ct.operators.ct.presets.dm4ct`.

The corrected setting keeps views, photons and rings and changes the rest: attenuation in 1/mm from HU, photons counted
without scaling, a simulation on a finer grid, distinct angles, a detector that covers the image, and metrics in HU.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.ct.scan import Scan
from deft_ct.datasets.slices import CTSlice, SliceData
from deft_ct.evaluation.metrics import as_float64, bias, psnr, rmse, ssim
from deft_ct.evaluation.problem import Floats, Metric
from deft_ct.measurement.measurement import Measurement
from deft_ct.operators.ct import RayTransform
from deft_ct.operators.ct.presets import DM4CTSetting, ScanPreset, dm4ct, transmittance_scale
from deft_ct.problems.ct import CTProblem
from deft_ct.problems.ct_observed import ObservedCTProblem
from deft_ct.problems.options import ProblemOptions
from deft_ct.runtime.data_split import DataSplit
from deft_ct.runtime.seeds import generator_for

DM4CT_SETTINGS: tuple[DM4CTSetting, ...] = get_args(DM4CTSetting)
DM4CT_METRICS = (
    Metric(name="psnr", key="psnr_db", heading="PSNR (dB)", digits=2, best="highest"),
    Metric(name="ssim", key="ssim", heading="SSIM", digits=4, best="highest"),
    Metric(name="rmse", key="rmse_body_hu", heading="RMSE in body (HU)", digits=1, best="lowest"),
    Metric(name="bias", key="bias_body_hu", heading="bias in body (HU)", digits=1, best=None, in_table=False),
)
_SCANS = {
    "i": Scan(views=40, photons=None),
    "ii": Scan(views=20, photons=1e4),
    "iii": Scan(views=80, photons=5e3),
    "iv": Scan(views=80, photons=1e4),
    "v": Scan(views=40, photons=None, degrees=135.0),
}


@dataclass(frozen=True, kw_only=True)
class DM4CTProblem(ObservedCTProblem):
    """A setting of DM4CT as published, on slices in HU.

    Args:
        pack: the slices.
        setting: "i" to "v".
        hu_range: least and largest CT number of all volumes, which the benchmark scales to [0, 1]. None takes the
            range of the given slices.
        seed: of noise and rings.
        batch_size: images at once; every image has a measurement of its own.
        device: where the data are.

    Raises:
        ValueError: an unknown setting, or a least CT number above -1000 HU.
    """

    pack: SliceData
    setting: DM4CTSetting
    hu_range: tuple[float, float] | None = None
    seed: int = 0
    batch_size: int = 1
    device: str = "cpu"

    metrics = DM4CT_METRICS

    def __post_init__(self) -> None:
        if self.setting not in DM4CT_SETTINGS:
            raise ValueError(f"DM4CT has the settings {', '.join(DM4CT_SETTINGS)}, got {self.setting!r}")
        if self.limits[0] > -1000 or self.limits[0] >= self.limits[1]:
            raise ValueError(
                f"the settings of DM4CT need images with air: the least CT number is {self.limits[0]:g} HU, expected "
                "-1000 HU or less"
            )

    @property
    def scan(self) -> Scan:  # type: ignore[override]  # read-only
        """The most similar scan by name."""
        return _SCANS[self.setting]

    @property
    def name(self) -> str:
        """Of the setting."""
        return f"dm4ct-{self.setting}"

    @property
    def title(self) -> str:
        """The setting in words."""
        return f"DM4CT setting ({self.setting}) as published"

    @property
    def data(self) -> str:
        """Name of the slices."""
        return self.pack.name

    @property
    def split(self) -> DataSplit | None:
        """That of the slices."""
        return self.pack.split

    @property
    def image_ids(self) -> list[str]:
        """Series and index of each slice."""
        return [f"{s.group}/{s.index}" for s in self._slices]

    @property
    def patients(self) -> list[str]:
        """Patient of each slice."""
        return self.pack.patients

    @cached_property
    def limits(self) -> tuple[float, float]:
        """CT numbers that stand for 0 and 1."""
        if self.hu_range is not None:
            return self.hu_range
        return min(float(s.hu.min()) for s in self._slices), max(float(s.hu.max()) for s in self._slices)

    def observation(self, n: int) -> Tensor:
        """``(1, views, detectors)``, simulated."""
        measurement, name = self.measurement_of(n), self.image_ids[n]
        x = measurement.units.affine(self._slices[n].hu[None])  # type: ignore[union-attr]  # always in HU
        y = measurement.simulate(x.to(self.device), seed=self.seed, image_ids=[name])
        fault = self._preset(n).fault
        return (y if fault is None else fault(y, [generator_for(self.seed, "fault", name)]))[0].cpu()

    def true_image(self, n: int) -> NDArray[np.float32]:
        """``(H, W)`` HU, not clipped."""
        found: NDArray[np.float32] = self._slices[n].hu[0].numpy()
        return found

    def measurement_of(self, n: int) -> Measurement:
        """Its own for each image, because the scale of the attenuation is."""
        return self._measurements[n]

    def measure(self, images: Floats) -> dict[str, NDArray[np.float64]]:
        """See :data:`DM4CT_METRICS`; PSNR and SSIM of images scaled to [-1, 1]."""
        made, true = as_float64("images", images), as_float64("truth", self.truth)
        low, high = self.limits
        a, b = (2 * (values - low) / (high - low) - 1 for values in (made, true))
        return {
            "psnr": psnr(a, b, data_range=2.0), "ssim": ssim(a, b, data_range=2.0),
            "rmse": rmse(made, true, mask=self.body), "bias": bias(made, true, mask=self.body),
        }  # fmt: skip

    def settings(self) -> dict[str, Any]:
        """Data, seed and setting."""
        return {
            "data": self.data, "data_sha256": self.pack.content_hash(), "every": self.pack.every,
            "limit": self.pack.limit, "slices": len(self), "seed": self.seed, "hu_range": list(self.limits),
            "metrics": "DM4CT", "protocol": "as published",
        }  # fmt: skip

    def conventions(self) -> str:
        """Data and metrics in words."""
        low, high = self.limits
        return (
            f"Data: {self.data}, every {self.pack.every}. DM4CT as published: images scaled from [{low:g}, {high:g}] "
            "HU to [-1, 1], simulated on the grid of the reconstruction. PSNR and SSIM: range 2. RMSE: in the body."
        )

    @cached_property
    def _slices(self) -> list[CTSlice]:
        return list(self.pack)

    @cached_property
    def _measurements(self) -> list[Measurement]:
        low, high = self.limits
        transforms: dict[float, RayTransform] = {}
        made = []
        for n, item in enumerate(self._slices):
            preset = self._preset(n)
            transform = transforms.setdefault(item.pixel_mm, RayTransform(preset.geometry))
            scaled = (item.hu[None] - low) / (high - low)
            step = float(transmittance_scale(transform(scaled)).squeeze()) / (high - low)
            units = HounsfieldScale(mu_water=-low * step, mu_air=(-low - 1000) * step)
            made.append(Measurement(transform, preset.noise, units=units).to(self.device))
        return made

    def _preset(self, n: int) -> ScanPreset:
        item = self._slices[n]
        height, width = item.hu.shape[-2:]
        return dm4ct(self.setting, image_shape=(height, width), pixel_mm=item.pixel_mm)


def dm4ct_corrected(pack: SliceData, setting: DM4CTSetting, options: ProblemOptions) -> CTProblem:
    """The corrected setting, under the name ``dm4ct-corrected-SETTING``.

    Args:
        pack: the slices.
        setting: "i" to "v".
        options: seed, batch size and device.
    """
    return CTProblem(
        pack, _SCANS[setting], seed=options.seed, batch_size=options.batch_size, device=options.device,
        fault=dm4ct(setting).fault, label=f"dm4ct-corrected-{setting}",
    )  # fmt: skip
