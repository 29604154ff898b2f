"""What every reconstruction method takes and gives."""

from __future__ import annotations

import abc
import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from deft_ct.diffusion import Prior
from deft_ct.measurement.answers import answer_of_samples, check_diverged
from deft_ct.measurement.measurement import Measurement
from deft_ct.measurement.residual import batch_residual, unexplained
from deft_ct.operators.findings import DataWarning, Finding
from deft_ct.operators.memory import check_memory
from deft_ct.reconstruction import Estimate, Reconstruction, Request
from deft_ct.runtime.evaluations import count_evaluations
from deft_ct.runtime.machine import versions
from deft_ct.runtime.progress import progress_bar
from deft_ct.runtime.search_space import SearchSpace
from deft_ct.runtime.seeds import Key, checked_image_ids

PLAUSIBLE_IMAGE = 100.0
"""Largest believable magnitude of images of a prior without a scale, which lie in about [-1, 1]."""
USUAL_SAMPLES = 4
"""Samples of each image where a spread comes from samples and nobody said how many."""


class UnsupportedError(ValueError):
    """A method cannot be used with a measurement; one sentence says why. Raised before any network is evaluated."""


class NetworkSource(Protocol):
    """Where a method gets its networks from when it is built by name; see ``methods.registry.Networks``."""

    def load_prior(self) -> Prior:
        """The diffusion prior."""

    def load_htransform(self, *, required: bool = True) -> Any:
        """The h-transform; if it is not required and none was named, None."""

    def load_spread_network(self) -> Any:
        """The spread network in the folder of the h-transform, or None."""

    def load_model(self, method: str, model_type: type) -> Any:
        """The trained model of a supervised method."""


