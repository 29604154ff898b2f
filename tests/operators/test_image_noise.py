"""Photon-limited images and noise of unknown level, against SciPy and their own definition."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch

import deft_ct
from deft_ct.measurement.measurement import Measurement
from deft_ct.operators import GaussianNoise, Identity, NoiseModel, PhotonNoise, PoissonNoise, UnknownGaussianNoise
from deft_ct.operators.image_noise import noise_level
from deft_ct.operators.noise import standard_normal


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def brightness(*shape: int) -> torch.Tensor:
    return 1.8 * torch.rand(shape, generator=rng(1), dtype=torch.float64) - 0.9


def test_counts_have_the_mean_and_variance_of_a_poisson_law() -> None:
    noise, clean = PhotonNoise(40.0), torch.full((1, 1, 200, 200), -0.25, dtype=torch.float64)
    y = noise.sample(clean, [rng()])
    counts = (y + 1) * 20
    torch.testing.assert_close(counts, counts.round(), rtol=0, atol=1e-9)
    assert float(counts.mean()) == pytest.approx(15, rel=0.01) and float(counts.var()) == pytest.approx(15, rel=0.03)
    torch.testing.assert_close(noise.variance(clean), torch.full_like(clean, 15 / 400))
    assert torch.equal(noise.mean(clean), clean)


def test_likelihood_is_that_of_scipy_and_its_score_is_the_derivative() -> None:
    noise, clean = PhotonNoise(60.0, low=0.0, high=2.0), brightness(2, 1, 3, 4) + 1
    y = noise.sample(clean, [rng(2), rng(3)])
    expected = scipy.stats.poisson.logpmf(np.rint(y.numpy() * 30), clean.numpy() * 30).sum((1, 2, 3))
    np.testing.assert_allclose(noise.log_likelihood(clean, y), expected, rtol=1e-10)
    point = clean.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(noise.log_likelihood(point, y).sum(), point)
    torch.testing.assert_close(noise.score(clean, y), gradient)


def test_noise_of_an_image_does_not_depend_on_the_batch() -> None:
    clean = brightness(3, 3, 4, 4)
    for noise in (PhotonNoise(30.0), UnknownGaussianNoise(0.05, 0.5)):
        whole = noise.sample(clean, [rng(i) for i in range(3)])
        assert torch.equal(whole[1:2], noise.sample(clean[1:2], [rng(1)]))


def test_records_are_read_back() -> None:
    for noise in (PhotonNoise(30.0), UnknownGaussianNoise(0.05, 0.5), GaussianNoise(0.1)):
        assert NoiseModel.from_dict(noise.to_dict()) == noise


@pytest.mark.parametrize("sigma", [0.05, 0.2])
def test_level_is_found_beside_smooth_parts_and_edges(sigma: float) -> None:
    ramp = torch.linspace(-0.8, 0.8, 64).expand(2, 3, 64, 64).clone()
    ramp[..., 20:40, 30:] += 0.7
    y = ramp + sigma * torch.randn(ramp.shape, generator=rng())
    np.testing.assert_allclose(noise_level(y), sigma, rtol=0.05)
    noise = UnknownGaussianNoise(0.01, 1.0)
    torch.testing.assert_close(noise.weights(y)[:, 0, 0, 0], noise_level(y) ** -2)


def test_denoising_of_unknown_level_is_near_that_of_the_known_one() -> None:
    """Tikhonov's strength needs the level; two images with levels that differ by a factor of 4."""
    truth = torch.linspace(-0.8, 0.8, 32).expand(2, 3, 32, 32)
    levels = torch.tensor([0.08, 0.32]).reshape(2, 1, 1, 1)
    y = truth + levels * torch.randn(truth.shape, generator=rng())
    method, operator = deft_ct.load_reconstructor("tikhonov"), Identity((3, 32, 32))
    blind = method.reconstruct(y, Measurement(operator, UnknownGaussianNoise(0.01, 1.0))).mean
    for i, level in enumerate(levels.flatten().tolist()):
        known = method.reconstruct(y[i : i + 1], Measurement(operator, GaussianNoise(level))).mean
        assert float((blind[i] - known[0]).abs().max()) < 0.1 * level


def test_the_noise_of_rays_is_refused_for_images() -> None:
    measurement = Measurement(Identity((3, 8, 8)), PoissonNoise(1e3))
    with pytest.raises(ValueError, match=r"for images in \[-1, 1\] use PhotonNoise"):
        measurement.simulate(brightness(1, 3, 8, 8))
    y = Measurement(Identity((3, 8, 8)), PhotonNoise(100.0)).simulate(brightness(1, 3, 8, 8))
    assert -1 <= float(y.min()) and float(y.max()) < 2


def test_bad_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="peak must be a positive number"):
        PhotonNoise(0.0)
    with pytest.raises(ValueError, match="low < high"):
        PhotonNoise(10.0, low=1.0, high=1.0)
    with pytest.raises(ValueError, match="0 < low <= high"):
        UnknownGaussianNoise(0.5, 0.1)
    with pytest.raises(ValueError, match="images"):
        noise_level(torch.zeros(3, 8))


