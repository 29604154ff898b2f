"""Parity with deepinv's implementations on the same prior, operator and noise (BSD-3, an optional extra)."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from importlib.metadata import version

import pytest
import torch
from documented_tables import table_after
from gaussian import Gaussian, gaussian_prior, smooth_gaussian
from torch import Tensor

from deft_ct.diffusion import Prior
from deft_ct.diffusion.schedule import time_grid
from deft_ct.measurement.data_term import DataTerm
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.guided.ddrm import DDRM, DDRMConfig
from deft_ct.methods.guided.diffpir import DiffPIR, DiffPIRConfig
from deft_ct.methods.guided.dps import misfit_gradient
from deft_ct.methods.guided.sampling import Chunk
from deft_ct.operators import GaussianNoise, Inpainting

SIDE, SIGMA, STEPS = 4, 0.1, 12


@pytest.fixture
def deepinv() -> Iterator[object]:
    """The library, or a skip where it (or the torchvision that it needs) does not import."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # torchvision built for another torch raises RuntimeError.
        yield pytest.importorskip("deepinv", exc_type=(ImportError, RuntimeError))


def assert_as_documented(name: str, difference: float) -> None:
    """The bound of the page holds with deepinv 0.5.0, for which it is given."""
    if version("deepinv") != "0.5.0":
        return
    ((_, cell),) = [
        row for row in table_after("docs/method.md", "\n## Parity with deepinv\n") if row[0].startswith(name)
    ]
    bound = re.match(r"below (\de-\d+)", cell)
    assert bound is not None, cell
    assert difference < float(bound[1]), f"{name}: {difference}"


class Quiet(Chunk):
    """A chunk whose random numbers are zero: the deterministic part of a walk."""

    def normal(self, like: Tensor) -> Tensor:
        return torch.zeros_like(like)


@pytest.fixture
def problem() -> tuple[Prior, Measurement, Tensor, Tensor]:
    gaussian = smooth_gaussian(SIDE)
    mask = torch.tensor([1.0, 0, 1, 1, 0, 1, 0, 1, 1, 1, 0, 0, 1, 0, 1, 1], dtype=torch.float64).reshape(1, SIDE, SIDE)
    measurement = Measurement(Inpainting((1, SIDE, SIDE), mask), GaussianNoise(SIGMA))
    y = measurement.simulate(gaussian.draw(1, seed=3).reshape(1, 1, SIDE, SIDE)) * mask
    return gaussian_prior(gaussian, SIDE), measurement, mask, y


def physics(deepinv: object, mask: Tensor, sigma: float = SIGMA) -> object:
    noise = deepinv.physics.GaussianNoise(sigma)  # type: ignore[attr-defined]
    return deepinv.physics.Inpainting((1, SIDE, SIDE), mask=mask, noise_model=noise)  # type: ignore[attr-defined]


def ve(prior: Prior, time_of: dict[float, float]):  # type: ignore[no-untyped-def]
    """deepinv's denoiser: an image with white noise of a given level, to the clean one."""

    def denoise(x: Tensor, sigma: float, **_: object) -> Tensor:
        t = time_of[float(sigma)]
        # deepinv's DPS rounds x to float32; without this, all of the denoising would follow.
        return prior.predict(x.double() * float(prior.schedule.alpha_bar(t)) ** 0.5, t)[0]

    return denoise