class Reconstructor(nn.Module, abc.ABC):
    """A reconstruction method with its configuration.

    Its networks are submodules, so ``.to(device)`` and ``.parameters()`` reach them. Calling it is :meth:`reconstruct`.
    Subclasses set :attr:`name` and :attr:`config_type` and write :meth:`_estimate`; one that uses networks also writes
    :meth:`from_networks`.

    Args:
        config: the method's frozen dataclass, of :attr:`config_type`.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    """How figures and tables write the method; its name in capitals unless a subclass says otherwise."""
    config_type: ClassVar[type]
    uses_data: ClassVar[bool] = True
    """Whether the image depends on the data, and so has to explain them."""
    search_space: ClassVar[SearchSpace] = {}
    """The fields of the configuration that ``deft-ct tune`` searches, and where."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in cls.__dict__ and "title" not in cls.__dict__:
            cls.title = cls.name.upper()

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    @classmethod
    def from_networks(cls, config: Any, networks: NetworkSource) -> Self:
        """Build the method; it takes what networks it needs from ``networks``, which loads each of them once."""
        return cls(config)

    @abc.abstractmethod
    def _estimate(self, request: Request) -> Estimate:
        """Reconstruct every image of a checked request."""

    def _check(self, request: Request) -> None:
        """Raise :class:`UnsupportedError` for a measurement that the method cannot be used with, before any work."""

    @property
    def needs_samples(self) -> bool:
        """Whether the reconstruction is made of samples, so that there is none without them."""
        return False

    @property
    def usual_samples(self) -> int:
        """Samples of each image that give a spread, where it comes from samples, and at least one."""
        return USUAL_SAMPLES if self.needs_samples else 1

    def _advice(self, request: Request) -> tuple[Finding, ...]:
        """What the user should know of a checked request before the work starts; nothing by default."""
        return ()

    def defaults_for(self, measurement: Measurement) -> dict[str, Any]:
        """Fields of the configuration that are None by default, and the values that they have for a measurement."""
        return {}

    def config_for(self, measurement: Measurement) -> Any:
        """The configuration with :meth:`defaults_for` in place of None."""
        missing = {
            name: value for name, value in self.defaults_for(measurement).items() if getattr(self.config, name) is None
        }
        return replace(self.config, **missing) if missing else self.config

    @classmethod
    def search_space_for(cls, measurement: Measurement) -> SearchSpace:
        """:attr:`search_space` in the unit of the images of a measurement."""
        return cls.search_space

    def forward(self, y: Tensor, measurement: Measurement, **options: Any) -> Reconstruction:
        """:meth:`reconstruct`, so that a reconstructor can be called."""
        return self.reconstruct(y, measurement, **options)

    def describe(self) -> dict[str, Any]:
        """More for the record: hashes of the networks."""
        return {}

    def reconstruct(
        self,
        y: Tensor,
        measurement: Measurement,
        *,
        num_samples: int | None = 1,
        seed: int = 0,
        image_ids: Sequence[Key] | None = None,
        progress: bool = False,
    ) -> Reconstruction:
        """Reconstruct images from data.

        The result of an image depends on its data, the configuration, the seed and its image id alone, not on the
        rest of the batch.

        Args:
            y: ``(B, C, *)`` data; for CT ``(B, 1, views, detectors)`` line integrals. Half precision is computed, and
                the result returned, in float32.
            measurement: how the data came about.
            num_samples: posterior samples of each image; methods without randomness give one answer whatever it is. 0
                and 1 are none for DEFT with ``estimate="mean"``. None is :attr:`usual_samples`.
            seed: of the sampling.
            image_ids: a name for each image, for example SOPInstanceUIDs; positions in the batch by default.
            progress: show progress bars.

        Returns:
            The reconstruction in physical units. Its mean is the mean of the samples, with two exceptions that
            ``provenance["selected"]`` names. An operator with equivalent images (``Operator.has_equivalents``, phase
            retrieval) takes the sample of the smallest data residual. A domain without means (``Scale.summary``,
            backbones) takes the sample that stands for all. ``provenance["warnings"]`` holds all findings about the
            data. Pixels that no data depend on (``Operator.unseen``) are zero, and ``provenance["unseen_pixels"]``
            counts them.

        Warns:
            DataWarning: the operator found a fault in the data (``Operator.diagnose``), and says so if they were
                repaired. Or the measurement lies outside the training of a network. Both are warned of before the
                reconstruction. Afterwards it warns of an image that does not explain the data, or that is unlike those
                of the training.
            UserWarning: the method has diverged and values lie far outside the range of images.

        Raises:
            UnsupportedError: the method cannot be used with this measurement; a ValueError.
            ValueError: the data do not fit the measurement, are empty or not finite, or ``num_samples`` is too small.
            TypeError: ``y`` is not a floating-point tensor.
            FloatingPointError: the result holds NaN or infinite values: the method has diverged.
            RuntimeError: out of memory; the message says what to change.
        """
        num_samples = self.usual_samples if num_samples is None else num_samples
        if num_samples < (least := int(self.needs_samples)):
            raise ValueError(f"num_samples must be at least {least} for {self.name}, got {num_samples}")
        # Methods that differentiate the prior need autograd, which inference mode rules out even inside enable_grad.
        with torch.inference_mode(False), torch.no_grad():
            plain = plain_data(y, measurement)
            request = Request(
                y=plain, measurement=measurement, num_samples=num_samples, seed=seed,
                image_ids=checked_image_ids(len(plain), image_ids), progress=progress,
            )  # fmt: skip
            return self._answer(request)

    def _answer(self, request: Request) -> Reconstruction:
        """Check, estimate and record."""
        y, measurement = request.y, request.measurement
        self._check(request)
        self._check_memory(request)
        diagnosis = measurement.diagnose(y)
        findings = [*diagnosis.findings, *self._advice(request)]
        for finding in findings:
            warnings.warn(str(finding), DataWarning, stacklevel=3)
        if diagnosis.repaired is not None:
            y = diagnosis.repaired
            request = replace(request, y=y)
        began = time.perf_counter()
        try:
            with count_evaluations() as evaluations:
                estimate = self._estimate(request)
        except torch.OutOfMemoryError as error:
            raise RuntimeError(
                f"{self.name} ran out of memory: lower batch_size in its configuration, or reconstruct fewer images"
            ) from error
        seconds = time.perf_counter() - began
        unseen = measurement.operator.unseen()
        if unseen is not None:
            estimate = estimate.cleared(unseen)
        samples = estimate.samples
        mean, chosen = estimate.mean, dict[str, Any]()
        std = estimate.std
        summary = None if measurement.units is None or samples is None else measurement.units.summary(samples)
        if summary is not None and samples is not None:
            mean, std = samples[torch.arange(len(y)), summary.chosen.to(samples.device)], summary.std
            chosen = {"selected": summary.record}
        elif mean is None and samples is not None:
            mean, chosen = answer_of_samples(y, samples, measurement)
        if mean is None:
            raise TypeError(f"{type(self).__name__} returned neither a mean nor samples")
        images = [mean] if samples is None else [mean, samples]
        limit = self.largest_plausible(measurement)
        sane = check_diverged(self.name, request.image_ids, images, measurement, limit)
        missed = unexplained(y, mean, measurement) if sane and self.uses_data else None
        seen = mean if estimate.judged is None else estimate.judged
        judged, strange = self._judged(request, seen) if sane and missed is None else ({}, ())
        findings += (said := [missed] if missed is not None else list(strange))
        for finding in said:
            warnings.warn(str(finding), DataWarning, stacklevel=3)
        if std is None and summary is None and samples is not None and samples.shape[1] > 1:
            std = samples.std(1)
        provenance = {
            "method": self.name,
            "config": asdict(self.config_for(measurement)),
            "seed": request.seed,
            "num_samples": 1 if samples is None else samples.shape[1],
            "images": len(y),
            "measurement": measurement.describe(),
            "data_residual": batch_residual(y, mean, measurement),
            "warnings": [finding.to_dict() for finding in findings],
            **diagnosis.record,
            "spread": None if std is None else {"calibrated": False},
            "network_evaluations_per_image": evaluations.total / len(y),
            "seconds_per_image": seconds / len(y),
            "device": str(y.device),
            "versions": versions(),
            **self.describe(),
            **chosen,
            **judged,
            **estimate.record,
        }  # fmt: skip
        return Reconstruction(mean=mean, std=std, samples=samples, provenance=provenance, measurement=measurement)

    def _judged(self, request: Request, mean: Tensor) -> tuple[dict[str, Any], tuple[Finding, ...]]:
        """A record of how usual the answer is, and what is not; nothing by default."""
        return {}, ()

    def _check_memory(self, request: Request) -> None:
        """Refuse samples that do not fit into memory."""
        if request.y.device.type != "cpu":  # a GPU has a memory of its own, and says by itself when it is full
            return
        image = math.prod(request.image_shape) * request.y.element_size()
        check_memory(
            2 * len(request.y) * request.num_samples * image,
            f"{request.num_samples} samples of each of {len(request.y)} images", "take fewer samples or images",
        )  # fmt: skip

    def largest_plausible(self, measurement: Measurement) -> float:
        """Largest magnitude of an image that has not diverged, in the unit of the scale."""
        return float("inf") if measurement.units is None else measurement.units.plausible

    def _bar(self, request: Request, total: int) -> Any:
        """A progress bar for this method, shown when the request asks for it."""
        return progress_bar(self.name, total, enabled=request.progress)


