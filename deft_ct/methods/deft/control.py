"""Stochastic control: the h-transform learned from measurements alone, without a clean image (DEFT, App. G.3).

The prior's ancestral sampler is a Markov chain ``P`` with Gaussian kernels ``x_s ~ N(m_u(x_t), c^2 I)`` (DDIM with
``eta = 1``, Song et al. 2021, eq. 16). The h-transform moves the means, ``m_h = m_u + c u`` with
``u = (kappa / c) eps_h`` and ``kappa = b - a sqrt(1 - abar_t) / sqrt(abar_t)``; call that chain ``Q_h``. Its ratio to
the prior's chain is exact for steps of any size, and for paths that any other control has drawn:

    ln dQ_h/dP = sum_k  u_k . d_k - |u_k|^2 / 2,        d_k = (x_s - m_u(x_t)) / c.

The posterior of the chain has the density ``p(y | x_0) / Z`` with respect to ``P``, so with the exact ``h`` the cost
``C = ln dQ_h/dP - ln p(y | x_0)`` is ``-ln Z`` on every path. Two losses are zero there and nowhere else:

* **log-variance** or VarGrad, the variance of ``C`` over several paths of the same measurement (Richter et al. 2020,
  arXiv 2010.10436, and Nuesken and Richter 2021, arXiv 2005.05409);
* **trajectory balance** (Malkin et al. 2022, arXiv 2201.13259): the mean of ``(C + ln Z)^2`` with a learned ``ln Z``
  for each measurement.

Exactly zero is reached only where kernels of the prior's own covariance suffice (a log-linear likelihood); for a
quadratic one the rest shrinks with the number of steps. Neither loss differentiates a state, so the gradient is a sum
over steps, and it is accumulated step by step: no more than one step's activations are held.

The chain ends at the least noisy time of the grid; ``x_0`` is the prior's estimate there, without control.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from deft_ct.diffusion import Prior
from deft_ct.diffusion.samplers import ddim_coefficients
from deft_ct.diffusion.schedule import Schedule, time_grid
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.methods.deft.guidance import Guidance
from deft_ct.methods.deft.htransform import Condition
from deft_ct.runtime.fields import check_fields

ControlObjective = Literal["log-variance", "trajectory-balance"]


@dataclass(frozen=True, kw_only=True)
class ControlConfig:
    """How the stochastic-control objective is evaluated.

    Args:
        objective: ``"log-variance"`` or ``"trajectory-balance"``.
        steps: evaluations of the prior on a path.
        paths: paths of each measurement, at least 2; more give a less noisy gradient.

    Raises:
        ValueError: a value is out of range.
    """

    objective: ControlObjective = "log-variance"
    steps: int = 25
    paths: int = 8

    def __post_init__(self) -> None:
        check_fields(self)
        if self.steps < 2 or self.paths < 2:
            raise ValueError(f"steps and paths must be at least 2, got {self.steps} and {self.paths}")


def control_times(schedule: Schedule, count: int) -> list[int]:
    """The grid of the chain: quadratic, so that its last steps, whose kernels are narrow, are small."""
    return time_grid(schedule, count, spacing="quadratic")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a set of paths; all images are ``(B, *image_shape)``, without a graph.

    Attributes:
        t: time ``(B,)`` that the step starts from.
        gain: ``kappa / c``: the control ``u`` is this times ``eps_h``.
        x_t: state.
        x0: Tweedie estimate of the prior.
        eps: noise estimate of the prior.
        guidance: feature of ``x0``.
        increment: ``d``, the step in units of the kernel's standard deviation, seen from the prior.
    """

    t: Tensor
    gain: float
    x_t: Tensor
    x0: Tensor
    eps: Tensor
    guidance: Tensor
    increment: Tensor

    def control(self, network: nn.Module, condition: Condition) -> Tensor:
        """``u`` of an h-transform at this step."""
        _, eps_y = network(self.x_t, self.t, self.x0, self.eps, self.guidance, condition)
        return self.gain * (eps_y - self.eps)

    def log_ratio(self, network: nn.Module, condition: Condition) -> Tensor:
        """``u . d - |u|^2 / 2``: the step's part of ``ln dQ_h/dP``, ``(B,)`` float64."""
        return _log_ratio(self.control(network, condition), self.increment)


@dataclass(frozen=True, kw_only=True)
class Paths:
    """Paths of the controlled chain.

    Attributes:
        steps: all but the last evaluation of the prior.
        x0: clean images at the ends, ``(B, *image_shape)``.
        reward: ``ln p(y | x0)``, ``(B,)`` float64.
        log_ratio: ``ln dQ/dP`` of the h-transform that has drawn them, ``(B,)`` float64.
        condition: what the h-transform was conditioned on.
    """

    steps: list[Step]
    x0: Tensor
    reward: Tensor
    log_ratio: Tensor
    condition: Condition


