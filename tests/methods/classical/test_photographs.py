"""Classical methods on images with channels in [-1, 1]: units, channels and noise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor

import deft_ct
from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.classical import StoppingRule, sirt, total_variation, tv_objective
from deft_ct.operators import (
    Blur,
    Colorization,
    CompressedSensing,
    GaussianBlur,
    GaussianNoise,
    Identity,
    Inpainting,
    LinearOperator,
    SuperResolution,
)
from deft_ct.operators.image.blur_kernels import gaussian_taps

SHAPE = (3, 16, 16)


def smooth(count: int = 2, shape: tuple[int, int, int] = SHAPE) -> Tensor:
    """Colours of three scales and one edge, in [-1, 1]."""
    generator = torch.Generator().manual_seed(5)
    images = torch.zeros(count, *shape)
    for side, spread in ((4, 0.4), (8, 0.2), (16, 0.1)):
        coarse = spread * (2 * torch.rand(count, shape[0], side, side, generator=generator) - 1)
        images += torch.nn.functional.interpolate(coarse, size=shape[1:], mode="bilinear")
    images[..., shape[2] // 2 :] += 0.3
    return images


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def random_mask(*batch: int) -> Tensor:
    return (torch.rand(*batch, 1, *SHAPE[1:], generator=seeded()) > 0.6).float()


def circular_blur() -> LinearOperator:
    taps = gaussian_taps(9, 1.5)
    return Blur(SHAPE, taps[:, None] * taps, boundary="circular")


OPERATORS: dict[str, Callable[[], LinearOperator]] = {
    "denoise": lambda: Identity(SHAPE),
    "inpaint": lambda: Inpainting(SHAPE, random_mask()),
    "sr4 average": lambda: SuperResolution(SHAPE, 4),
    "sr4 bicubic": lambda: SuperResolution(SHAPE, 4, "bicubic"),
    "blur": lambda: GaussianBlur(SHAPE, 9, 1.5),
    "circular blur": circular_blur,
    "colour": lambda: Colorization(SHAPE, "mean"),
    "compressed": lambda: CompressedSensing(SHAPE, 0.25, seeded()),
}


def error_db(name: str, measurement: Measurement, y: Tensor, truth: Tensor) -> float:
    found = deft_ct.load_reconstructor(name).reconstruct(y, measurement).mean
    return float(20 * torch.log10(2 / (found - truth).square().mean().sqrt()))


@pytest.mark.parametrize("name", OPERATORS)
def test_defaults_are_in_the_unit_of_the_images(name: str) -> None:
    """All come up to CGLS: the strength of attenuation, and its clamping at zero, cost 5 dB and more."""
    measurement, truth = Measurement(OPERATORS[name](), GaussianNoise(0.05)), smooth()
    y = measurement.simulate(truth, seed=1)
    found = {method: error_db(method, measurement, y, truth) for method in ("cgls", "sirt", "tikhonov", "tv", "fbp")}
    assert found["sirt"] >= found["cgls"] - 0.2
    assert found["tikhonov"] >= found["cgls"] - 1.0
    assert found["tv"] >= found["cgls"] - 1.0
    assert found["fbp"] >= found["cgls"] - 2.0


def test_filtered_back_projection_does_not_multiply_the_noise_of_a_blur() -> None:
    measurement, truth = Measurement(circular_blur(), GaussianNoise(0.05)), smooth()
    y = measurement.simulate(truth, seed=1)
    inverted = measurement.operator.pseudo_inverse(y)
    assert float((inverted - truth).square().mean()) > 1.0
    assert error_db("fbp", measurement, y, truth) > 18.0
    exact = Measurement(Identity(SHAPE))
    assert torch.equal(deft_ct.load_reconstructor("fbp").reconstruct(truth, exact).mean, truth)


def numpy_vectorial(flat: np.ndarray, y: np.ndarray, mask: np.ndarray, weight: float, strength: float, eps: float):  # type: ignore[no-untyped-def]
    """Smoothed objective on (C, H, W), with one length for the differences of all channels, and its gradient."""
    x = flat.reshape(y.shape)
    dy, dx = np.zeros_like(x), np.zeros_like(x)
    dy[:, :-1], dx[:, :, :-1] = np.diff(x, axis=1), np.diff(x, axis=2)
    length = np.sqrt((dy**2 + dx**2).sum(0) + eps**2)
    residual = mask * x - y
    uy, ux = strength * dy / length, strength * dx / length
    out = weight * mask * residual - uy - ux
    out[:, 1:] += uy[:, :-1]
    out[:, :, 1:] += ux[:, :, :-1]
    return 0.5 * weight * (residual**2).sum() + strength * (length - eps).sum(), out.ravel()


def test_vectorial_total_variation_reaches_the_minimum_of_an_independent_solver() -> None:
    shape = (3, 6, 7)
    truth = smooth(1, shape).double()
    mask = (torch.rand(1, 6, 7, generator=seeded()) > 0.3).double()
    operator, weight, strength = Inpainting(shape, mask), 100.0, 5.0
    y = operator(truth + 0.1 * torch.randn(truth.shape, generator=seeded(), dtype=torch.float64))
    weights = torch.full_like(y, weight)
    found, info = total_variation(
        y, operator, weights=weights, strength=strength, stopping=StoppingRule(iterations=4000, tolerance=1e-8),
        nonnegative=False,
    )  # fmt: skip
    assert bool(info.converged.all())
    arguments = (y[0].numpy(), mask.numpy() * np.ones(shape), weight, strength)
    reached = numpy_vectorial(found[0].numpy().ravel(), *arguments, 0.0 + 1e-12)[0]
    best = scipy.optimize.minimize(
        numpy_vectorial, np.zeros(truth.numel()), (*arguments, 1e-5), jac=True, method="L-BFGS-B",
        options={"maxiter": 20000, "maxfun": 40000, "ftol": 1e-15, "gtol": 1e-9},
    ).fun  # fmt: skip
    assert best * (1 - 1e-5) <= reached <= best * (1 + 1e-4)
    ours = float(tv_objective(found, y, operator, weights=weights, strength=strength)[0])
    assert ours == pytest.approx(reached, rel=1e-9)


def test_channels_share_their_edges() -> None:
    """One channel of a colour image is not what it is alone."""
    y = smooth(1) + 0.1 * torch.randn(1, *SHAPE, generator=seeded())
    options = {"weights": torch.full_like(y, 100.0), "strength": 5.0, "nonnegative": False}
    together, _ = total_variation(y, Identity(SHAPE), **options)
    alone, _ = total_variation(y[:, :1], Identity((1, *SHAPE[1:])), **options | {"weights": options["weights"][:, :1]})
    assert float((together[:, :1] - alone).abs().max()) > 0.01


@pytest.mark.parametrize("name", ["tv", "tikhonov", "sirt", "cgls", "fbp"])
def test_a_mask_for_each_image(name: str) -> None:
    measurement, truth = Measurement(Inpainting(SHAPE, random_mask(2)), GaussianNoise(0.05)), smooth()
    y = measurement.simulate(truth)
    method = deft_ct.load_reconstructor(name)
    whole = method.reconstruct(y, measurement).mean
    for i in range(2):
        alone = method.reconstruct(y[i : i + 1], measurement[i : i + 1]).mean
        torch.testing.assert_close(whole[i : i + 1], alone, rtol=0, atol=1e-5)


def test_a_signed_image_keeps_its_sign_and_attenuation_does_not() -> None:
    truth = -smooth().abs()
    photograph, scan = Measurement(Identity(SHAPE)), Measurement(Identity(SHAPE), units=HounsfieldScale())
    for name in ("sirt", "tv"):
        method = deft_ct.load_reconstructor(name)
        assert float(method.reconstruct(truth, photograph).mean.min()) < -0.5
        with pytest.warns(UserWarning):
            assert float(method.reconstruct(truth, scan).mean.min()) >= 0


def test_landweber_where_entries_are_negative() -> None:
    """With row sums the data of compressed sensing, whose rows sum to zero, would be thrown away."""
    operator = CompressedSensing(SHAPE, 0.5, seeded())
    truth = smooth()
    found, _ = sirt(operator(truth), operator, stopping=StoppingRule(iterations=50), nonnegative=False)
    torch.testing.assert_close(found, operator.pseudo_inverse(operator(truth)), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("name", "strength"), [("tv", 250.0), ("tikhonov", 1e5)])
def test_defaults_for_attenuation_stay(name: str, strength: float) -> None:
    """250 per 1/mm and 1e5 per (1/mm)^2, whatever the scale of the Hounsfield numbers."""
    scan = Measurement(Identity((8, 8)), GaussianNoise(0.002), units=HounsfieldScale(mu_water=0.018))
    y = 0.01 + 0.002 * torch.randn(1, 1, 8, 8, generator=seeded())
    default, given = (
        deft_ct.load_reconstructor(name, **options).reconstruct(y, scan).mean
        for options in ({}, {"strength": strength})
    )
    assert torch.equal(default, given)
