"""What every reconstruction method takes and gives."""

from __future__ import annotations

import abc
import platform
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from deft_ct.measurement import Measurement, describe
from deft_ct.operators.ct.geometry import PlanarGeometry
from deft_ct.priors import Prior
from deft_ct.progress import progress_bar
from deft_ct.search import SearchSpace
from deft_ct.seeds import Key, image_keys

SHIFT_ELEMENTS = 0.15
"""Detector elements by which the data may seem shifted without a warning."""
PLAUSIBLE_HU = 1e5
"""A CT image beyond this has diverged: metal has some 1e4 HU, and noise that reaches 1e5 leaves nothing to see."""
PLAUSIBLE_IMAGE = 100.0
"""The same for images of a prior without HU, which lie in about [-1, 1]."""


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """The result of a method, in the physical units of the measurement (1/mm for CT).

    Attributes:
        mean: ``(B, C, H, W)``, the reconstruction; the mean of the samples for a sampling method.
        std: ``(B, C, H, W)``, pixelwise spread of the samples; None with fewer than two of them. As they are, or
            rescaled by a calibration: ``provenance["spread"]`` says which.
        samples: ``(B, S, C, H, W)``, draws from the posterior; None for a method that gives one answer.
        provenance: JSON-ready record of method, configuration, seed, measurement, versions, cost and data residual.
        measurement: what the data were taken with.
    """

    mean: Tensor
    std: Tensor | None
    samples: Tensor | None
    provenance: dict[str, Any]
    measurement: Measurement = field(repr=False)

    @property
    def mean_hu(self) -> Tensor:
        """The reconstruction in HU.

        Raises:
            ValueError: the measurement has no Hounsfield scale.
        """
        return self._units().inverse(self.mean)

    @property
    def std_hu(self) -> Tensor | None:
        """The spread in HU, or None."""
        scale = self._units().scale
        return None if self.std is None else self.std / scale

    @property
    def samples_hu(self) -> Tensor | None:
        """The samples in HU, or None."""
        units = self._units()
        return None if self.samples is None else units.inverse(self.samples)

    def _units(self) -> Any:
        if self.measurement.units is None:
            raise ValueError("this measurement has no Hounsfield scale: pass units=HounsfieldScale() to Measurement")
        return self.measurement.units.affine


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a method's own code returns, in physical units; mean or samples may be left out, not both.

    Attributes:
        mean: ``(B, C, H, W)``; the mean of the samples when left out.
        samples: ``(B, S, C, H, W)``.
        std: ``(B, C, H, W)``; the spread of the samples when left out.
        record: more for the provenance.
    """

    mean: Tensor | None = None
    samples: Tensor | None = None
    std: Tensor | None = None
    record: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Request:
    """One call of a method, checked.

    Attributes:
        y: data ``(B, C, *)``.
        measurement: physics, noise, units.
        num_samples: draws wanted for each image.
        seed: of all randomness.
        keys: a name for each image; its randomness depends on (seed, key) alone.
        progress: whether to show progress bars.
    """

    y: Tensor
    measurement: Measurement
    num_samples: int
    seed: int
    keys: list[Key]
    progress: bool


class Reconstructor(abc.ABC):
    """A reconstruction method with its configuration.

    Subclasses set :attr:`name` and :attr:`config_type` and write :meth:`_estimate`.

    Args:
        config: the method's frozen dataclass, of :attr:`config_type`.
    """

    name: ClassVar[str]
    config_type: ClassVar[type]
    search_space: ClassVar[SearchSpace] = {}
    """The fields of the configuration that ``deft-ct tune`` searches, and where."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @abc.abstractmethod
    def _estimate(self, request: Request) -> Estimate:
        """Reconstruct every image of a checked request."""

    def _evaluations(self) -> int:
        """Network evaluations so far."""
        return 0

    def _describe(self) -> dict[str, Any]:
        """More for the record: hashes of the networks."""
        return {}

    def reconstruct(
        self,
        y: Tensor,
        measurement: Measurement,
        *,
        num_samples: int = 1,
        seed: int = 0,
        keys: Sequence[Key] | None = None,
        progress: bool = False,
    ) -> Reconstruction:
        """Reconstruct images from data.

        The result of an image depends on its data, the configuration, the seed and its key alone, not on the rest of
        the batch.

        Args:
            y: ``(B, C, *)`` data; for CT ``(B, 1, views, detectors)`` line integrals.
            measurement: how the data came about.
            num_samples: posterior samples of each image; methods without randomness give one answer whatever it is.
            seed: of the sampling.
            keys: a name for each image, for example SOPInstanceUIDs; positions in the batch by default.
            progress: show progress bars.

        Returns:
            The reconstruction in physical units.

        Warns:
            UserWarning: the data are those of a detector that is off, see ``operators.ct.detector_shift``; or values
                lie far outside of what an image can hold: the method has diverged.

        Raises:
            ValueError: the data do not fit the measurement, are not finite, or ``num_samples`` < 1.
            FloatingPointError: the result holds NaN or infinite values: the method has diverged.
            RuntimeError: out of memory; the message says what to change.
        """
        measurement.check(y)
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, got {num_samples}")
        request = Request(
            y=y, measurement=measurement, num_samples=num_samples, seed=seed, keys=image_keys(len(y), keys),
            progress=progress,
        )  # fmt: skip
        shift = measurement.detector_shift(y)
        if shift is not None and abs(shift) > SHIFT_ELEMENTS:
            warnings.warn(_shift_advice(measurement, shift), UserWarning, stacklevel=2)
        began, evaluations = time.perf_counter(), self._evaluations()
        try:
            estimate = self._estimate(request)
        except torch.OutOfMemoryError as error:
            raise RuntimeError(
                f"{self.name} ran out of memory: lower batch_size in its configuration, or reconstruct fewer images"
            ) from error
        seconds = time.perf_counter() - began
        samples = estimate.samples
        mean = estimate.mean if estimate.mean is not None else samples.mean(1) if samples is not None else None
        if mean is None:
            raise TypeError(f"{type(self).__name__} returned neither a mean nor samples")
        self._check_diverged(request, mean, samples)
        std = estimate.std
        if std is None and samples is not None and samples.shape[1] > 1:
            std = samples.std(1)
        provenance = {
            "method": self.name,
            "config": asdict(self.config),
            "seed": seed,
            "num_samples": 1 if samples is None else samples.shape[1],
            "images": len(y),
            "measurement": describe(measurement),
            "data_residual": _relative_residual(y, mean, measurement),
            "detector_shift_elements": shift,
            "spread": None if std is None else {"calibrated": False},
            "network_evaluations_per_image": (self._evaluations() - evaluations) / len(y),
            "seconds_per_image": seconds / len(y),
            "device": str(y.device),
            "versions": {
                "deft_ct": version("deft-ct"), "torch": torch.__version__, "python": platform.python_version()
            },
            **self._describe(),
            **estimate.record,
        }  # fmt: skip
        return Reconstruction(mean=mean, std=std, samples=samples, provenance=provenance, measurement=measurement)

    def _plausible(self, measurement: Measurement) -> float:
        """Largest magnitude of an image that has not diverged, in HU for CT."""
        return float("inf") if measurement.units is None else PLAUSIBLE_HU

    def _check_diverged(self, request: Request, mean: Tensor, samples: Tensor | None) -> None:
        """Refuse results that are not finite, and warn of implausible ones, image by image."""
        units, limit = request.measurement.units, self._plausible(request.measurement)

        def magnitude(values: Tensor) -> Tensor:
            return (values if units is None else units.affine.inverse(values)).flatten(1).abs().amax(1)

        largest = magnitude(mean) if samples is None else torch.maximum(magnitude(mean), magnitude(samples))
        advice = "its settings do not suit this measurement; tuned ones are in the presets (`deft-ct tune`)"
        broken = [key for key, fine in zip(request.keys, torch.isfinite(largest).tolist(), strict=True) if not fine]
        if broken:
            raise FloatingPointError(f"{self.name} diverged to NaN or infinite values for images {broken}: {advice}")
        wild = [key for key, fine in zip(request.keys, (largest <= limit).tolist(), strict=True) if not fine]
        if wild:
            unit = "" if units is None else " HU"
            warnings.warn(
                f"{self.name} diverged for images {wild}: values up to {float(largest.max()):.1e}{unit}; {advice}",
                UserWarning,
                stacklevel=3,
            )

    def _bar(self, request: Request, total: int) -> Any:
        """A progress bar for this method, shown when the request asks for it."""
        return progress_bar(self.name, total, enabled=request.progress)


