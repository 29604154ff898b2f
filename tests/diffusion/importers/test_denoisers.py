"""Denoisers as priors and priors as denoisers, against the exact denoiser of a Gaussian."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from tiny import tiny_prior
from torch import Tensor, nn

from deft_ct.diffusion import Prior
from deft_ct.diffusion.importers import as_deepinv, as_diffusers, prior_from_deepinv, prior_from_denoiser
from deft_ct.diffusion.importers.exports import noise_times
from deft_ct.diffusion.schedule import Schedule
from deft_ct.networks import UNetConfig

MEAN, DEVIATION = 0.25, 0.5


def _gaussian(x: Tensor, sigma: Tensor) -> Tensor:
    """``E[x_0 | x_0 + sigma n = x]`` of independent pixels with the law ``N(MEAN, DEVIATION^2)``."""
    share = DEVIATION**2 / (DEVIATION**2 + sigma.reshape(-1, 1, 1, 1) ** 2)
    return MEAN + share * (x - MEAN)


def test_a_denoiser_is_tweedies_estimate() -> None:
    prior = prior_from_denoiser(_gaussian, (1, 4, 4), schedule=Schedule(steps=500))
    x, t = torch.randn(3, 1, 4, 4, dtype=torch.float64), torch.tensor([0, 200, 499])
    abar = prior.schedule.alpha_bar(t).reshape(-1, 1, 1, 1)
    # The score of the noised Gaussian, in closed form.
    score = -(x - abar.sqrt() * MEAN) / (abar * DEVIATION**2 + 1 - abar)
    torch.testing.assert_close(prior.eps(x, t), -(1 - abar).sqrt() * score, rtol=1e-4, atol=1e-5)


class _OfDeepinv(nn.Module):
    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The same law for images in [0, 1]."""
        return (_gaussian(2 * x - 1, 2 * sigma) + 1) / 2


def test_a_denoiser_of_deepinv_has_another_range() -> None:
    ours = prior_from_denoiser(_gaussian, (1, 4, 4))
    theirs = prior_from_deepinv(_OfDeepinv(), (1, 4, 4))
    x, t = torch.randn(2, 1, 4, 4), torch.tensor([3, 800])
    torch.testing.assert_close(theirs.eps(x, t), ours.eps(x, t), rtol=1e-4, atol=1e-5)


def test_a_denoiser_that_is_none() -> None:
    with pytest.raises(ValueError, match="of the shape that it is given"):
        prior_from_denoiser(lambda x, _: x[..., :2], (1, 4, 4))
    with pytest.raises(ValueError, match="must return finite images"):
        prior_from_denoiser(lambda x, _: x / 0, (1, 4, 4))


def test_times_of_noise_levels() -> None:
    prior = tiny_prior()
    sigmas = prior.schedule.sigmas
    torch.testing.assert_close(noise_times(prior, sigmas[[0, 17, 999]]), torch.tensor([0.0, 17, 999]).double())
    between = noise_times(prior, (sigmas[4] * sigmas[5]).sqrt()[None])
    assert float(between) == pytest.approx(4.5)
    assert noise_times(prior, torch.tensor([1e-9, 1e9])).tolist() == [0.0, 999.0]


@pytest.fixture
def deepinv(monkeypatch: pytest.MonkeyPatch) -> Any:
    """deepinv where it can be imported, else its class alone: it needs torchvision, which may be missing."""
    try:
        importlib.import_module("deepinv.models")
    except (ImportError, RuntimeError):
        module = ModuleType("deepinv.models")
        module.Denoiser = nn.Module  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "deepinv", ModuleType("deepinv"))
        monkeypatch.setitem(sys.modules, "deepinv.models", module)
    return sys.modules["deepinv.models"]


def test_a_prior_is_a_denoiser_of_deepinv(deepinv: Any) -> None:
    denoiser = as_deepinv(prior_from_denoiser(_gaussian, (1, 4, 4)))
    x, sigma = torch.rand(3, 1, 4, 4), torch.tensor([0.02, 0.3, 5.0])
    torch.testing.assert_close(denoiser(x, sigma), _OfDeepinv()(x, sigma), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(denoiser(x, 0.3)[1], denoiser(x, sigma)[1])


def test_priors_that_deepinv_cannot_take(monkeypatch: pytest.MonkeyPatch) -> None:
    points = Prior(nn.Identity(), Schedule(), image_shape=(5, 3))
    with pytest.raises(ValueError, match="deepinv takes priors of images"):
        as_deepinv(points)
    monkeypatch.setitem(sys.modules, "deepinv", None)
    monkeypatch.setitem(sys.modules, "deepinv.models", None)
    with pytest.raises(ImportError, match=r"pip install 'deft-ct\[deepinv\]'"):
        as_deepinv(tiny_prior())


@pytest.mark.parametrize("patch", [1, 2])
def test_a_prior_is_a_pipeline_of_diffusers(patch: int) -> None:
    pytest.importorskip("diffusers", reason="the extra 'diffusers' is not installed")
    torch.manual_seed(0)
    network = UNetConfig(patch=patch, channels=(32, 32), attention=(False, True), scale_shift=True).build()
    prior = Prior(network, Schedule(steps=100), prediction="v_prediction", image_shape=(1, 16, 16))
    pipeline = as_diffusers(prior)
    x, t = torch.randn(2, 1, 16, 16), torch.tensor([5, 60])
    with torch.no_grad():
        torch.testing.assert_close(pipeline.unet(x, t).sample, network(x, t), rtol=0, atol=1e-5)
        step = pipeline.scheduler.step(pipeline.unet(x[:1], t[1]).sample, 60, x[:1]).pred_original_sample
    torch.testing.assert_close(step, prior.denoise(x[:1], 60), rtol=1e-3, atol=1e-4)
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(num_inference_steps=2, output_type="np", generator=torch.Generator().manual_seed(0)).images
    assert images.shape == (1, 16, 16, 1) and 0 <= images.min() and images.max() <= 1


def test_priors_that_diffusers_cannot_take() -> None:
    pytest.importorskip("diffusers", reason="the extra 'diffusers' is not installed")
    with pytest.raises(ValueError, match="priors of images with a discrete schedule"):
        as_diffusers(Prior(nn.Identity(), Schedule(kind="vp_sde")))
    with pytest.raises(ValueError, match="no network like Identity"):
        as_diffusers(Prior(nn.Identity(), Schedule()))