def test_unknown_levels_are_uniform_and_each_image_has_its_own() -> None:
    noise, clean = UnknownGaussianNoise(0.1, 0.4), brightness(3, 1, 5, 6)
    sources = [rng(i) for i in range(3)]
    y = noise.sample(clean, sources)
    for i in range(3):  # a second program: the level first, then the noise
        source = rng(i)
        level = 0.1 + 0.3 * float(torch.rand((), generator=source, dtype=torch.float64))
        expected = clean[i : i + 1] + level * standard_normal(clean[i : i + 1], [source])
        torch.testing.assert_close(y[i : i + 1], expected)
    torch.testing.assert_close(noise.variance(clean), torch.full_like(clean, (0.01 + 0.04 + 0.16) / 3))
    square = np.random.default_rng(0).uniform(0.1, 0.4, 200_000) ** 2
    assert float(noise.variance(clean)[0, 0, 0, 0]) == pytest.approx(square.mean(), rel=0.01)


def test_likelihood_of_the_estimated_level_is_that_of_scipy() -> None:
    noise, clean = UnknownGaussianNoise(0.1, 0.4), brightness(2, 1, 6, 8)
    y = noise.sample(clean, [rng(2), rng(3)])
    level = noise_level(y).clamp(0.1, 0.4).numpy().reshape(2, 1, 1, 1)
    expected = scipy.stats.norm.logpdf(y.numpy(), clean.numpy(), level)
    np.testing.assert_allclose(noise.log_likelihood(clean, y), expected.sum((1, 2, 3)), rtol=1e-10)
    np.testing.assert_allclose(noise.score(clean, y), (y - clean).numpy() / level**2, rtol=1e-10)
    np.testing.assert_allclose(noise.weights(y), np.broadcast_to(level**-2.0, y.shape), rtol=1e-10)
    low, high = UnknownGaussianNoise(2.0, 3.0), UnknownGaussianNoise(1e-6, 1e-5)
    assert float(low.level(y).max()) == 2.0 and float(high.level(y).min()) == pytest.approx(1e-5)


def test_photons_in_the_dark() -> None:
    """Half a photon keeps weights and score finite; a rate of a thousandth keeps the likelihood so."""
    noise = PhotonNoise(40.0)
    y = torch.tensor([[[[-1.0, -0.5, -1.2]]]], dtype=torch.float64)
    gain, counts = 2 / 40, np.array([0, 10, 0])
    np.testing.assert_allclose(noise.weights(y)[0, 0, 0], 1 / (gain**2 * (counts + 0.5)), rtol=1e-12)
    clean = torch.tensor([[[[-1.0, -1.0, 0.0]]]], dtype=torch.float64)
    rate = np.array([0.5, 0.5, 20])
    np.testing.assert_allclose(noise.score(clean, y)[0, 0, 0], (counts / rate - 1) / gain, rtol=1e-12)
    expected = scipy.stats.poisson.logpmf(counts, [1e-3, 1e-3, 20]).sum()
    assert float(noise.log_likelihood(clean, y)) == pytest.approx(expected, rel=1e-9)
    assert noise.variance(clean)[0, 0, 0].tolist() == pytest.approx([0, 0, gain**2 * 20])
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="clean holds NaN or infinite values"):
            noise.sample(torch.full((1, 1, 2, 2), bad), [rng()])
    for wrong in (float("nan"), float("inf"), -1.0):
        with pytest.raises(ValueError, match="peak must be a positive number"):
            PhotonNoise(wrong)
    for ends in ((float("-inf"), 1.0), (0.0, float("inf")), (1.0, 0.0)):
        with pytest.raises(ValueError, match="expected finite low < high"):
            PhotonNoise(10.0, *ends)
    for ends in ((0.0, 1.0), (0.1, float("inf"))):
        with pytest.raises(ValueError, match="0 < low <= high"):
            UnknownGaussianNoise(*ends)
    assert UnknownGaussianNoise(0.2, 0.2).low == 0.2
    for shape in ((1, 1, 1, 4), (1, 1, 4, 1), (1, 4, 4)):
        with pytest.raises(ValueError, match="of 2 x 2 pixels or more"):
            noise_level(torch.zeros(shape))


@pytest.mark.parametrize("size", [(4, 6), (5, 7)])
def test_level_is_the_median_of_the_finest_details(size: tuple[int, int]) -> None:
    y = brightness(2, 3, *size)
    a = y.numpy()[..., : size[0] // 2 * 2, : size[1] // 2 * 2]
    details = abs(a[..., ::2, ::2] - a[..., ::2, 1::2] - a[..., 1::2, ::2] + a[..., 1::2, 1::2]) / 2
    flat = np.sort(details.reshape(2, -1), 1)
    expected = flat[:, (flat.shape[1] - 1) // 2] / 0.6745  # the lower one of two in the middle
    np.testing.assert_allclose(noise_level(y), expected, rtol=1e-12)
