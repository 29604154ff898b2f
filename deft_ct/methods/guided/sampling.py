"""What all methods that draw samples with a prior share: chunks of samples, and random numbers."""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from deft_ct.diffusion import Prior
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.guided.start import check_warm_start, warm_start
from deft_ct.operators.linear import LinearOperator
from deft_ct.operators.projection import Projecting
from deft_ct.operators.svd import Decomposable
from deft_ct.reconstruction import Estimate, Request
from deft_ct.reconstructor import PriorReconstructor, UnsupportedError
from deft_ct.runtime.progress import Ticker
from deft_ct.runtime.search_space import SearchSpace
from deft_ct.runtime.seeds import Key, generator_for, normal_like

Need = Literal["any", "linear", "svd", "projection"]


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Samples that are walked at once.

    Attributes:
        likelihood: of these samples: each has its own row of data.
        part: which of all samples they are.
        start: ``(B, C, H, W)``, for volumes ``(B, C, Z, H, W)``: the image at the first time, that is standard normal
            numbers, or a quick reconstruction with noise on it.
        generators: one for each sample; the noise of ``start`` was drawn from them.
        tick: call with the number of steps done after every step.
    """

    likelihood: Likelihood
    part: slice
    start: Tensor
    generators: list[torch.Generator]
    tick: Callable[[int], None]

    def normal(self, like: Tensor) -> Tensor:
        """Fresh standard normal numbers of the shape of ``like``, from each sample's own generator."""
        return normal_like(like, self.generators)


Walk = Callable[[Chunk], Tensor]


class PosteriorSampler(PriorReconstructor):
    """A method whose samples are walked independently of one another.

    Subclasses write :meth:`_walker` and state in :attr:`needs` what the operator must have. ``"any"`` needs only a
    derivative, ``"linear"`` linearity, ``"svd"`` a singular value decomposition, and ``"projection"`` a projection onto
    the images that have the data.

    Args:
        prior: the unconditional model.
        config: of :attr:`config_type`; its defaults when None.
    """

    needs: ClassVar[Need] = "any"
    can_start_late: ClassVar[bool] = False
    """Whether the configuration has ``start`` and ``start_from``, see
    :class:`~deft_ct.methods.guided.config.WarmStartConfig`."""

    def __init__(self, prior: Prior, config: Any = None) -> None:
        super().__init__(prior, self.config_type() if config is None else config)

    @classmethod
    def search_space_for(cls, measurement: Measurement) -> SearchSpace:
        """Without ``start`` where there is no total variation to start from: on grids without a spacing."""
        space = super().search_space_for(measurement)
        if not cls.can_start_late or measurement.operator.grid_spacing is not None:
            return space
        return {name: where for name, where in space.items() if name != "start"}

    @property
    def needs_samples(self) -> bool:
        """The reconstruction is the mean of the samples."""
        return True

    @abc.abstractmethod
    def _walker(self, likelihood: Likelihood, count: int) -> Walk:
        """Prepare what all chunks share.

        Args:
            likelihood: of the images, in the prior's range, not yet repeated.
            count: samples of each image.

        Returns:
            A function that turns a chunk into clean images ``(B, C, H, W)`` in the prior's range.
        """

    def _ticks(self) -> int:
        """How many steps a sampling reports."""
        if self.can_start_late:
            return len(self.config.times(self.prior.schedule))
        steps: int = self.config.steps
        return steps

    def _check(self, request: Request) -> None:
        super()._check(request)
        likelihood = request.measurement.likelihood(request.y, self.prior.value_range)
        check_operator(self.name, self.needs, likelihood)
        if self.can_start_late:
            check_warm_start(likelihood, self.config)

    @torch.no_grad()
    def _estimate(self, request: Request) -> Estimate:
        likelihood = request.measurement.likelihood(request.y, self.prior.value_range)
        return Estimate(samples=self.draw(request, likelihood, self._walker(likelihood, request.num_samples)))

    def _generator(self, seed: int, key: Key, number: int) -> torch.Generator:
        """Of one sample of one image."""
        return generator_for(seed, self.name, key, number)

    @torch.no_grad()
    def draw(self, request: Request, likelihood: Likelihood, walk: Walk) -> Tensor:
        """Draw all samples of a request, chunk by chunk.

        Args:
            request: the data, the number of samples and the seed.
            likelihood: of the images, in the prior's range, not yet repeated.
            walk: turns a chunk into clean images in the prior's range.

        Returns:
            ``(B, num_samples, *image_shape)`` in physical units.
        """
        y, count = request.y, request.num_samples
        names = [(key, k) for key in request.image_ids for k in range(count)]
        shape = self.image_shape(request)
        drawn = []
        with self._bar(request, self._ticks() * len(names)) as tick:
            quick = warm_start(likelihood, self.config) if self.can_start_late else None
            noisiest = torch.tensor(self.config.times(self.prior.schedule)[0] if quick is not None else 0)
            repeated = likelihood.repeat(count)
            at_once = 1 if likelihood.operator.on_volumes else self.config.batch_size  # a volume is a batch of slices
            for first in range(0, len(names), at_once):
                part = slice(first, first + at_once)
                generators = [self._generator(request.seed, key, k) for key, k in names[part]]
                start = normal_like(torch.empty((len(generators), *shape), dtype=y.dtype, device=y.device), generators)
                if quick is not None:
                    start = self.prior.schedule.add_noise(quick.repeat_interleave(count, 0)[part], start, noisiest)
                drawn.append(
                    walk(
                        Chunk(
                            likelihood=repeated[part],
                            part=part,
                            start=start,
                            generators=generators,
                            tick=partial(_tick, tick, len(generators)),
                        )
                    )
                )
        samples = repeated.to_physical(torch.cat(drawn))
        return samples.reshape(len(y), count, *samples.shape[1:])


def _tick(tick: Ticker, count: int, _step: int) -> None:
    tick(count)


def check_operator(name: str, need: Need, likelihood: Likelihood) -> None:
    """Refuse an operator that a method cannot use, before any work.

    Raises:
        UnsupportedError: the operator, or the expected data as a function of the image, is not linear, or the
            operator has no cheap singular value decomposition or no projection.
    """
    if need == "any":
        return
    kind = type(likelihood.operator).__name__
    if need == "projection":
        if not isinstance(likelihood.operator, Projecting):
            raise UnsupportedError(
                f"{name} needs an operator that knows the nearest image with its data, such as Motif, and {kind} does "
                "not: use dps, daps or reddiff"
            )
        return
    if not isinstance(likelihood.operator, LinearOperator):
        raise UnsupportedError(f"{name} needs a linear operator, {kind} is not: use dps, daps or reddiff")
    if not likelihood.measurement.post_log(likelihood.y):
        raise UnsupportedError(
            f"{name} needs data whose mean is linear in the image, and {type(likelihood.noise).__name__} before the "
            "logarithm is not: take post-log data, or use dps, daps or reddiff"
        )
    if need == "svd" and not isinstance(likelihood.operator, Decomposable):
        raise UnsupportedError(
            f"{name} needs the singular value decomposition of the operator, and {kind} has no cheap one: use dds, "
            "ddnm, diffpir or pigdm, which solve by conjugate gradients (they are meant for CT)"
        )
    if need == "svd" and isinstance(likelihood.operator, Decomposable):
        try:
            likelihood.operator.svd()
        except ValueError as error:
            raise UnsupportedError(f"{name} needs the singular value decomposition of the operator: {error}") from None
