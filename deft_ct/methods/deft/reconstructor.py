"""DEFT: sampling of the posterior with a learned h-transform (Denker et al. 2024, arXiv 2406.01781)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from deft_ct.diffusion import Prior
from deft_ct.diffusion.samplers import SAMPLERS, Denoiser, SamplerName
from deft_ct.diffusion.schedule import Spacing
from deft_ct.measurement.data_term import DataTerm
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.deft import Condition, HTransform, condition_for
from deft_ct.methods.deft.conditional_mean import conditional_mean
from deft_ct.methods.deft.conditioning import check_htransform
from deft_ct.methods.deft.denoiser import conditional_denoiser
from deft_ct.methods.deft.fallback import ScanPlan, plan_for
from deft_ct.methods.deft.familiarity import Familiarity
from deft_ct.methods.deft.matched_samples import SAMPLE_FACTORS, matched, matched_spread
from deft_ct.methods.deft.noisy_image import is_noisy_image, noisy_image_denoiser
from deft_ct.methods.deft.predicted_spread import fit_digest, intervals_of
from deft_ct.methods.deft.spread_calibration import SpreadCalibration, fitting
from deft_ct.methods.deft.spread_network import SpreadNetwork
from deft_ct.methods.deft.trained_measurements import much_larger, other_measurement, other_size, wide_hole
from deft_ct.methods.guided.config import GuidedConfig, check_counts, check_positive
from deft_ct.methods.guided.sampling import Chunk, PosteriorSampler, Walk, check_operator
from deft_ct.networks.tiles import TiledNetwork
from deft_ct.operators.findings import Finding
from deft_ct.reconstruction import Estimate, Request
from deft_ct.reconstructor import USUAL_SAMPLES, NetworkSource, UnsupportedError
from deft_ct.runtime.search_space import Range, SearchSpace
from deft_ct.runtime.seeds import Key, correlated_generator, generator_for, normal_like

ROUNDS_OF_IMAGES = 2
"""Improvements of the mean of photographs; six are worse in most tasks, see docs/method.md."""


@dataclass(frozen=True, kw_only=True)
class DEFTConfig(GuidedConfig):
    """How DEFT samples; see :class:`~deft_ct.methods.guided.config.GuidedConfig`.

    **A start below 1** begins at the diffused initial reconstruction ``r`` instead of the diffused image. For a
    Gaussian posterior of mean ``m`` and spread ``s``, and noise ``sigma^2 = (1 - abar) / abar`` at the start, let
    ``g = s^2 / (s^2 + sigma^2)``. With ``eta=1`` a sample is then off by ``g (r - m)`` and its variance is too small by
    the factor ``1 - g^2``; with ``eta=0`` by ``sqrt(g) (r - m)`` and ``1 - g``. So a start at several spreads of the
    posterior costs little, and with ``eta=1`` even less (``tests/methods/deft/test_few_steps.py``).

    **The consistency step** minimises ``1/2 |y - A x|_W^2 + |x - x0|^2 / (2 consistency_spread^2)`` from the sample (or
    mean) ``x0``, by conjugate gradients. It counts the data twice, as the samples know them already: residual and bias
    go down, and the spread goes down with them.

    Args:
        estimate: what the reconstruction is. ``"samples"``: the mean of the samples, which carries their spread as
            noise, ``spread / sqrt(num_samples)``. ``"mean"``: the conditional estimate of ``E[x_0 | y]`` by the
            networks, see :func:`~deft_ct.methods.deft.conditional_mean.conditional_mean`. Samples are then drawn only
            if more than one is asked for; they give the spread.
        draws: noise images that ``"mean"`` averages over; more change next to nothing.
        rounds: improvements of ``"mean"`` at lower noise, two evaluations each for a draw. None for
            :data:`ROUNDS_OF_IMAGES` where images have no unit, such as photographs, and for none where they have.
        sampler: ``"ddim"`` of first order, or ``"dpm-solver"``, the second-order DPM-Solver++(2M).
        grid: times of the evaluations, see :func:`~deft_ct.diffusion.schedule.time_grid`.
        guidance_strength: multiplies what the h-transform adds to the prior's score; 1 as trained. More is no longer
            the posterior, but useful when the h-transform conditions too weakly.
        consistency_steps: conjugate-gradient iterations of a final step towards the data; 0 for none.
        consistency_spread: size of that step, as a standard deviation in the prior's range; 0.02 are 20 HU.
        calibrated: whether the spread is rescaled where a calibration fits the scan and these settings.
        spread: what the standard deviation is. ``"network"``: of :class:`~deft_ct.methods.deft.SpreadNetwork`, which
            needs no samples and judges ``"mean"``. ``"samples"``: that of the samples. ``"auto"``: of the network
            where there is one.
        closed_form: whether data that are a noisy image use the h-transform in closed form, not the trained one, see
            :mod:`deft_ct.methods.deft.noisy_image`. Only with a ``guidance_strength`` of 1.
        fallback: whether a scan outside of the training is described to the networks by one of equal dose inside of it,
            see :mod:`deft_ct.methods.deft.fallback`. Without it they are told the scan as it is.
        common_noise: share of the variance of the noise of a sample that all images of a run have in common. The k-th
            samples of neighbouring slices are then alike: they differ less where the data leave them free. Each sample
            of its own is distributed as without it.
        matched: whether the distance of each sample from the mean is scaled to the error that the spread network
            predicts, see :mod:`deft_ct.methods.deft.matched_samples`. Samples stay as drawn where there is no such
            network, or where its intervals were fitted for something else.

    Raises:
        ValueError: a value is out of range or unknown.
    """

    steps: int = 10
    estimate: Literal["samples", "mean"] = "mean"
    draws: int = 1
    rounds: int | None = None
    sampler: SamplerName = "dpm-solver"
    grid: Spacing = "log_snr"
    guidance_strength: float = 1.0
    consistency_steps: int = 0
    consistency_spread: float = 0.02
    calibrated: bool = True
    spread: Literal["auto", "network", "samples"] = "auto"
    closed_form: bool = True
    fallback: bool = True
    common_noise: float = 0.0
    matched: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(draws=self.draws)
        check_positive(guidance_strength=self.guidance_strength, consistency_spread=self.consistency_spread)
        if self.spread == "network" and self.estimate != "mean":
            raise ValueError('spread="network" judges the mean: take estimate="mean"')
        if not 0 <= self.common_noise <= 1:
            raise ValueError(f"common_noise must lie in [0, 1], got {self.common_noise}")
        for name in ("consistency_steps", "rounds"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")

    @property
    def sampling(self) -> dict[str, Any]:
        """What of the settings changes the distribution of the results inside of the training, JSON-ready."""
        others = {"batch_size", "calibrated", "closed_form", "common_noise", "fallback", "spread"}
        others |= set() if self.rounds else {"rounds"}
        return {key: value for key, value in asdict(self).items() if key not in others}

    @property
    def mean_settings(self) -> dict[str, Any]:
        """What of the settings changes the mean of ``estimate="mean"`` inside of the training, JSON-ready."""
        final = {"consistency_spread": self.consistency_spread} if self.consistency_steps else {}
        return {
            "draws": self.draws, "rounds": self.rounds or 0, "guidance_strength": self.guidance_strength,
            "consistency_steps": self.consistency_steps, **final,
        }  # fmt: skip


class DEFT(PosteriorSampler):
    """Posterior sampling with a frozen prior and a trained h-transform.

    Neither network is differentiated.

    Args:
        prior: the unconditional model.
        htransform: the correction that was trained for it.
        config: sampler settings.
        spread_network: predicts the error of the mean; None for the spread of the samples alone.

    Raises:
        ValueError: the h-transform belongs to another prior, or the spread network to another h-transform.
    """

    name = "deft"
    config_type = DEFTConfig
    can_start_late = True
    search_space: ClassVar[SearchSpace] = {"eta": Range(0.0, 1.0)}

    def __init__(
        self,
        prior: Prior,
        htransform: HTransform,
        config: DEFTConfig | None = None,
        spread_network: SpreadNetwork | None = None,
    ) -> None:
        super().__init__(prior, config)
        if htransform.prior_hash and htransform.prior_hash != prior.content_hash():
            raise ValueError(
                "this h-transform was trained for another prior (SHA-256 "
                f"{htransform.prior_hash[:12]}..., got {prior.content_hash()[:12]}...): load the matching pair"
            )
        self.htransform = htransform.eval().requires_grad_(False)
        if spread_network is not None and spread_network.htransform_hash != htransform.content_hash():
            raise ValueError(
                "this spread network was trained for another h-transform (SHA-256 "
                f"{spread_network.htransform_hash[:12]}..., got {htransform.content_hash()[:12]}...): train one for it "
                "with `deft-ct train spread`"
            )
        self.spread_network = None if spread_network is None else spread_network.eval().requires_grad_(False)
        limits = htransform.card.get("familiarity")
        self.familiarity = None if limits is None else Familiarity.from_dict(limits)
        self.calibrations = tuple(
            SpreadCalibration.from_dict(values) for values in htransform.card.get("calibrations", ())
        )

    @classmethod
    def from_networks(cls, config: Any, networks: NetworkSource) -> Self:
        """Build the method with the prior, the h-transform and the spread network of ``networks``."""
        return cls(networks.load_prior(), networks.load_htransform(), config, networks.load_spread_network())

    @property
    def needs_samples(self) -> bool:
        """Only where the reconstruction is their mean."""
        return bool(self.config.estimate == "samples")

    @property
    def usual_samples(self) -> int:
        """None but the mean where the spread network judges it."""
        predicted = self.spread_network is not None and self.config.spread != "samples"
        return 1 if predicted and not self.needs_samples else USUAL_SAMPLES

    @property
    def sampling(self) -> dict[str, Any]:
        """What changes the distribution of samples: the settings, and the network that they are matched by."""
        network = self.spread_network if self.config.matched else None
        return self.config.sampling | {"matched": network is not None and network.content_hash()}

    def describe(self) -> dict[str, Any]:
        """Hashes of the prior, of the h-transform, and of what was fitted for the spread."""
        fit = fit_digest(self.spread_network, self.calibrations)
        own = {"htransform_sha256": self.htransform.content_hash()}
        return super().describe() | own | ({} if fit is None else {"spread_fit_sha256": fit})

    def _check(self, request: Request) -> None:
        super()._check(request)
        if self._is_known(request.measurement):
            return
        if self.config.spread == "network" and self.spread_network is None:
            raise UnsupportedError(
                f'{self.name} with spread="network" needs a spread network beside the h-transform: train one with '
                "`deft-ct train spread`"
            )
        likelihood = request.measurement.likelihood(request.y, self.prior.value_range)
        config = self.htransform.config
        seen = [image.name for image in config.operator_images]
        other = other_measurement(self.htransform.card, request.measurement, seen)
        if other is not None:
            raise UnsupportedError(
                f"{self.name} cannot use this h-transform: {other}; train one with `deft-ct train htransform`"
            )
        check_htransform(self.name, config, self.image_shape(request), likelihood)
        units = request.measurement.units
        if self.config.estimate == "mean" and units is not None and units.mean_is_refused:
            raise UnsupportedError(f'{self.name} with estimate="mean" needs a mean: {units.mean_is_refused}')
        if self.config.consistency_steps:
            check_operator("deft with consistency_steps", "linear", likelihood)

    def _is_known(self, measurement: Measurement) -> bool:
        """Whether the h-transform is known in closed form, so that the trained one is not asked."""
        return self.config.closed_form and self.config.guidance_strength == 1 and is_noisy_image(measurement)

    def _condition(self, likelihood: Likelihood) -> Condition:
        return Condition() if self._is_known(likelihood.measurement) else condition_for(likelihood, self.htransform)

    def _advice(self, request: Request) -> tuple[Finding, ...]:
        """A scan or an image size that the h-transform was not trained for, and what is done about it."""
        network = self.htransform.network
        if isinstance(network, TiledNetwork):
            resized = wide_hole(request.measurement, request.y, network.side)
        else:
            resized = other_size(self.htransform.card, request.measurement)
        if "scan" in self.htransform.card:
            resized = much_larger(self.prior.image_shape, self.image_shape(request))
        return self._plan(request).findings + (() if resized is None else (resized,))

    def _judged(self, request: Request, mean: Tensor) -> tuple[dict[str, Any], tuple[Finding, ...]]:
        """Whether image and data are like those of validation slices, where limits are stored with the networks."""
        limits, own = self.familiarity, (self.prior.content_hash(), self.htransform.content_hash())
        if limits is None or (limits.prior_sha256, limits.htransform_sha256) != own:
            return {}, ()
        return limits.judged(self.prior, request, mean)

    def _plan(self, request: Request) -> ScanPlan:
        """What is done with the scan of a request."""
        told_scan = self.config.fallback and self.htransform.config.scan_features
        return plan_for(self.htransform.card, request.measurement, told_scan=told_scan)

    def _estimate(self, request: Request) -> Estimate:
        plan = self._plan(request)
        likelihood = request.measurement.likelihood(request.y, self.prior.value_range).told(plan.grouped)
        condition = self._condition(likelihood)  # once: samples and mean share it
        direct = self.config.estimate == "mean"
        how = plan.record | ({"htransform": "closed form"} if self._is_known(request.measurement) else {})
        samples = None
        if not direct or request.num_samples > 1:
            samples = self.draw(request, likelihood, self._sampler(condition.repeat(request.num_samples)))
        judge = None
        if self.spread_network is not None and condition.initial is not None:
            settings = self.config_for(request.measurement).mean_settings
            judge = intervals_of(self.spread_network, request.measurement, self.image_shape(request), settings)
        matching = judge is not None and judge.expects_error and samples is not None and self.config.matched
        if not direct and not matching:
            return self._sampled(Estimate(samples=samples, record=how), request)
        means = self.mean(likelihood, condition, request.image_ids, seed=request.seed)
        mean, by_network = likelihood.to_physical(means), direct and self.config.spread != "samples"
        if judge is None or not (matching or by_network):
            return self._sampled(Estimate(mean=mean, samples=samples, record=how), request)
        scale = judge.scale(means, condition) * likelihood.to_physical.scale
        if matching:
            assert samples is not None
            samples, factors = matched(samples, mean, judge.energy(scale, condition))
            how |= {SAMPLE_FACTORS: [float(factors.min()), float(factors.max())]}
        if not by_network:
            first = mean if direct else None
            return self._sampled(Estimate(mean=first, samples=samples, record=how, judged=mean), request)
        std, record = judge.deviation(scale, condition, calibrated=self.config.calibrated)
        return Estimate(mean=mean, samples=samples, std=std, record=how | {"spread": record})

    def _sampled(self, estimate: Estimate, request: Request) -> Estimate:
        """The estimate with the spread of its samples, if there are several."""
        samples = estimate.samples
        if samples is None or samples.shape[1] < 2:
            return estimate
        std, record = self._spread(estimate, samples.std(1), request)
        return replace(estimate, std=std, record=estimate.record | {"spread": record})

    def _spread(self, estimate: Estimate, std: Tensor, request: Request) -> tuple[Tensor, dict[str, Any]]:
        """The spread of samples, rescaled if a calibration fits or they are matched, and the record of it."""
        units, reason = request.measurement.units, "" if self.config.calibrated else "switched off"
        if units is not None and self.calibrations and not reason:
            found = fitting(
                self.calibrations, request.measurement, self.image_shape(request), settings=self.sampling,
                samples=request.num_samples, prior_sha256=self.prior.content_hash(),
                htransform_sha256=self.htransform.content_hash(),
            )  # fmt: skip
            if isinstance(found, SpreadCalibration):
                scale = units.affine.scale
                return found.rescaled(std / scale, request.num_samples) * scale, found.record
            reason = found
        if SAMPLE_FACTORS in estimate.record and self.config.calibrated:
            return matched_spread(std, request.num_samples, around_samples=estimate.mean is None)
        return std, {"calibrated": False, "reason": reason or "none was fitted for this h-transform"}

    def defaults_for(self, measurement: Measurement) -> dict[str, Any]:
        """The rounds of the mean: none where the first estimate cannot be improved.

        This is so for a scan, whose initial reconstruction is refined already, and for a known h-transform.
        """
        improved = measurement.units is None and not self._is_known(measurement)
        return {"rounds": ROUNDS_OF_IMAGES if improved else 0}

    @torch.no_grad()
    def mean(self, likelihood: Likelihood, condition: Condition, image_ids: Sequence[Key], *, seed: int = 0) -> Tensor:
        """The mean of ``estimate="mean"`` in the prior's range.

        Args:
            likelihood: the measurement with its data, in the prior's range.
            condition: of :func:`~deft_ct.methods.deft.conditioning.condition_for`, one row for each image.
            image_ids: a name for each image.
            seed: of the noise.

        Returns:
            ``(B, *image_shape)``.
        """
        config: DEFTConfig = self.config_for(likelihood.measurement)
        shape = self.prior.shape_of(likelihood.operator.domain_shape)
        like = torch.zeros((1, *shape), dtype=likelihood.y.dtype, device=likelihood.y.device)
        means = []
        for i, key in enumerate(image_ids):
            part = slice(i, i + 1)

            def draw(k: int, key: Key = key) -> Tensor:
                return normal_like(like, [generator_for(seed, "deft mean", key, k)])

            mean = conditional_mean(
                self._denoiser(likelihood[part], condition[part]), self.prior.schedule, draw,
                draws=config.draws, rounds=config.rounds or 0,
            )  # fmt: skip
            means.append(self._consistent(mean, likelihood[part]))
        return torch.cat(means)

    def _generator(self, seed: int, key: Key, number: int) -> torch.Generator:
        own, share = super()._generator(seed, key, number), self.config.common_noise
        if not share:
            return own
        return correlated_generator(own, generator_for(seed, f"common noise of {self.name}", number), share)

    def _walker(self, likelihood: Likelihood, count: int) -> Walk:
        return self._sampler(self._condition(likelihood).repeat(count))

    def _sampler(self, condition: Condition) -> Walk:
        """Sampling under a condition that has one row for each sample."""
        times = self.config.times(self.prior.schedule)

        def sample(chunk: Chunk) -> Tensor:
            x0 = SAMPLERS[self.config.sampler](
                self._denoiser(chunk.likelihood, condition[chunk.part]),
                chunk.start,
                self.prior.schedule,
                times,
                eta=self.config.eta,
                generators=chunk.generators,
                callback=chunk.tick,
            )
            return self._consistent(x0, chunk.likelihood)

        return sample

    def _denoiser(self, likelihood: Likelihood, condition: Condition) -> Denoiser:
        if self._is_known(likelihood.measurement):
            return noisy_image_denoiser(self.prior, likelihood)
        strength = self.config.guidance_strength
        return conditional_denoiser(self.prior, self.htransform, likelihood, condition, strength=strength)

    def _consistent(self, x0: Tensor, likelihood: Likelihood) -> Tensor:
        """The consistency step from ``x0``."""
        if not self.config.consistency_steps:
            return x0
        term = DataTerm(likelihood, weighted=True)
        damping = (term.sigma / self.config.consistency_spread).square()
        return x0 + term.correction(x0, damping, iterations=self.config.consistency_steps)
