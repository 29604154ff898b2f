"""Total variation and Tikhonov's penalty in three dimensions."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import torch

import deft_ct
from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.datasets.ellipsoids import EllipsoidPhantom
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.classical import StoppingRule
from deft_ct.methods.classical.cgls import cgls, tikhonov
from deft_ct.methods.classical.tv import total_variation, tv_objective
from deft_ct.methods.initial import reference_reconstruction
from deft_ct.operators import Identity, PoissonNoise
from deft_ct.operators.ct import ConeGeometry, ParallelGeometry, RayTransform, fdk
from deft_ct.reconstructor import UnsupportedError

SHAPE, SPACING = (4, 5, 6), (2.0, 1.0, 1.25)


def differences(x: np.ndarray) -> np.ndarray:
    """``(3, *shape)``, each over its distance in units of the smallest spacing, zero across the border."""
    out = np.zeros((3, *SHAPE))
    for axis in range(3):
        inner = [slice(None)] * 3
        inner[axis] = slice(0, -1)
        out[(axis, *inner)] = np.diff(x, axis=axis) * min(SPACING) / SPACING[axis]
    return out


@pytest.fixture(scope="module")
def cone() -> tuple[RayTransform, np.ndarray, torch.Tensor, torch.Tensor]:
    geometry = ConeGeometry.for_image(SHAPE, SPACING, 4, source_to_center_mm=30, source_to_detector_mm=50)
    operator = RayTransform(geometry, "matrix")
    basis = torch.eye(120, dtype=torch.float64).reshape(120, *SHAPE)
    matrix = operator(basis).flatten(1).T.numpy()
    truth = torch.zeros(SHAPE, dtype=torch.float64)
    truth[1:3, 1:4, 2:5] = 0.2
    clean = operator(truth)
    noise = torch.randn(clean.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = 1e3 * torch.exp(-clean)
    return operator, matrix, clean + noise * weights.rsqrt(), weights


def test_the_objective_takes_three_directions_and_the_spacing(cone):
    operator, matrix, y, weights = cone
    x = torch.rand(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    misfit = matrix @ x.numpy().ravel() - y.numpy().ravel()
    length = np.sqrt((differences(x.numpy()) ** 2).sum(0)).sum()
    expected = 0.5 * np.sum(weights.numpy().ravel() * misfit**2) + 7.0 * length
    assert float(tv_objective(x, y, operator, weights=weights, strength=7.0)) == pytest.approx(expected, rel=1e-12)


def test_the_minimum_is_the_one_that_a_smooth_solver_bounds_from_below(cone):
    operator, matrix, y, weights = cone
    strength, epsilon = 20.0, 1e-6
    flat_y, flat_w = y.numpy().ravel(), weights.numpy().ravel()
    d = np.stack([differences(unit.reshape(SHAPE)).ravel() for unit in np.eye(120)], 1)

    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        residual, steps = matrix @ flat - flat_y, (d @ flat).reshape(3, -1)
        length = np.sqrt((steps**2).sum(0) + epsilon**2)
        gradient = matrix.T @ (flat_w * residual) + strength * (d.T @ (steps / length).ravel())
        return 0.5 * np.sum(flat_w * residual**2) + strength * (length - epsilon).sum(), gradient

    options = {"maxiter": 20000, "maxfun": 40000, "ftol": 1e-15, "gtol": 1e-9, "maxcor": 50}
    start, bounds = np.full(120, 0.1), [(0, None)] * 120
    below = scipy.optimize.minimize(value, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).fun
    x, info = total_variation(
        y, operator, weights=weights, strength=strength, stopping=StoppingRule(iterations=3000, tolerance=1e-7)
    )
    assert bool(info.converged)
    reached = float(tv_objective(x, y, operator, weights=weights, strength=strength))
    assert below * (1 - 1e-6) <= reached <= below * (1 + 1e-4)


def test_tikhonov_takes_three_directions(cone):
    operator, matrix, y, weights = cone
    found, _ = tikhonov(y, operator, weights=weights, strength=50.0, stopping=StoppingRule(tolerance=1e-10))
    d = np.stack([differences(unit.reshape(SHAPE)).ravel() for unit in np.eye(120)], 1)
    w = weights.numpy().ravel()
    expected = np.linalg.solve(matrix.T @ (w[:, None] * matrix) + 50 * d.T @ d, matrix.T @ (w * y.numpy().ravel()))
    np.testing.assert_allclose(found.numpy().ravel(), expected, rtol=1e-5, atol=1e-7)


def test_pixels_that_are_not_square_count_their_distances():
    operator = RayTransform(ParallelGeometry.for_image((4, 5), (2.0, 1.0), 3), "matrix")
    x = torch.rand(4, 5, dtype=torch.float64)
    y = operator(x)
    down, right = torch.zeros(4, 5).double(), torch.zeros(4, 5).double()
    down[:-1], right[:, :-1] = x.diff(dim=0) / 2, x.diff(dim=1)
    expected = 3.0 * torch.hypot(down, right).sum()
    torch.testing.assert_close(tv_objective(x, y, operator, strength=3.0), expected)


@pytest.fixture(scope="module")
def scan() -> tuple[Measurement, torch.Tensor, torch.Tensor]:
    geometry = ConeGeometry.for_image((24, 32, 32), 1.5, 20)
    measurement = Measurement(RayTransform(geometry), PoissonNoise(photons=5e3), units=HounsfieldScale())
    head = EllipsoidPhantom.head(40.0)
    truth = head.volume(geometry.image_shape, geometry.voxel_zyx).float()[None, None]
    clean = head.line_integrals(geometry.rays()).float()[None, None]
    return measurement, truth, measurement.noise.sample(clean, [torch.Generator().manual_seed(0)])


@pytest.mark.filterwarnings("ignore::deft_ct.operators.findings.DataWarning")
def test_total_variation_has_at_most_seven_tenths_of_the_error_of_cgls(scan):
    measurement, truth, y = scan

    def error(x: torch.Tensor) -> float:
        return float((x - truth).norm() / truth.norm())

    best = min(
        error(cgls(y, measurement.operator, stopping=StoppingRule(iterations=k, tolerance=0.0))[0])
        for k in (3, 4, 5, 6, 8, 10, 14)
    )
    tv = deft_ct.load_reconstructor("tv", strength=400.0, iterations=60, tolerance=0.0)
    result = tv.reconstruct(y, measurement)
    assert result.mean.shape == truth.shape and result.mean.dtype == torch.float32
    assert error(result.mean) <= 0.7 * best


@pytest.mark.filterwarnings("ignore::deft_ct.operators.findings.DataWarning")
def test_the_initial_reconstruction_of_a_volume_is_total_variation(scan):
    measurement, truth, y = scan
    likelihood = measurement.likelihood(torch.cat([y, 0.5 * y]), deft_ct.measurement.scales.PriorRange())
    initial = likelihood.to_physical(reference_reconstruction(likelihood, "tv"))
    hint = measurement.operator.regularisation_hint(likelihood.y, likelihood.noise_weights)
    assert hint is not None
    expected, _ = total_variation(
        likelihood.y, measurement.operator, weights=likelihood.weights,
        strength=(5.0 / likelihood.to_physical.scale * hint.strength)[:, None],
        stopping=StoppingRule(iterations=40, tolerance=0.0),
    )  # fmt: skip
    assert initial.shape == (2, *truth.shape[1:])
    torch.testing.assert_close(initial, expected, rtol=1e-4, atol=1e-7)


def test_the_filter_of_fbp_is_that_of_the_cone(scan):
    measurement, _, y = scan
    method = deft_ct.load_reconstructor("fbp", filter="hann", cutoff=0.8)
    found = method.reconstruct(y, measurement).mean
    assert torch.equal(found, fdk(y, measurement.operator.geometry, "hann", 0.8))
    assert not torch.equal(found, fdk(y, measurement.operator.geometry))


def test_channels_are_not_slices():
    measurement = Measurement(Identity((2, 3, 8, 8)))
    with pytest.raises(
        UnsupportedError, match=r"images \(H, W\) or \(C, H, W\), or volumes of known spacing \(Z, H, W\), Identity"
    ):
        deft_ct.load_reconstructor("tv").reconstruct(torch.rand(1, 2, 3, 8, 8), measurement)
