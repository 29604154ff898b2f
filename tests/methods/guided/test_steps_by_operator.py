"""The step of DPS follows the derivative of the operator, and a step that failed is told by the data."""

from __future__ import annotations

import warnings
from typing import Literal

import pytest
import torch
from gaussian import gaussian_prior, smooth_gaussian
from torch import Tensor, nn

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.diffusion import Prior
from deft_ct.diffusion.schedule import Schedule
from deft_ct.measurement.data_term import DataTerm
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.guided.dps import misfit_gradient, step_of_size
from deft_ct.methods.registry import load_reconstructor
from deft_ct.operators import HDR, GaussianNoise, Identity
from deft_ct.operators.findings import DataWarning

SIDE = 8


def test_hdr_is_explained_at_the_default_and_a_step_that_fails_is_told() -> None:
    gaussian = smooth_gaussian(SIDE)
    prior, measurement = gaussian_prior(gaussian, SIDE), Measurement(HDR((1, SIDE, SIDE)), GaussianNoise(0.05))
    truth = gaussian.draw(2, seed=1).reshape(2, 1, SIDE, SIDE).float()
    y = measurement.simulate(truth)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        good = load_reconstructor("dps", prior=prior, steps=200).reconstruct(y, measurement)
    with pytest.warns(DataWarning, match="not a reconstruction of these data"):
        bad = load_reconstructor("dps", prior=prior, steps=200, zeta=10.0).reconstruct(y, measurement)
    assert float((good.mean - truth).square().mean()) < 0.25 * float((bad.mean - truth).square().mean())
    assert good.provenance["config"]["zeta"] == 0.3 and bad.provenance["config"]["zeta"] == 10.0


def test_the_norm_of_a_nonlinear_operator_scales_the_steps() -> None:
    y = torch.zeros(2, 1, 4, 4)
    for gain in (2.0, 0.5):
        term = DataTerm(Measurement(HDR((1, 4, 4), gain)).likelihood(y))
        torch.testing.assert_close(term.norm, torch.full((2,), gain), rtol=1e-4, atol=0)


def test_defaults_of_images_with_a_scale_stay_those_of_the_papers() -> None:
    prior = gaussian_prior(smooth_gaussian(4), 4)
    photograph, scan = Measurement(Identity((1, 4, 4))), Measurement(Identity((1, 4, 4)), units=HounsfieldScale())
    dps, pigdm = load_reconstructor("dps", prior=prior), load_reconstructor("pigdm", prior=prior)
    assert dps.config_for(scan).zeta == 1.0 and dps.config_for(photograph).zeta == 0.3
    assert pigdm.config_for(scan).data_std == 1.0 and pigdm.config_for(photograph).data_std == 2.0


class _Halved(nn.Module):
    """A network of single pixels."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return 0.5 * x


@pytest.mark.parametrize("norm", ["l2", "l2sq"])
def test_the_step_moves_a_pixel_of_a_larger_image_by_as_much(norm: Literal["l2", "l2sq"]) -> None:
    """An image that is repeated 2 x 3 times is moved like the image itself."""
    prior = Prior(_Halved(), Schedule(), image_shape=(1, 4, 4))
    image, data = torch.rand((2, 2, 1, 4, 4), generator=torch.Generator().manual_seed(0))

    def step(times: tuple[int, int]) -> Tensor:
        x, y = (one.repeat(1, 1, *times) for one in (image, data))
        measurement = Measurement(Identity(tuple(x.shape[1:])), GaussianNoise(0.1))
        term = DataTerm(measurement.likelihood(y))
        _, _, gradient = misfit_gradient(prior, term, x, 500, norm)
        return step_of_size(prior, x, norm) * gradient[..., :4, :4]

    torch.testing.assert_close(step((2, 3)), step((1, 1)), rtol=1e-5, atol=1e-9)