@torch.no_grad()
def draw_paths(
    network: nn.Module,
    prior: Prior,
    likelihood: Likelihood,
    condition: Condition,
    times: Sequence[int],
    *,
    guidance: Guidance,
    normal: Callable[[Tensor], Tensor],
) -> Paths:
    """Sample the chain under the control of an h-transform, without a graph.

    Args:
        network: the h-transform that steers: the one in training, or another one (an average of it).
        prior: frozen.
        likelihood: one row of data for each path.
        condition: one row for each path.
        times: strictly decreasing; the chain ends at the last one.
        guidance: the feature that the network sees.
        normal: standard normal numbers like its argument.

    Returns:
        The paths with all that a loss needs.
    """
    y = likelihood.y
    shape = (len(y), *prior.shape_of(likelihood.operator.domain_shape))
    x = normal(torch.empty(shape, dtype=y.dtype, device=y.device))
    total = torch.zeros(len(y), dtype=torch.float64, device=y.device)
    steps = []
    for t, s in pairwise(times):
        if s >= t:
            raise ValueError(f"times must be strictly decreasing, got {list(times)}")
        a, b, c = ddim_coefficients(prior.schedule, t, s, 1.0)
        abar = float(prior.schedule.alpha_bar(t))
        x0, eps = prior.predict(x, t)
        noise = normal(x)
        step = Step(
            t=torch.full((len(x),), float(t), device=x.device),
            gain=(b - a * ((1 - abar) / abar) ** 0.5) / c,
            x_t=x, x0=x0, eps=eps, increment=noise,
            guidance=guidance.of_estimate(likelihood, x0, x0.new_full((len(x0),), ((1 - abar) / abar) ** 0.5)),
        )  # fmt: skip
        control = step.control(network, condition)
        step.increment.add_(control)
        total += _log_ratio(control, step.increment)
        steps.append(step)
        x = a * x0 + b * eps + c * step.increment
    x0 = prior.denoise(x, times[-1])
    return Paths(steps=steps, x0=x0, reward=likelihood.log_prob(x0).double(), log_ratio=total, condition=condition)


def path_costs(network: nn.Module, paths: Paths, *, on_policy: bool = True) -> Tensor:
    """``C = ln dQ_h/dP - ln p(y | x_0)`` of each path, differentiable by the parameters of the h-transform.

    The backward pass evaluates the h-transform once more at each step and frees the step's graph before the next one.
    The memory for activations therefore does not grow with the number of steps. The states, five images a step, are
    kept. The prior is not evaluated again.

    Args:
        network: the h-transform in training; everything that requires a gradient must be one of its parameters.
        paths: from :func:`draw_paths`.
        on_policy: whether ``network``, with its current weights, has drawn the paths.

    Returns:
        ``(B,)`` float64.
    """
    if on_policy:
        log_ratio = paths.log_ratio
    else:
        with torch.no_grad():
            log_ratio = torch.stack([step.log_ratio(network, paths.condition) for step in paths.steps]).sum(0)
    parameters = [p for p in network.parameters() if p.requires_grad]
    total: Tensor = _StepByStep.apply(network, paths, log_ratio, *parameters)  # type: ignore[no-untyped-call]
    return total - paths.reward


def log_variance(costs: Tensor, paths: int) -> Tensor:
    """Variance of the cost over the paths of each measurement, mean over measurements.

    Args:
        costs: ``(B * paths,)``, the paths of a measurement in a row.
        paths: of each measurement.
    """
    return costs.reshape(-1, paths).var(1).mean()


def trajectory_balance(costs: Tensor, log_evidence: Tensor, paths: int) -> Tensor:
    """Mean of ``(C + ln Z)^2``.

    Args:
        costs: ``(B * paths,)``, the paths of a measurement in a row.
        log_evidence: ``ln Z`` of each measurement, ``(B,)``.
        paths: of each measurement.
    """
    return (costs.reshape(-1, paths) + log_evidence[:, None]).square().mean()


def _log_ratio(control: Tensor, increment: Tensor) -> Tensor:
    control, increment = control.double(), increment.double()
    return (control * (increment - 0.5 * control)).flatten(1).sum(1)


class _StepByStep(torch.autograd.Function):
    """The sum of ``Step.log_ratio`` over steps, known already, with its gradient taken one step after the other."""

    @staticmethod
    def forward(ctx: Any, network: nn.Module, paths: Paths, value: Tensor, *parameters: Tensor) -> Tensor:
        ctx.network, ctx.paths, ctx.parameters = network, paths, parameters
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        sums: list[Tensor | None] = [None] * len(ctx.parameters)
        for step in ctx.paths.steps:
            with torch.enable_grad():
                value = (step.log_ratio(ctx.network, ctx.paths.condition) * grad).sum()
            found = torch.autograd.grad(value, ctx.parameters, allow_unused=True)
            sums = [f if s is None else s if f is None else s.add_(f) for s, f in zip(sums, found, strict=True)]
        return None, None, None, *sums
