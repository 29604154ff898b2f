"""Blurs with a kernel for each image, and with valid pixels only, against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import torch

from deft_ct.operators import Blur, GaussianBlur
from deft_ct.operators.image.blur_kernels import gaussian_taps
from deft_ct.testing import assert_adjoint


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_valid_pixels_are_those_of_scipy() -> None:
    x, kernel = rand(1, 2, 9, 11), rand(3, 5, seed=1)
    expected = np.stack([scipy.signal.convolve2d(plane, kernel.numpy(), mode="valid") for plane in x[0].numpy()])
    operator = Blur((2, 9, 11), kernel, boundary="valid")
    assert operator.range_shape == (2, 7, 7)
    np.testing.assert_allclose(operator(x)[0], expected, atol=1e-12)
    taps = gaussian_taps(5, 1.0)
    separable = GaussianBlur((2, 9, 11), 5, 1.0, boundary="valid")
    expected = np.stack([scipy.signal.convolve2d(plane, np.outer(taps, taps), mode="valid") for plane in x[0].numpy()])
    np.testing.assert_allclose(separable(x)[0], expected, atol=1e-7)
    with pytest.raises(ValueError, match="no pixel of 9 x 11 is valid"):
        Blur((2, 9, 11), rand(11, 3), boundary="valid")
    with pytest.raises(ValueError, match="no pixel of an axis of 9 is valid"):
        GaussianBlur((2, 9, 11), 11, 1.0, boundary="valid")


@pytest.mark.parametrize("boundary", ["reflect", "circular", "zero", "valid"])
def test_a_kernel_for_each_image(boundary: str) -> None:
    kernels, x = rand(3, 3, 5), rand(3, 2, 8, 10, seed=1).float()
    operator = Blur((2, 8, 10), kernels, boundary=boundary)  # type: ignore[arg-type]
    singles = [Blur((2, 8, 10), kernel, boundary=boundary) for kernel in kernels]  # type: ignore[arg-type]
    assert operator.images == 3
    y = operator(x)
    v = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
    for i, alone in enumerate(singles):
        part = slice(i, i + 1)
        assert torch.equal(y[part], alone(x[part])) and torch.equal(operator[part](x[part]), alone(x[part]))
        assert torch.equal(operator.adjoint(v)[part], alone.adjoint(v[part]))
        if boundary == "circular":
            torch.testing.assert_close(operator.pseudo_inverse(y)[part], alone.pseudo_inverse(y[part]))
            assert torch.equal(operator.svd().singular_values[i], alone.svd().singular_values)
    assert_adjoint(operator[:1])
    with pytest.raises(ValueError, match="3 kernels need as many images"):
        operator(x[:2])


@pytest.mark.parametrize("shape", [(2, 3), (3, 2), (3,), (1, 1, 3, 3)])
def test_a_kernel_has_a_pixel_in_its_middle(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"kernel must be \(h, w\) or \(B, h, w\) with odd sides"):
        Blur((1, 8, 8), torch.ones(shape))
