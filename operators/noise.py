"""Noise models: what the detector adds to the noise-free measurement.

A noise model is a frozen value without state. Its methods take tensors whose first axis is the batch. They compute in
the precision of their input; Poisson statistics are computed in float64. Random numbers are drawn sample by sample from
generators that the caller passes. So the noise of one image never depends on the other images of the batch.
"""

from __future__ import annotations

import abc
import dataclasses
import importlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

Generators = torch.Generator | Sequence[torch.Generator]

_LOWEST_INTEGRAL = -0.5
"""Line integrals below it are no attenuation; rounding, interpolation and air of negative attenuation stay above."""


class NoiseModel(abc.ABC):
    """Conditional distribution of the data ``y`` given the noise-free measurement ``clean = A(x)``.

    Attributes:
        white: whether the noise is Gaussian, independent and of one variance within the data of an image.
    """

    white: ClassVar[bool] = False

    @abc.abstractmethod
    def sample(self, clean: Tensor, generator: Generators) -> Tensor:
        """Draw ``y`` given ``clean``.

        Args:
            clean: ``(B, ...)`` noise-free data.
            generator: one generator, read sample after sample, or a sequence of ``B`` generators, one for each sample.
                Numbers are drawn on the generator's device and moved, so a CPU generator gives the same noise on CUDA.

        Returns:
            ``y``, of the shape, dtype and device of ``clean``.

        Raises:
            TypeError: ``clean`` is not a floating-point tensor, or no generator is given.
            ValueError: the number of generators is not the batch size.
        """

    @abc.abstractmethod
    def log_likelihood(self, clean: Tensor, y: Tensor) -> Tensor:
        """Logarithm of ``p(y | clean)``, summed over all axes but the first: ``(B, ...), (B, ...) -> (B,)``."""

    @abc.abstractmethod
    def score(self, clean: Tensor, y: Tensor) -> Tensor:
        """Gradient of :meth:`log_likelihood` with respect to ``clean``: ``(B, ...), (B, ...) -> (B, ...)``."""

    @abc.abstractmethod
    def variance(self, clean: Tensor) -> Tensor:
        """Variance of every entry of ``y`` given ``clean``, of the shape of ``clean``."""

    @abc.abstractmethod
    def weights(self, y: Tensor) -> Tensor:
        """Inverse variance of every entry of ``y``, estimated from ``y`` alone: the statistical weights.

        They make ``sum(weights * (y - mean(clean))**2) / 2`` the quadratic approximation of the negative log
        likelihood (penalised weighted least squares).
        """

    def mean(self, clean: Tensor) -> Tensor:
        """Expected data (to first order for post-log Poisson data); ``clean`` itself unless a subclass says else."""
        return clean

    def to_dict(self) -> dict[str, Any]:
        """The model as plain values, for run records; :meth:`from_dict` is the inverse."""
        return {"type": type(self).__name__, **dataclasses.asdict(cast(Any, self))}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> NoiseModel:
        """Build the model that :meth:`to_dict` described.

        Raises:
            ValueError: the type is unknown, or a parameter is missing, unknown or out of range.
        """
        fields = dict(values)
        name = fields.pop("type", None)
        types = _types()
        if name not in types:
            raise ValueError(f"noise type must be one of {sorted(types)}, got {name!r}")
        try:
            return types[name](**fields)
        except TypeError as error:
            raise ValueError(f"cannot build {name} from {fields}: {error}") from error


