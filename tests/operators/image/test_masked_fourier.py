"""Single-coil MRI against NumPy, its masks, and a mask for each image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deft_ct.operators import MaskedFourier, cartesian_mask
from deft_ct.testing import assert_adjoint


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def centred(image: np.ndarray) -> np.ndarray:
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image, axes=(-2, -1)), norm="ortho"), axes=(-2, -1))


@pytest.mark.parametrize("size", [(8, 10), (7, 9)])
def test_data_are_the_masked_spectrum_of_numpy(size: tuple[int, int]) -> None:
    mask = (torch.rand(size, generator=rng()) > 0.5).float()
    x = torch.randn(2, 2, *size, generator=rng(1), dtype=torch.float64)
    real = MaskedFourier((2, *size), mask)(x).numpy()
    spectrum = mask.numpy() * centred(x.numpy())
    np.testing.assert_allclose(real[:, ::2], spectrum.real, atol=1e-12)
    np.testing.assert_allclose(real[:, 1::2], spectrum.imag, atol=1e-12)
    complex_valued = MaskedFourier((2, *size), mask, complex_valued=True)
    spectrum = mask.numpy() * centred(x[:, 0].numpy() + 1j * x[:, 1].numpy())
    found = complex_valued(x).numpy()
    np.testing.assert_allclose(found[:, 0] + 1j * found[:, 1], spectrum, atol=1e-12)


@pytest.mark.parametrize("complex_valued", [False, True])
@pytest.mark.parametrize("size", [(6, 8), (5, 7)])
def test_decomposition_is_that_of_the_matrix(size: tuple[int, int], complex_valued: bool) -> None:
    shape = (2, *size)
    operator = MaskedFourier(shape, (torch.rand(size, generator=rng()) > 0.6).float(), complex_valued=complex_valued)
    assert_adjoint(operator)
    unit = torch.eye(2 * size[0] * size[1], dtype=torch.float64).reshape(-1, *shape)
    matrix = operator(unit).flatten(1).T
    svd = operator.svd()
    values = torch.linalg.svdvals(matrix)
    ours = svd.singular_values.double().flatten().sort(descending=True).values[: len(values)]
    torch.testing.assert_close(ours, values, rtol=0, atol=1e-6)
    x = torch.randn(3, *shape, generator=rng(2), dtype=torch.float64)
    again = svd.data_from_spectral(svd.singular_values.double() * svd.to_spectral(x))
    torch.testing.assert_close(again, operator(x), rtol=0, atol=1e-6)
    y = torch.randn(3, *operator.range_shape, generator=rng(3), dtype=torch.float64)
    expected = (torch.linalg.pinv(matrix, rtol=1e-3) @ y.flatten(1).T).T.reshape(3, *shape)
    torch.testing.assert_close(operator.pseudo_inverse(y), expected, rtol=0, atol=1e-6)


def test_a_mask_for_each_image() -> None:
    masks = torch.stack([cartesian_mask((8, 12), 3.0, rng(i)) for i in range(2)])
    operator = MaskedFourier((1, 8, 12), masks)
    x = torch.randn(2, 1, 8, 12, generator=rng())
    assert operator.images == 2
    for i in range(2):
        part, alone = slice(i, i + 1), MaskedFourier((1, 8, 12), masks[i])
        assert torch.equal(operator(x)[part], alone(x[part]))
        assert torch.equal(operator[part](x[part]), alone(x[part]))
    y = operator(x)
    singly = torch.cat([MaskedFourier((1, 8, 12), masks[i]).pseudo_inverse(y[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(operator.pseudo_inverse(y), singly)
    with pytest.raises(ValueError, match="2 masks need as many images"):
        operator(x[:1])


def test_cartesian_masks_have_the_centre_and_the_count() -> None:
    mask = cartesian_mask((5, 32), 4.0, rng(), centre=0.125)
    assert mask.shape == (5, 32) and torch.equal(mask, mask[:1].expand(5, -1))
    assert int(mask[0].sum()) == 8 and bool(mask[0, 14:18].all())
    with pytest.raises(ValueError, match="the centre has 16 columns"):
        cartesian_mask((5, 32), 4.0, rng(), centre=0.5)
    with pytest.raises(ValueError, match="acceleration >= 1"):
        cartesian_mask((5, 32), 0.5, rng())


def test_bad_masks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"mask must be \(H, W\) = \(4, 4\)"):
        MaskedFourier((1, 4, 4), torch.ones(4, 5))
    with pytest.raises(ValueError, match="only 0"):
        MaskedFourier((1, 4, 4), torch.full((4, 4), 0.5))
    with pytest.raises(ValueError, match="even number of parts"):
        MaskedFourier((1, 4, 4), torch.ones(4, 4), complex_valued=True)


def test_a_mask_for_all_images_needs_no_choice() -> None:
    operator = MaskedFourier((1, 4, 4), torch.ones(4, 4))
    assert operator.select_images(lambda rows: rows[:1]) is operator
