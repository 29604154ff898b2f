"""Denoising: the h-transform in closed form, held to the exact posterior of a Gaussian prior."""

from __future__ import annotations

import pytest
import torch
from gaussian import gaussian_prior, smooth_gaussian

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.diffusion.schedule import Schedule
from deft_ct.measurement.measurement import Measurement
from deft_ct.measurement.scales import PriorRange
from deft_ct.methods.deft import HTransform, HTransformConfig
from deft_ct.methods.deft.noisy_image import is_noisy_image
from deft_ct.methods.deft.reconstructor import DEFT, DEFTConfig
from deft_ct.networks import UNetConfig
from deft_ct.operators import HDR, GaussianBlur, GaussianNoise, Identity, NoNoise, PhotonNoise, UnknownGaussianNoise
from deft_ct.reconstructor import UnsupportedError

SIDE, SIGMA = 4, 0.3
SHAPE = (1, SIDE, SIDE)
GAUSSIAN = smooth_gaussian(SIDE)
TRUTH = GAUSSIAN.draw(3, seed=1).reshape(3, *SHAPE)
DENOISING = Measurement(Identity(SHAPE), GaussianNoise(SIGMA))
Y = DENOISING.simulate(TRUTH, seed=2)


def untrained(kind: str = "linear", **settings: object) -> DEFT:
    """DEFT with an h-transform that knows nothing."""
    schedule = Schedule(kind=kind)  # type: ignore[arg-type]
    network = UNetConfig(patch=1, channels=(32,), attention=(False,))
    htransform = HTransform(HTransformConfig(reference="none", guidance="score", network=network), schedule)
    return DEFT(gaussian_prior(GAUSSIAN, SIDE, schedule), htransform, DEFTConfig(**settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["linear", "vp_sde"])
def test_the_mean_is_that_of_the_posterior_with_one_evaluation(kind: str) -> None:
    found = untrained(kind).reconstruct(Y, DENOISING)
    for image, y in zip(found.mean, Y, strict=True):
        exact = GAUSSIAN.posterior(torch.eye(SIDE**2).double(), SIGMA, y.flatten().double()).mean
        torch.testing.assert_close(image.flatten().double(), exact, rtol=0, atol=2e-3)
    assert found.provenance["htransform"] == "closed form"
    assert found.provenance["network_evaluations_per_image"] == 1


def test_samples_have_the_mean_and_the_covariance_of_the_posterior() -> None:
    count = 1000
    solver = untrained(estimate="samples", steps=40, batch_size=count)
    found = solver.reconstruct(Y[:1], DENOISING, num_samples=count)
    exact = GAUSSIAN.posterior(torch.eye(SIDE**2).double(), SIGMA, Y[0].flatten().double())
    assert found.samples is not None
    draws = found.samples[0].flatten(1).double()
    spread = exact.cov.diagonal().sqrt().mean()
    torch.testing.assert_close(draws.mean(0), exact.mean, rtol=0, atol=float(4 * spread / count**0.5 + 0.01))
    torch.testing.assert_close(draws.T.cov(), exact.cov, rtol=0, atol=0.15 * float(exact.cov.diagonal().mean()))


def test_attenuation_with_noise_of_an_estimated_level() -> None:
    """Images in 1/mm, the prior in Hounsfield units; each image has its own level."""
    prior = gaussian_prior(GAUSSIAN, SIDE)
    prior.value_range = PriorRange(-1000.0, 1000.0)
    solver = DEFT(prior, untrained().htransform)
    measurement = Measurement(Identity(SHAPE), UnknownGaussianNoise(1e-3, 8e-3), units=HounsfieldScale(mu_air=0.0))
    water = HounsfieldScale().mu_water
    y = water * (1 + torch.cat([TRUTH[:1].float() + 0.05, Y[1:2].float()]))
    found = (solver.reconstruct(y, measurement).mean / water - 1).double()
    levels = measurement.noise.weights(y).flatten(1)[:, 0].rsqrt() / water
    assert levels[0] != levels[1]
    for image, data, level in zip(found, y.double() / water - 1, levels, strict=True):
        exact = GAUSSIAN.posterior(torch.eye(SIDE**2).double(), float(level), data.flatten()).mean
        torch.testing.assert_close(image.flatten(), exact, rtol=0, atol=3e-3)


def test_a_batch_is_its_images_alone() -> None:
    solver = untrained(estimate="samples", steps=5)
    whole = solver.reconstruct(Y, DENOISING, image_ids=["a", "b", "c"]).mean
    alone = [solver.reconstruct(Y[i : i + 1], DENOISING, image_ids=[name]).mean for i, name in enumerate("abc")]
    torch.testing.assert_close(whole, torch.cat(alone), rtol=0, atol=1e-5)


def test_only_white_noise_on_the_image_itself() -> None:
    assert is_noisy_image(DENOISING)
    assert is_noisy_image(Measurement(Identity(SHAPE), UnknownGaussianNoise(0.1, 0.2)))
    for other in (
        Measurement(Identity(SHAPE), NoNoise()), Measurement(Identity(SHAPE), PhotonNoise(30.0)),
        Measurement(GaussianBlur(SHAPE, 3, 1.0), GaussianNoise(SIGMA)), Measurement(HDR(SHAPE), GaussianNoise(SIGMA)),
    ):  # fmt: skip
        assert not is_noisy_image(other)


@pytest.mark.parametrize("settings", [{"closed_form": False}, {"guidance_strength": 0.5}])
def test_the_trained_one_is_used_where_it_is_asked_for(settings: dict[str, object]) -> None:
    solver = untrained(**settings)
    solver.htransform.card["measurements"] = [{"operator": "HDR", "image_shape": list(SHAPE), "values": {}}]
    with pytest.raises(UnsupportedError, match="cannot use this h-transform"):
        solver.reconstruct(Y, DENOISING)
    known = untrained()
    known.htransform.card = solver.htransform.card
    assert known.reconstruct(Y, DENOISING).provenance["htransform"] == "closed form"