@dataclasses.dataclass(frozen=True)
class NoNoise(NoiseModel):
    """Noise-free data, ``y = clean``.

    The exact likelihood is a point mass without a score. Methods that need a data term get the unit-variance one by
    convention: ``log_likelihood = -|y - clean|^2 / 2`` (not normalised), ``score = y - clean``, ``weights = 1``.
    """

    def sample(self, clean: Tensor, generator: Generators | None = None) -> Tensor:
        """Return a copy of ``clean``; the generator is not read."""
        _check_data(clean, "clean")
        return clean.clone()

    def log_likelihood(self, clean: Tensor, y: Tensor) -> Tensor:
        """``-|y - clean|^2 / 2`` for every sample, shape ``(B,)``."""
        _check_pair(clean, y)
        return -0.5 * _sum((y - clean).square())

    def score(self, clean: Tensor, y: Tensor) -> Tensor:
        """``y - clean``."""
        _check_pair(clean, y)
        return y - clean

    def variance(self, clean: Tensor) -> Tensor:
        """Zeros."""
        return torch.zeros_like(clean)

    def weights(self, y: Tensor) -> Tensor:
        """Ones."""
        return torch.ones_like(y)


@dataclasses.dataclass(frozen=True)
class GaussianNoise(NoiseModel):
    """Additive white Gaussian noise of standard deviation ``sigma``.

    Args:
        sigma: standard deviation, in the units of the data. With ``relative`` it is a fraction of the mean absolute
            value of the sample's noise-free data. The "1 % relative noise" of sparse-view papers is 0.01.
        relative: whether ``sigma`` is relative.

    Raises:
        ValueError: ``sigma`` is not a positive finite number.
    """

    white: ClassVar[bool] = True
    sigma: float
    relative: bool = False

    def __post_init__(self) -> None:
        _check_positive("GaussianNoise", "sigma", self.sigma, "use NoNoise() for noise-free data")

    def _std(self, data: Tensor) -> Tensor:
        """Standard deviation of each sample, broadcastable against ``data``."""
        if not self.relative:
            return torch.full((), self.sigma, dtype=data.dtype, device=data.device)
        return self.sigma * data.abs().mean(tuple(range(1, data.ndim)), keepdim=True)

    def sample(self, clean: Tensor, generator: Generators) -> Tensor:
        """``clean + std * n`` with ``n ~ N(0, I)``; see :meth:`NoiseModel.sample`."""
        _check_data(clean, "clean")
        return clean + self._std(clean) * standard_normal(clean, generator)

    def log_likelihood(self, clean: Tensor, y: Tensor) -> Tensor:
        """``log N(y; clean, std^2 I)`` for every sample, shape ``(B,)``, normalised."""
        _check_pair(clean, y)
        std = self._std(clean).expand_as(clean)
        return _sum(-0.5 * ((y - clean) / std).square() - std.log() - 0.5 * math.log(2 * math.pi))

    def score(self, clean: Tensor, y: Tensor) -> Tensor:
        """``(y - clean) / std^2``; relative noise adds the derivative of its standard deviation."""
        _check_pair(clean, y)
        residual, std = y - clean, self._std(clean)
        score = residual / std.square()
        if self.relative:
            dims = tuple(range(1, clean.ndim))
            slope = (residual.square().mean(dims, keepdim=True) / std.square() - 1) / std  # of log p / entries, by std
            score = score + slope * self.sigma * clean.sign()
        return score

    def variance(self, clean: Tensor) -> Tensor:
        """``std^2``, of the shape of ``clean``."""
        return self._std(clean).square().expand_as(clean).clone()

    def weights(self, y: Tensor) -> Tensor:
        """``1 / std^2``; relative noise takes the mean absolute value from ``y``."""
        return self._std(y).square().reciprocal().expand_as(y).clone()


