"""A small head, trained by denoising score matching, against the exact h-transform of a Gaussian."""

import pytest
import torch
from gaussian import MatrixOperator, gaussian_prior, smooth_gaussian

from deft_ct.diffusion.train import sample_times
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.deft import Condition, HTransform, HTransformConfig
from deft_ct.methods.deft.train import Pairs, denoising_loss
from deft_ct.networks import UNetConfig
from deft_ct.operators.noise import GaussianNoise

SIDE, ROWS, SIGMA = 4, 6, 0.3


def _relative_error(head, prior, measurement, gaussian, matrix):
    """RMS of (eps_h - exact eps_h) over RMS of the exact one, over fresh pairs and noise levels."""
    generator = torch.Generator().manual_seed(99)
    wrong = size = 0.0
    for t in (50, 150, 300, 500, 700):
        x0 = gaussian.draw(64, seed=t).reshape(-1, 1, SIDE, SIDE).float()
        y = measurement.simulate(x0, seed=t)
        noise = torch.randn(x0.shape, generator=generator)
        times = torch.full((64,), t)
        x_t = prior.schedule.add_noise(x0, noise, times)
        abar = prior.schedule.alpha_bar(times)
        flat = x_t.flatten(1).double()
        posteriors = [gaussian.posterior(matrix, SIGMA, data.flatten().double()) for data in y]
        given_y = torch.cat([p.eps(flat[i : i + 1], abar[:1]) for i, p in enumerate(posteriors)])
        exact = given_y - gaussian.eps(flat, abar)
        with torch.no_grad():
            x0h, eps = prior.predict(x_t, times)
            guidance = head.guidance_at(measurement.likelihood(y), x0h, times)
            _, eps_y = head(x_t, times, x0h, eps, guidance, Condition())
        wrong += float(((eps_y - eps).flatten(1) - exact).square().sum())
        size += float(exact.square().sum())
    return (wrong / size) ** 0.5


@pytest.mark.slow
def test_a_trained_head_recovers_the_exact_h():
    gaussian = smooth_gaussian(SIDE)
    matrix = torch.randn(ROWS, SIDE**2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) / 4
    prior = gaussian_prior(gaussian, SIDE)
    measurement = Measurement(MatrixOperator(matrix, SIDE), GaussianNoise(SIGMA))
    torch.manual_seed(0)
    config = HTransformConfig(
        reference="none", guidance="score",
        network=UNetConfig(patch=1, channels=(64,), attention=(True,), norm_groups=1, head_channels=16),
    )  # fmt: skip
    head = HTransform(config, prior.schedule)
    before = _relative_error(head, prior, measurement, gaussian, matrix)
    optimizer = torch.optim.Adam(head.parameters(), lr=2e-3)
    steps = 1200  # relative error 0.142 (0.685 before training)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (1 - step / steps)
        x0 = gaussian.draw(128, seed=step).reshape(-1, 1, SIDE, SIDE).float()
        generator = torch.Generator().manual_seed(step)
        t = sample_times(128, prior.schedule, generator, 1.0)
        noise = torch.randn(x0.shape, generator=generator)
        likelihood = measurement.likelihood(measurement.simulate(x0, seed=step))
        loss = denoising_loss(head, head, prior, Pairs(x0=x0, likelihood=likelihood), t, noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = _relative_error(head.eval(), prior, measurement, gaussian, matrix)
    assert before > 0.6
    assert after < 0.15
