"""Every measurement learns its own head; what all methods must do is held in test_methods.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gaussian import MatrixOperator, gaussian_prior, smooth_gaussian
from tiny import tiny_htransform, tiny_prior, tiny_scan, tiny_slices

from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.deft.online import DEFTOnline, DEFTOnlineConfig, ends_free
from deft_ct.methods.registry import load_reconstructor
from deft_ct.operators.noise import GaussianNoise
from deft_ct.runtime.seeds import derive_seed

SMALL: dict[str, Any] = {"steps": 3, "iterations": 2, "paths": 2, "channels": 8, "reference": "fbp", "spread": 0.3}


def test_every_measurement_has_its_own_head_and_the_prior_stays() -> None:
    prior, scan = tiny_prior(), tiny_scan()
    before = prior.content_hash()
    method = DEFTOnline(prior, config=DEFTOnlineConfig(**SMALL))
    y = scan.simulate(tiny_slices(2))
    likelihood = scan.likelihood(y, prior.value_range)
    heads = [method.learn(likelihood[i : i + 1], seed=derive_seed(0, "deft_online head", i)) for i in (0, 1)]
    assert heads[0].content_hash() != heads[1].content_hash()
    again = method.learn(likelihood[:1], seed=derive_seed(0, "deft_online head", 0))
    assert again.content_hash() == heads[0].content_hash()
    assert method.learn(likelihood[:1], seed=1).content_hash() != heads[0].content_hash()
    assert prior.content_hash() == before
    assert all(p.grad is None for p in prior.parameters())
    result = method.reconstruct(y, scan, num_samples=2)
    assert result.samples is not None and result.samples.shape == (2, 2, 1, 32, 32)
    # Two iterations of two paths and two samples, three evaluations each.
    assert result.provenance["network_evaluations_per_image"] == 3 * (2 * 2 + 2)


def test_a_given_head_is_the_start_and_stays_as_it_is() -> None:
    prior, scan = tiny_prior(), tiny_scan()
    head = tiny_htransform(prior, reference="fbp")
    before = head.content_hash()
    y = scan.simulate(tiny_slices(1))
    method = load_reconstructor("deft_online", prior=prior, htransform=head, **SMALL)
    fresh = load_reconstructor("deft_online", prior=prior, **SMALL)
    assert isinstance(method, DEFTOnline)
    learned = method.learn(scan.likelihood(y, prior.value_range), seed=0)
    assert learned.config == head.config
    assert learned.content_hash() != before == head.content_hash()
    assert not torch.allclose(method.reconstruct(y, scan).mean, fresh.reconstruct(y, scan).mean)
    with pytest.raises(ValueError, match="another prior"):
        DEFTOnline(tiny_prior(seed=4), htransform=head)


def test_the_last_evaluation_is_that_of_the_prior() -> None:
    prior = tiny_prior()
    x = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    denoise = ends_free(lambda x_t, t: (x_t + t, x_t), prior, 5)
    assert torch.equal(denoise(x, 7)[0], x + 7)
    assert torch.equal(denoise(x, 5)[0], prior.denoise(x, 5))


def test_learning_draws_the_samples_to_the_posterior() -> None:
    """Gaussian prior, without a reference: the mean comes closer to the exact one than the prior's."""
    gaussian = smooth_gaussian(4)
    matrix = torch.randn(6, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64) / 4
    y = matrix @ gaussian.draw(1, seed=2)[0]
    measurement = Measurement(MatrixOperator(matrix, 4), GaussianNoise(0.3))
    config = DEFTOnlineConfig(
        steps=10, iterations=40, paths=16, learning_rate=1e-2, channels=8, reference="none", guidance="fbp",
        batch_size=100,
    )  # fmt: skip
    method = DEFTOnline(gaussian_prior(gaussian, 4), config=config)
    result = method.reconstruct(y.reshape(1, 1, 1, 6).float(), measurement, num_samples=100)
    exact = gaussian.posterior(matrix, 0.3, y)
    error = (result.mean.flatten().double() - exact.mean).norm() / exact.cov.trace().sqrt()
    without = (gaussian.mean - exact.mean).norm() / exact.cov.trace().sqrt()
    assert error < 0.6 * without


@pytest.mark.parametrize(
    "bad", [{"iterations": 0}, {"paths": 1}, {"learning_rate": 0.0}, {"objective": "magic"}, {"reference": "magic"}]
)
def test_bad_settings_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        DEFTOnlineConfig(**bad)