@dataclasses.dataclass(frozen=True)
class PoissonNoise(NoiseModel):
    """Photon counting of rays: ``counts ~ Poisson(photons * exp(-clean)) + N(0, electronic^2)``.

    For transmission. The photons of a photograph are :class:`~deft_ct.operators.image_noise.PhotonNoise`.

    ``clean`` holds dimensionless line integrals. Post-log data are ``y = -log(max(counts, floor) / photons)``; pre-log
    data are the transmittance ``y = counts / photons``. The likelihood is that of the counts (a function of ``clean``
    alone, so the Jacobian of the logarithm is left out), continued to real counts by the gamma function. Electronic
    noise enters it by the shifted-Poisson approximation, ``counts + electronic^2 ~ Poisson(rate + electronic^2)``,
    which is right in the first two moments (Yavuz and Fessler, Med. Image Anal. 1998).

    Args:
        photons: expected counts of an unattenuated ray, ``I0``.
        electronic: standard deviation of the read-out noise, in counts.
        post_log: whether ``y`` are line integrals (default) or transmittances.
        floor: smallest count before the logarithm, 0 < floor < 1; the default 0.1 is that of LoDoPaB-CT (Leuschner et
            al., Sci. Data 2021). Post-log entries at the floor are read back as zero counts.

    Raises:
        ValueError: a parameter is out of range.
    """

    photons: float = 1e5
    electronic: float = 0.0
    post_log: bool = True
    floor: float = 0.1

    def __post_init__(self) -> None:
        _check_positive("PoissonNoise", "photons", self.photons, "it is the count of an unattenuated ray, e.g. 1e5")
        _check_positive("PoissonNoise", "floor", self.floor, "it replaces zero counts before the logarithm, e.g. 0.1")
        if self.floor >= 1:
            raise ValueError(f"PoissonNoise: floor must be below one count, got {self.floor}")
        if not (math.isfinite(self.electronic) and self.electronic >= 0):
            raise ValueError(f"PoissonNoise: electronic must be a finite number >= 0 (counts), got {self.electronic}")

    def sample(self, clean: Tensor, generator: Generators) -> Tensor:
        """Draw counts for line integrals ``clean`` and convert them; see :meth:`NoiseModel.sample`.

        Raises:
            ValueError: ``clean`` holds NaN or infinite values.
        """
        _check_data(clean, "clean")
        if not bool(torch.isfinite(clean).all()):
            raise ValueError("PoissonNoise: clean holds NaN or infinite values; line integrals must be finite")
        if bool((clean < _LOWEST_INTEGRAL).any()):
            raise ValueError(
                f"PoissonNoise is that of rays through matter, and a line integral of {float(clean.min()):.3g} would "
                "make light: for images in [-1, 1] use PhotonNoise"
            )
        rates = self._rate(clean)
        counts = torch.empty_like(rates)
        for index, source in enumerate(generators_for(rates, generator)):
            drawn = torch.poisson(rates[index].to(source.device), generator=source)
            if self.electronic:
                normal = torch.randn(drawn.shape, generator=source, dtype=drawn.dtype, device=source.device)
                drawn = drawn + self.electronic * normal
            counts[index] = drawn.to(counts.device)
        y = -(counts.clamp_min(self.floor) / self.photons).log() if self.post_log else counts / self.photons
        return y.to(clean.dtype)

    def mean(self, clean: Tensor) -> Tensor:
        """``clean`` for post-log data (to first order), ``exp(-clean)`` for pre-log data."""
        return clean if self.post_log else (-clean).exp()

    def log_likelihood(self, clean: Tensor, y: Tensor) -> Tensor:
        """``n log(r) - r - log Gamma(n + 1)``, summed, with ``n`` counts and ``r`` rate, both plus electronic^2."""
        _check_pair(clean, y)
        shift = self.electronic**2
        rate, counts = self._rate(clean) + shift, self._counts(y) + shift
        counts = counts.clamp_min(0)
        log_rate = math.log(self.photons) - clean.double() if shift == 0 else rate.log()
        return _sum(counts * log_rate - rate - torch.lgamma(counts + 1)).to(clean.dtype)

    def score(self, clean: Tensor, y: Tensor) -> Tensor:
        """``rate (rate - counts) / (rate + electronic^2)``: the derivative with respect to the line integrals."""
        _check_pair(clean, y)
        shift = self.electronic**2
        rate = self._rate(clean)
        if shift == 0:
            return (rate - self._counts(y).clamp_min(0)).to(clean.dtype)
        return (rate * (rate - self._counts(y).clamp_min(-shift)) / (rate + shift)).to(clean.dtype)

    def variance(self, clean: Tensor) -> Tensor:
        """``(rate + electronic^2) / rate^2`` post-log (delta method), ``(rate + electronic^2) / photons^2`` pre-log."""
        return self._variance(self._rate(clean)).to(clean.dtype)

    def weights(self, y: Tensor) -> Tensor:
        """``photons exp(-y)`` for post-log data without electronic noise; the inverse of the variance in general."""
        return self._variance(self._counts(y).clamp_min(self.floor)).reciprocal().to(y.dtype)

    def _rate(self, clean: Tensor) -> Tensor:
        return self.photons * (-clean.double()).exp()

    def _counts(self, y: Tensor) -> Tensor:
        if not self.post_log:
            return self.photons * y.double()
        counts = self.photons * (-y.double()).exp()
        # An entry at the floor stands for no count; the margin covers the rounding of a float32 logarithm.
        return torch.where(counts <= self.floor * (1 + 1e-4), 0.0, counts)

    def _variance(self, rate: Tensor) -> Tensor:
        return (rate + self.electronic**2) / (rate.square() if self.post_log else self.photons**2)


