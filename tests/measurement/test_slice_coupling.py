"""The penalty along z against dense linear algebra."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deft_ct.measurement.data_term import DataTerm
from deft_ct.measurement.measurement import Measurement
from deft_ct.measurement.slice_coupling import SliceCoupling
from deft_ct.operators import GaussianNoise
from deft_ct.operators.ct import ConeGeometry, ParallelGeometry, RayTransform

SHAPE = (4, 3, 3)


def dense_differences() -> np.ndarray:
    step = np.diff(np.eye(SHAPE[0]), axis=0)
    return np.kron(step, np.eye(SHAPE[1] * SHAPE[2]))


def test_it_is_the_majorised_total_variation_along_z():
    x = 20 * torch.randn(2, 1, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    strength, scale = torch.tensor([3.0, 0.5], dtype=torch.float64), 0.4
    coupling, d = SliceCoupling(x, strength, scale), scale * dense_differences()
    v = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = coupling(v)
    for b in range(2):
        weights = float(strength[b]) / np.maximum(np.abs(d @ x[b].numpy().ravel()), 5e-3)
        expected = d.T @ (weights * (d @ v[b].numpy().ravel()))
        np.testing.assert_allclose(found[b].numpy().ravel(), expected, rtol=1e-10, atol=1e-12)
    # At x itself: the gradient of the total variation.
    point = x.clone().requires_grad_()
    (strength * (scale * point.diff(dim=-3)).abs().flatten(1).sum(1)).sum().backward()
    torch.testing.assert_close(coupling(x), point.grad)


def test_its_noise_has_its_covariance():
    x = torch.randn(1, 1, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    coupling = SliceCoupling(x, torch.tensor([2.0], dtype=torch.float64), 1.0)
    units = torch.eye(27, dtype=torch.float64).reshape(27, 1, 1, 3, 3, 3)
    root = torch.stack([coupling.noise(unit).flatten() for unit in units], 1)
    matrix = torch.stack([coupling(e.reshape(1, 1, *SHAPE)).flatten() for e in torch.eye(36, dtype=torch.float64)], 1)
    torch.testing.assert_close(root @ root.T, matrix)


def cone_term(coupling: float) -> tuple[DataTerm, torch.Tensor, np.ndarray]:
    geometry = ConeGeometry.for_image(SHAPE, (2.0, 1.0, 1.0), 5, source_to_center_mm=30, source_to_detector_mm=50)
    operator = RayTransform(geometry, "matrix")
    y = torch.rand(1, 1, *geometry.sinogram_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    basis = torch.eye(36, dtype=torch.float64).reshape(36, *SHAPE)
    matrix = operator(basis).flatten(1).T.numpy()
    return DataTerm(Measurement(operator, GaussianNoise(0.3)).likelihood(y), coupling=coupling), y, matrix


@pytest.mark.parametrize("coupling", [0.0, 4.0])
def test_the_proximal_step_solves_the_coupled_system(coupling):
    term, y, matrix = cone_term(coupling)
    x = torch.randn(1, 1, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    found = term.correction(x, torch.tensor([0.7], dtype=torch.float64), iterations=400)
    flat, d = x.numpy().ravel(), 0.5 * dense_differences()  # slices 2 mm apart, pixels 1 mm
    c = d.T @ np.diag(0.09 * coupling / np.maximum(np.abs(d @ flat), 5e-3)) @ d
    rhs = matrix.T @ (y.numpy().ravel() - matrix @ flat) - c @ flat
    expected = np.linalg.solve(matrix.T @ matrix + 0.7 * np.eye(36) + c, rhs)
    np.testing.assert_allclose(found.numpy().ravel(), expected, rtol=2e-3, atol=2e-4)


def test_images_are_not_coupled():
    operator = RayTransform(ParallelGeometry.for_image((6, 6), 1.0, 4), "matrix")
    y = torch.rand(1, 1, *operator.range_shape)
    term = DataTerm(Measurement(operator, GaussianNoise(0.3)).likelihood(y), coupling=5.0)
    assert term.coupling_at(torch.zeros(1, 1, 6, 6)) is None