def test_ddrm_walks_with_deepinv(deepinv, problem, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    prior, measurement, mask, y = problem
    times = time_grid(prior.schedule, STEPS)
    sigmas = [((1 - float(prior.schedule.alpha_bar(t))) / float(prior.schedule.alpha_bar(t))) ** 0.5 for t in times]
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    theirs = deepinv.sampling.DDRM(ve(prior, dict(zip(sigmas, times, strict=True))), sigmas=sigmas, eta=0.85, etab=0.9)(
        y, physics(deepinv, mask)
    )
    method = DDRM(prior, DDRMConfig(steps=STEPS, eta=0.85, eta_b=0.9))
    likelihood = measurement.likelihood(y)
    chunk = Quiet(
        likelihood=likelihood, part=slice(0, 1), start=torch.zeros_like(y), generators=[], tick=lambda _: None
    )
    ours = method._walker(likelihood, 1)(chunk)
    # Before 0.5, deepinv adds 1e-6 to the singular values that it divides by.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)
    assert_as_documented("DDRM", float((ours - theirs).abs().max()))
    assert (ours - y).abs().max() > 0.01


@pytest.mark.parametrize("t", [20, 400, 900])
def test_the_gradient_of_dps_is_deepinvs(deepinv, problem, t) -> None:  # type: ignore[no-untyped-def]
    prior, measurement, mask, y = problem
    abar = float(prior.schedule.alpha_bar(t))
    sigma = ((1 - abar) / abar) ** 0.5
    x_t = torch.randn(1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    fidelity = deepinv.sampling.DPSDataFidelity(denoiser=ve(prior, {sigma: t}), weight=1.0)
    theirs = fidelity.grad(x_t / abar**0.5, y, physics(deepinv, mask), sigma=sigma) / abar**0.5  # by x_t
    _, _, ours = misfit_gradient(prior, DataTerm(measurement.likelihood(y)), x_t, t, "l2")
    cosine = torch.nn.functional.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0)
    assert cosine > 1 - 1e-8
    assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()
    assert_as_documented("gradient of DPS", float((ours - theirs).abs().max() / theirs.abs().max()))


def test_diffpir_walks_with_deepinv(deepinv, problem, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """deepinv works on [0, 1], clamps, takes more steps late, and stops before the last denoising."""
    _, measurement, mask, y = problem
    wide = smooth_gaussian(SIDE)
    prior = gaussian_prior(Gaussian(wide.mean / 4, wide.cov / 16), SIDE)  # nothing to clamp
    y = y / 4 * mask
    noise_levels = ((1 - prior.schedule.alpha_bars) / prior.schedule.alpha_bars).sqrt()

    def denoise(x: Tensor, sigma: Tensor, **_: object) -> Tensor:
        t = int((noise_levels - 2 * float(sigma)).abs().argmin())
        return (prior.predict((2 * x - 1) * float(prior.schedule.alpha_bar(t)) ** 0.5, t)[0] + 1) / 2

    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    model = deepinv.sampling.DiffPIR(
        denoise, deepinv.optim.data_fidelity.L2(), sigma=SIGMA / 2, max_iter=STEPS, zeta=0.3, lambda_=8.0
    )
    theirs = 2 * model((y + mask) / 2, physics(deepinv, mask, SIGMA / 2), x_init=torch.full_like(y, 0.5)) - 1
    times = [prior.schedule.steps - 1 - int(k) for k in model.seq]
    monkeypatch.setattr("deft_ct.methods.guided.diffpir.DiffPIRConfig.times", lambda *_: times)
    # deepinv weighs the prior by lambda sigma^2 / (2 sigma_t^2): its half square of the misfit counts twice.
    method = DiffPIR(prior, DiffPIRConfig(steps=STEPS, strength=4.0, zeta=0.3))
    likelihood = measurement.likelihood(y)
    chunk = Quiet(
        likelihood=likelihood, part=slice(0, 1), start=torch.zeros_like(y), generators=[], tick=lambda _: None
    )
    seen = []
    predict = prior.predict
    monkeypatch.setattr(prior, "predict", lambda x, t: seen.append(x) or predict(x, t))
    method._walker(likelihood, 1)(chunk)
    assert len(seen) == STEPS
    difference = float((seen[-1] - theirs).abs().max())
    assert difference < 2e-5 < 0.05 < float(theirs.abs().max()), difference
    assert_as_documented("DiffPIR", difference)