def _types() -> dict[str, type[NoiseModel]]:
    """All noise models that are not abstract, by name; those of :mod:`deft_ct.operators.image_noise` too."""
    importlib.import_module("deft_ct.operators.image_noise")
    return {cls.__name__: cls for cls in NoiseModel.__subclasses__() if cls.__module__.startswith("deft_ct.operators.")}


def generators_for(data: Tensor, generator: Generators) -> list[torch.Generator]:
    """One generator for every sample of ``data``; a single generator is used for all, in order.

    Raises:
        TypeError: ``generator`` is no generator.
        ValueError: the number of generators is not the batch size.
    """
    given: object = generator
    if isinstance(given, torch.Generator):
        return [given] * data.shape[0]
    if not isinstance(given, Sequence) or not all(isinstance(item, torch.Generator) for item in given):
        raise TypeError(
            "generator must be a torch.Generator or a sequence of them, one for each sample, got "
            f"{type(given).__name__}; the global random state is never used"
        )
    if len(given) != data.shape[0]:
        raise ValueError(f"generator: expected one for each of the {data.shape[0]} samples, got {len(given)}")
    return list(given)


def standard_normal(like: Tensor, generator: Generators) -> Tensor:
    """Independent standard normal numbers of the shape, dtype and device of ``like``, drawn sample by sample."""
    noise = torch.empty_like(like)
    for index, source in enumerate(generators_for(like, generator)):
        noise[index] = torch.randn(like.shape[1:], generator=source, dtype=like.dtype, device=source.device)
    return noise


def _sum(values: Tensor) -> Tensor:
    return values.sum(tuple(range(1, values.ndim)))


def _check_data(data: object, name: str) -> None:
    if not isinstance(data, Tensor) or not data.is_floating_point():
        got = data.dtype if isinstance(data, Tensor) else type(data).__name__
        raise TypeError(f"{name} must be a floating-point torch tensor, got {got}")
    if data.ndim < 2:
        raise ValueError(f"{name} must have a batch axis and at least one more, got shape {tuple(data.shape)}")


def _check_pair(clean: Tensor, y: Tensor) -> None:
    _check_data(clean, "clean")
    _check_data(y, "y")
    if clean.shape != y.shape:
        raise ValueError(f"clean and y must have one shape, got {tuple(clean.shape)} and {tuple(y.shape)}")


def _check_positive(owner: str, name: str, value: object, hint: str) -> None:
    if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
        raise ValueError(f"{owner}: {name} must be a positive finite number, got {value!r}; {hint}")