class PriorReconstructor(Reconstructor):
    """A method that uses a diffusion prior.

    Args:
        prior: the unconditional model, frozen.
        config: of :attr:`config_type`.
    """

    takes_volumes: ClassVar[bool] = False
    """Whether it reconstructs volumes with a prior of their slices."""

    def __init__(self, prior: Prior, config: Any) -> None:
        super().__init__(config)
        self.prior = prior

    @classmethod
    def from_networks(cls, config: Any, networks: NetworkSource) -> Self:
        """Build the method with the prior of ``networks``."""
        return cls(networks.load_prior(), config)

    def image_shape(self, request: Request) -> tuple[int, ...]:
        """Shape of one image of a request: ``(C, H, W)`` or ``(N, 3)``, or ``(C, Z, H, W)`` for a volume.

        Raises:
            UnsupportedError: the prior is not for such images, or the method does not take volumes.
        """
        domain, own = request.measurement.operator.domain_shape, self.prior.image_shape
        if request.measurement.operator.on_volumes:
            return self._volume_shape(request)
        no_channels = request.image_shape == domain and len(domain) < len(own)
        shape = self.prior.shape_of(domain)
        if no_channels and self.prior.fits(shape):
            raise UnsupportedError(
                f"{self.name} needs data with a channel axis for a prior for images of shape {own}, got data of shape "
                f"{tuple(request.y.shape)}: pass y[:, None]"
            )
        if no_channels or not self.prior.fits(shape):
            raise UnsupportedError(
                f"{self.name} needs a prior for images of shape {request.image_shape}, and this one is for images of "
                f"shape {own}"
            )
        return shape

    def _volume_shape(self, request: Request) -> tuple[int, ...]:
        domain, shape = request.measurement.operator.domain_shape, request.image_shape
        if not self.takes_volumes:
            raise UnsupportedError(
                f"{self.name} reconstructs single slices, and the operator is on volumes {domain}: use a method that "
                "takes volumes (dds, ddnm, diffpir, daps, reddiff, or tv and cgls without a prior), or a scan of slices"
            )
        if not self.prior.fits_slices(shape):
            raise UnsupportedError(
                f"{self.name} needs data (B, {self.prior.channels}, "
                f"{', '.join(map(str, request.measurement.operator.range_shape))}) for volumes {domain} and a prior "
                f"for images of shape {self.prior.image_shape}; got data of shape {tuple(request.y.shape)}"
            )
        return shape

    def _check(self, request: Request) -> None:
        self.image_shape(request)
        try:
            request.measurement.scale_to(self.prior.value_range)
        except ValueError as error:
            raise UnsupportedError(f"{self.name} cannot use this prior: {error}") from None

    def largest_plausible(self, measurement: Measurement) -> float:
        """As for every method; without a scale, :data:`PLAUSIBLE_IMAGE`."""
        return PLAUSIBLE_IMAGE if measurement.units is None else measurement.units.plausible

    def describe(self) -> dict[str, Any]:
        """Hash and precision of the prior."""
        return {"prior_sha256": self.prior.content_hash(), "network_precision": self.prior.precision}


def plain_data(y: Tensor, measurement: Measurement) -> Tensor:
    """Data as a plain tensor, checked; half precision becomes float32.

    Subclasses of Tensor (MONAI's MetaTensor, for example) may change what an operation returns, so methods work on the
    plain tensor behind them. Tensors made in inference mode are copied, because autograd refuses them.

    Raises:
        TypeError: ``y`` is not a floating-point tensor.
        ValueError: it is empty, not finite, or does not fit the measurement.
    """
    if isinstance(y, Tensor):
        y = y.as_subclass(Tensor)
    y = measurement.check(y).detach()
    return y.clone() if y.is_inference() else y
