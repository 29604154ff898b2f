"""Interpolation, shapes and what is known of a likelihood already, against SciPy and values written down."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy import ndimage
from tiny import tiny_prior, tiny_scan

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.measurement.measurement import Measurement
from deft_ct.measurement.scales import AffineMap, PerImageMap, PriorRange
from deft_ct.operators import GaussianNoise, Identity, Inpainting, NoNoise, Operator, PoissonNoise

SHAPE = (1, 3, 4)


class FineIdentity(Identity):
    """An operator with a finer twin that keeps what it is given."""

    def refined(self, factor: int) -> Operator:
        height, width = self.domain_shape[-2:]
        return FineIdentity((1, factor * height, factor * width))


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("factor", [2, 3])
def test_the_finer_image_is_bilinear_between_the_centres_of_the_pixels(factor: int) -> None:
    x = uniform(2, *SHAPE)
    fine = Measurement(FineIdentity(SHAPE)).simulate(x, refine=factor)
    # Fine pixel i has its centre at (i + 1/2) / factor - 1/2, in coarse pixels; the border is repeated.
    rows, columns = ((np.arange(factor * n) + 0.5) / factor - 0.5 for n in SHAPE[1:])
    places = np.stack(np.meshgrid(rows, columns, indexing="ij"))
    expected = [[ndimage.map_coordinates(image[0], places, order=1, mode="nearest")] for image in x.numpy()]
    np.testing.assert_allclose(fine, expected, rtol=1e-12)


@pytest.mark.parametrize("factor", [0, -1])
def test_a_factor_below_one_is_refused(factor: int) -> None:
    with pytest.raises(ValueError, match=f"refine must be at least 1, got {factor}"):
        Measurement(FineIdentity(SHAPE)).simulate(uniform(1, *SHAPE), refine=factor)


def test_a_finer_grid_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = FineIdentity.refined
    monkeypatch.setattr(FineIdentity, "refined", lambda self, factor: calls.append(factor) or real(self, factor))
    measurement = Measurement(FineIdentity(SHAPE))
    for factor in (1, 2, 2, 3, 2):
        measurement.simulate(uniform(1, *SHAPE), refine=factor)
    assert calls == [2, 3]


@pytest.mark.parametrize("shape", [(2, 1, 12, 48), (2, 3, 12, 48)])
def test_data_of_a_scan_have_a_batch_and_channels(shape: tuple[int, ...]) -> None:
    assert tiny_scan().check(torch.zeros(shape)).shape == shape


@pytest.mark.parametrize("shape", [(12, 48), (48,), (1, 1, 1, 12, 48), (1, 1, 12, 47)])
def test_data_with_more_or_fewer_axes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"shape \(B, C, 12, 48\)"):
        tiny_scan().check(torch.zeros(shape))


class Squares(Operator):
    """Data of any number of axes."""

    def _forward_kernel(self, x: torch.Tensor) -> torch.Tensor:
        return x.square()


@pytest.mark.parametrize("shape", [(5,), (4, 5), (3, 4, 5)])
def test_data_of_an_operator_of_any_rank(shape: tuple[int, ...]) -> None:
    """A batch axis in front, or a batch and a channel axis."""
    measurement = Measurement(Squares(shape, shape))
    for lead in ((2,), (2, 1)):
        y = torch.zeros(*lead, *shape)
        assert measurement.check(y).shape == y.shape
    with pytest.raises(ValueError, match="the data must have shape"):
        measurement.check(torch.zeros(2, 1, 1, 1, *shape))


def test_a_known_pseudo_inverse_goes_with_its_images(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    mask = torch.tensor([[1.0, 0.0, 1.0, 1.0]]).expand(3, 4)
    operator = Inpainting(SHAPE, mask)
    real = operator.pseudo_inverse
    monkeypatch.setattr(operator, "pseudo_inverse", lambda y: calls.append(len(y)) or real(y))
    y = uniform(3, *SHAPE)
    likelihood = Measurement(operator, GaussianNoise(0.1)).likelihood(y)
    whole = likelihood.pseudo_inverse()
    np.testing.assert_allclose(whole, mask.numpy() * y.numpy(), rtol=1e-12)
    assert torch.equal(likelihood[1:].pseudo_inverse(), whole[1:])
    assert torch.equal(likelihood.repeat(2).pseudo_inverse(), whole[[0, 0, 1, 1, 2, 2]])
    assert torch.equal(likelihood.select_images(lambda v: v[[2, 0]]).pseudo_inverse(), whole[[2, 0]])
    assert calls == [3]
    assert torch.equal(Measurement(operator).likelihood(y)[:2].pseudo_inverse(), whole[:2])  # not known: computed
    assert calls == [3, 2]


def test_the_side_without_a_scale_is_named() -> None:
    scan, y = tiny_scan(), torch.zeros(1, 1, 12, 48)
    with pytest.raises(ValueError, match=r"the measurement has a scale .* and the prior has none"):
        scan.likelihood(y, None)
    with pytest.raises(ValueError, match=r"the prior has a scale .* and the measurement has none"):
        Measurement(scan.operator, GaussianNoise(0.1)).likelihood(y, tiny_prior().value_range)


def test_data_are_post_log_unless_their_mean_is_a_transmittance() -> None:
    y = uniform(2, *SHAPE)
    for noise in (NoNoise(), GaussianNoise(0.1), PoissonNoise(1e4)):
        assert Measurement(Identity(SHAPE), noise).post_log(y)
    assert not Measurement(Identity(SHAPE), PoissonNoise(1e4, post_log=False)).post_log(y)


@pytest.mark.parametrize("value", [AffineMap(1.0, 0.0), PriorRange(), HounsfieldScale()])
def test_maps_cannot_change_under_those_who_hold_them(value: object) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, dataclasses.fields(value)[0].name, 3.0)  # type: ignore[arg-type]


def test_a_map_of_each_image_and_its_inverse() -> None:
    scale = torch.tensor([2.0, -0.5], dtype=torch.float64).reshape(2, 1, 1, 1)
    offset = torch.tensor([0.3, 1.0], dtype=torch.float64).reshape(2, 1, 1, 1)
    affine, x = PerImageMap(scale, offset), uniform(2, *SHAPE)
    np.testing.assert_allclose(affine(x), np.stack([2 * x[0] + 0.3, -0.5 * x[1] + 1]), rtol=1e-12)
    np.testing.assert_allclose(affine.inverse(x), np.stack([(x[0] - 0.3) / 2, (x[1] - 1) / -0.5]), rtol=1e-12)


def test_only_noise_free_data_have_no_noise_weights() -> None:
    y = uniform(2, *SHAPE)
    assert Measurement(Identity(SHAPE)).likelihood(y).noise_weights is None
    weights = Measurement(Identity(SHAPE), PoissonNoise(1e4)).likelihood(y).noise_weights
    assert weights is not None
    np.testing.assert_allclose(weights, 1e4 * np.exp(-y.numpy()), rtol=1e-12)
