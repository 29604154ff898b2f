"""CT: a simulated scan of the slices of a data set, judged in HU."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.ct.scan import Scan
from deft_ct.datasets.slices import CTSlice, SliceData
from deft_ct.evaluation.problem import Batch, Floats, Mask
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.presets import shipped_presets
from deft_ct.methods.registry import Networks, method_class
from deft_ct.operators.ct.faults import DetectorFault
from deft_ct.problems.ct_metrics import CT_METRICS, DATA_RANGE_HU, measure_ct
from deft_ct.problems.ct_slices import HounsfieldProblem, body_regions, pixel_size
from deft_ct.reconstructor import Reconstructor
from deft_ct.runtime.content_key import content_digest
from deft_ct.runtime.data_split import DataSplit
from deft_ct.runtime.seeds import generator_for

CT_STEPS: Mapping[str, Mapping[str, Any]] = {
    "fbp": {}, "sirt": {}, "cgls": {}, "tikhonov": {}, "tv": {},
    "dds": {"steps": 50}, "ddnm": {"steps": 50}, "diffpir": {"steps": 50}, "pigdm": {"steps": 50},
    "daps": {"steps": 40, "ode_steps": 4}, "reddiff": {"steps": 150},
    "dps": {"steps": 200}, "mcg": {"steps": 200}, "reconstruction_guidance": {"steps": 200}, "deft": {"steps": 10},
}  # fmt: skip
"""Fixed options of every method that applies to CT and has parameters to tune: steps that a CPU affords. At most 50
network evaluations for the methods that solve for the data, 160 for DAPS."""


@dataclass(frozen=True)
class CTProblem(HounsfieldProblem):
    """A simulated scan of every slice of a data set, judged in HU.

    Args:
        pack: the slices.
        scan: what is simulated; the data of a slice depend on (seed, series, index) alone.
        seed: of the noise.
        refine: grid refinement of the simulation, see ``Measurement.simulate``.
        batch_size: slices at once.
        device: where the data are.
        data_range_hu: data range of PSNR and SSIM.
        scanned: slices of the same places that are scanned instead, for example the quarter-dose images of a pair.
        fault: of the detector, on top of the noise.
        label: name of the problem; that of the scan when None.

    Raises:
        ValueError: the slices of ``scanned`` are of other places or sizes.
    """

    pack: SliceData
    scan: Scan
    seed: int = 0
    refine: int = 2
    batch_size: int = 8
    device: str = "cpu"
    data_range_hu: float = DATA_RANGE_HU
    scanned: SliceData | None = None
    fault: DetectorFault | None = None
    label: str | None = None

    metrics = CT_METRICS

    def __post_init__(self) -> None:
        if self.scanned is not None:
            places = [[(s.index, s.pixel_mm, s.hu.shape) for s in data] for data in (self.pack, self.scanned)]
            if places[0] != places[1]:
                raise ValueError(f"the slices of {self.scanned.name} do not lie at the places of {self.pack.name}")

    @property
    def name(self) -> str:
        """Name of the scan, or of the protocol."""
        return self.label or self.scan.name

    @property
    def title(self) -> str:
        """The scan in words."""
        return f"{self.scan}, {type(self.fault).__name__}" if self.fault else str(self.scan)

    @property
    def data(self) -> str:
        """Name of the data set of slices."""
        return self.pack.name

    @property
    def split(self) -> DataSplit | None:
        """That of the slices."""
        return self.pack.split

    def __len__(self) -> int:
        return len(self.pack)

    def simulate(self) -> list[Batch]:
        """Simulated data of every slice, ``(B, 1, views, detectors)``; slices of a batch have one pixel size."""
        measurements: dict[float, Measurement] = {}
        made: list[Batch] = []
        for width, run in groupby(self._runs(self.scanned or self.pack), key=lambda batch: batch[0].pixel_mm):
            shared = measurements.setdefault(width, self._measurement(width))
            # One of its own, for the run alone: the finer grid that it holds takes as much memory as the other.
            simulator = self._measurement(width)
            for batch in run:
                names = _names(batch)
                hu = torch.stack([s.hu for s in batch]).clamp_min(-1000.0)
                x = HounsfieldScale().to_attenuation(hu).to(self.device)
                y = simulator.simulate(x, seed=self.seed, image_ids=names, refine=self.refine)
                if self.fault is not None:
                    y = self.fault(y, [generator_for(self.seed, "fault", name) for name in names])
                made.append(Batch(y, shared, names))
        return made

    def batch_names(self) -> list[list[str]]:
        """Series and index of each slice of each batch."""
        return super().batch_names() if self.replaced else [_names(batch) for batch in self._runs(self.pack)]

    def shared_content(self) -> dict[str, Any]:
        """Everything but the slices themselves, see :meth:`image_contents`."""
        of_the_set = ("data_sha256", "every", "limit", "slices")
        return {name: value for name, value in self.content().items() if name not in of_the_set}

    def image_contents(self) -> list[str]:
        """Of each slice its CT numbers, pixel size, name and patient: its data are simulated from them alone."""
        return [
            content_digest([item.hu, item.pixel_mm, item.group, item.index, patient])
            for item, patient in zip(self.pack, self.patients, strict=True)
        ]

    def true_images(self) -> Floats:
        """``(N, H, W)`` HU, air is -1000."""
        return np.stack([item.hu[0].numpy() for item in self.pack]).clip(min=-1000.0)

    def regions(self) -> dict[str, Mask]:
        """Parts of the body, see :func:`~deft_ct.problems.ct_slices.body_regions`."""
        return body_regions(self.truth, self.body)

    @property
    def patients(self) -> list[str]:
        """Patient of each slice, or another source where the data set does not say."""
        return self.pack.patients

    def measure(self, images: Floats) -> dict[str, NDArray[np.float64]]:
        """Metrics of ``(N, H, W)`` HU, see :data:`CT_METRICS`."""
        widths = [pixel_size(batch.measurement) for batch in self.batches for _ in batch.image_ids]
        return measure_ct(images, self.truth, self.body, data_range_hu=self.data_range_hu, pixel_mm=widths)

    def settings(self) -> dict[str, Any]:
        """Data, seed, refinement and data range."""
        return {
            "data": self.data, "data_sha256": self._pack_hash, "every": self.pack.every, "limit": self.pack.limit,
            "slices": len(self), "seed": self.seed, "simulation_refinement": self.refine,
            "data_range_hu": self.data_range_hu,
            "scanned_sha256": None if self.scanned is None else self.scanned.content_hash(),
        }  # fmt: skip

    def describe_measurement(self) -> dict[str, Any]:
        """The scan, and the fault of the detector if there is one."""
        return self.scan.to_dict() | ({} if self.fault is None else {"fault": str(self.fault)})

    def conventions(self) -> str:
        """Data, PSNR and SSIM in words."""
        scanned = "" if self.scanned is None else f", scanned: {self.scanned.name}"
        return (
            f"Data: {self.data}, every {self.pack.every}{scanned}. PSNR and SSIM: whole slice, data range "
            f"{self.data_range_hu:g} HU, nothing clipped. RMSE: inside the body."
        )

    @cached_property
    def _pack_hash(self) -> str:
        return self.pack.content_hash()

    def _measurement(self, pixel_mm: float) -> Measurement:
        return self.scan.measurement(self.pack.image_shape, pixel_mm).to(self.device)

    def _runs(self, slices: SliceData) -> list[list[CTSlice]]:
        """Slices of one pixel size in a row, at most ``batch_size`` together."""
        out: list[list[CTSlice]] = []
        for item in slices:
            if out and len(out[-1]) < self.batch_size and out[-1][0].pixel_mm == item.pixel_mm:
                out[-1].append(item)
            else:
                out.append([item])
        return out


def _names(batch: Iterable[CTSlice]) -> list[str]:
    return [f"{item.group}/{item.index}" for item in batch]


def build_for_scan(
    networks: Networks, name: str, options: Mapping[str, Any], scan: Scan, *, presets: bool
) -> tuple[Reconstructor, str | None]:
    """A method with its shipped preset for a scan, or the one for the most similar scan.

    Args:
        networks: where the networks come from.
        name: of the method.
        options: fields of its configuration; they override the preset.
        scan: see :func:`nearest_preset`.
        presets: whether to use presets.

    Returns:
        The method, and the name of the preset that was used; None where the method has none.
    """
    method_class(name)
    preset = nearest_preset(name, scan) if presets else None
    return networks.build(name, options, preset=preset), preset


def nearest_preset(method: str, scan: Scan) -> str | None:
    """Name of the shipped preset that suits a scan best: its own, or else that of the most similar scan.

    One unit of distance is a factor of two in views, of ten in photons, a sixth of the lines missing (30 degrees of
    parallel beams), or the other kind of beam. Noise-free data are treated as 1e8 photons.

    Args:
        method: the method that it must be for.
        scan: of slices of 256 x 256 pixels, which presets are tuned for.

    Returns:
        A name for :func:`~deft_ct.methods.presets.load_preset`; None where the method has no shipped preset.
    """
    names = [name for name in shipped_presets(method) if Scan.is_name(name)]  # others are of photographs
    if scan.name in names:
        return scan.name
    return min(names, key=lambda name: (_distance(scan, Scan.from_name(name)), name), default=None)


def _distance(a: Scan, b: Scan) -> float:
    def place(scan: Scan) -> tuple[float, ...]:
        fan = float(scan.geometry == "fan")
        return math.log2(scan.views), math.log10(scan.photons or 1e8), 6 * scan.missing, fan

    return math.dist(place(a), place(b))
