"""RED-diff: regularisation by denoising diffusion (Mardani et al. 2023, arXiv 2305.04391, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from deft_ct.diffusion import Prior
from deft_ct.measurement.data_term import DataTerm, per_sample
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.methods.guided.config import GridConfig, SliceCouplingConfig, check_positive
from deft_ct.methods.guided.sampling import Chunk, PosteriorSampler, Walk
from deft_ct.methods.initial import DataInitial
from deft_ct.operators.linear import LinearOperator
from deft_ct.operators.noise import NoNoise
from deft_ct.runtime.search_space import Choice, Range, SearchSpace


@dataclass(frozen=True, kw_only=True)
class REDDiffConfig(GridConfig, SliceCouplingConfig):
    """How RED-diff optimises.

    Args:
        steps: evaluations of the prior, one at each time from noisy to clean.
        strength: lambda, the weight of the prior, for an operator of norm 1; it is multiplied by
            ``sqrt((1 - abar) / abar)``, the paper's weight by the inverse signal-to-noise ratio.
        learning_rate: of Adam with betas 0.9 and 0.99, in the prior's range.
        weighted: statistical weights instead of white noise.

    Raises:
        ValueError: a value is out of range.
    """

    steps: int = 1000
    strength: float = 0.25
    learning_rate: float = 0.25
    weighted: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(strength=self.strength, learning_rate=self.learning_rate)


class REDDiff(PosteriorSampler):
    """Variational inference with a point mass: it seeks a mode, and its spread is not that of the posterior."""

    name = "reddiff"
    title = "RED-diff"
    config_type = REDDiffConfig
    takes_volumes = True
    search_space: ClassVar[SearchSpace] = {
        "strength": Range(1e-3, 10.0, log=True),
        "learning_rate": Range(3e-3, 1.0, log=True),
        "weighted": Choice((True, False)),
    }

    def _walker(self, likelihood: Likelihood, count: int) -> Walk:
        return lambda chunk: minimise(self.prior, chunk, self.config)


def minimise(prior: Prior, chunk: Chunk, config: REDDiffConfig) -> Tensor:
    """Descend ``|y - A(x)|_W^2 / 2 + lambda_t <eps(x_t, t) - n, x>`` with the bracket held fixed (eq. 9).

    Starts from :func:`first_image`.

    Args:
        prior: not differentiated.
        chunk: the samples.
        config: settings.

    Returns:
        Clean images ``(B, C, H, W)``.
    """
    schedule = prior.schedule
    term = DataTerm(chunk.likelihood, weighted=config.weighted, coupling=config.coupling)
    step_norm = per_sample(term.norm.square(), chunk.start)
    image = first_image(chunk).clone()
    optimiser = torch.optim.Adam([image], lr=config.learning_rate, betas=(0.9, 0.99))
    for done, t in enumerate(config.times(schedule), start=1):
        abar = float(schedule.alpha_bar(t))
        noise = chunk.normal(image)
        _, eps = prior.predict(abar**0.5 * image + (1 - abar) ** 0.5 * noise, t)
        pull = config.strength * ((1 - abar) / abar) ** 0.5 * (eps - noise)
        descent, coupling = term.descent(image), term.coupling_at(image)
        if coupling is not None:
            descent = descent - coupling(image)
        image.grad = pull - descent / step_norm
        optimiser.step()
        chunk.tick(done)
    return image


def first_image(chunk: Chunk) -> Tensor:
    """Where the descent starts, in the prior's range.

    In the paper it is the pseudo-inverse of the data. That of a blur multiplies noise by the inverse of its smallest
    frequency response, and the descent does not come back from there. Noisy images without a unit therefore start from
    the damped one (:class:`~deft_ct.methods.initial.DataInitial`). Where the operator has no pseudo-inverse, or the
    data are counts before the logarithm, it is noise.
    """
    likelihood = chunk.likelihood
    measurement = likelihood.measurement
    if not measurement.post_log(likelihood.y):
        return chunk.start
    noisy = not isinstance(likelihood.noise, NoNoise)
    if noisy and measurement.units is None and isinstance(likelihood.operator, LinearOperator):
        return DataInitial()(likelihood)
    try:
        return likelihood.to_physical.inverse(likelihood.operator.pseudo_inverse(likelihood.y))
    except TypeError:
        return chunk.start