class PriorReconstructor(Reconstructor):
    """A method that uses a diffusion prior.

    Args:
        prior: the unconditional model, frozen.
        config: of :attr:`config_type`.
    """

    def __init__(self, prior: Prior, config: Any) -> None:
        super().__init__(config)
        self.prior = prior

    def _evaluations(self) -> int:
        return self.prior.evaluations

    def _plausible(self, measurement: Measurement) -> float:
        return PLAUSIBLE_IMAGE if measurement.units is None else PLAUSIBLE_HU

    def _describe(self) -> dict[str, Any]:
        return {"prior_sha256": self.prior.content_hash(), "network_precision": self.prior.precision}


def _shift_advice(measurement: Measurement, shift: float) -> str:
    geometry = cast(PlanarGeometry, measurement.operator.geometry)
    offset = geometry.detector_offset_mm + shift * geometry.detector_mm
    return (
        f"the data look like those of a detector that is off by {shift:+.2f} elements, and half an element can cost "
        f"several dB: set detector_offset_mm={offset:.4g} in the geometry, or correct the scan with "
        "operators.ct.calibrate"
    )


def _relative_residual(y: Tensor, mean: Tensor, measurement: Measurement) -> float:
    """``|y - A(mean)| / |y|`` over the whole batch: how well the answer explains the data."""
    with torch.no_grad():
        residual = y - measurement.noise.mean(measurement.operator(mean))
    return float(residual.norm() / y.norm().clamp_min(torch.finfo(y.dtype).tiny))


__all__ = ["Estimate", "PriorReconstructor", "Reconstruction", "Reconstructor", "Request"]
