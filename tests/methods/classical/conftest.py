from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from deft_ct.operators.ct import ParallelGeometry, RayTransform
from deft_ct.operators.linear import LinearOperator


class Dense(LinearOperator):
    """An explicit matrix, so that a reference can be computed without any code of the package."""

    def __init__(self, matrix: Tensor, domain_shape: tuple[int, ...], *, matched: bool = True) -> None:
        super().__init__(domain_shape, (len(matrix),))
        self.matched = matched
        self.register_buffer("matrix", matrix)

    def _forward_kernel(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.matrix.T

    def _adjoint_kernel(self, y: Tensor) -> Tensor:
        return (y @ self.matrix).reshape(len(y), *self.domain_shape)


class Case:
    """A small scan of a disc with inserts: operator, its matrix, truth, data, weights."""

    def __init__(self, size: int = 20, views: int = 14, dtype: torch.dtype = torch.float64) -> None:
        geometry = ParallelGeometry(
            image_shape=(size, size), pixel_mm=1.0, views=views, detectors=int(1.5 * size), detector_mm=1.0
        )
        self.operator = RayTransform(geometry)
        axis = np.arange(size) - (size - 1) / 2
        radius = np.hypot(axis[:, None], axis[None, :])
        inserts = 0.5 * (np.hypot(axis[:, None] - 3, axis[None, :] + 4) < 3)
        image = np.where(radius < 0.42 * size, 0.2 + 0.1 * inserts, 0.0)
        generator = torch.Generator().manual_seed(3)
        self.truth = torch.stack([torch.from_numpy(image), torch.from_numpy(image).flip(0) * 0.7])[:, None].to(dtype)
        clean = self.operator(self.truth)
        self.weights = 1e3 * torch.exp(-clean)
        self.y = clean + torch.randn(clean.shape, generator=generator, dtype=dtype) * self.weights.rsqrt()

    def matrix(self) -> np.ndarray:
        size = self.operator.domain_shape[0]
        basis = torch.eye(size * size, dtype=self.y.dtype).reshape(-1, size, size)
        return self.operator(basis).flatten(1).T.numpy()


@pytest.fixture(scope="session")
def case() -> Case:
    return Case()


@pytest.fixture(scope="session")
def case32() -> Case:
    return Case(size=32, views=12, dtype=torch.float32)


@pytest.fixture(scope="session")
def dense() -> type[Dense]:
    return Dense
