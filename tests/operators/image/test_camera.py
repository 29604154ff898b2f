"""The shaking camera against SciPy, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch

from deft_ct.operators import NonlinearBlur
from deft_ct.operators.image.blur_kernels import motion_kernel
from deft_ct.operators.image.nonlinear_blur import CameraShake


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def to_light(value: np.ndarray) -> np.ndarray:
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def to_grey(light: np.ndarray) -> np.ndarray:
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)


def photographed(image: np.ndarray, seed: int, size: int, intensity: float, exposure: float) -> np.ndarray:
    """``(C, H, W)`` in [0, 1]: four shakes, one for each corner, row by row."""
    source = rng(seed)
    kernels = [motion_kernel(size, intensity, source).numpy() for _ in range(4)]
    _, height, width = image.shape
    down, right = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)
    light, out = to_light(image.clip(0, 1)), np.zeros_like(image)
    for corner, kernel in enumerate(kernels):
        share = (down if corner // 2 else 1 - down) * (right if corner % 2 else 1 - right)
        out += share * np.stack([scipy.ndimage.convolve(plane, kernel, mode="mirror") for plane in light])
    return to_grey((exposure * out).clip(0, 1))


@pytest.mark.parametrize(("size", "intensity", "exposure"), [(5, 0.5, 1.25), (7, 1.0, 0.6), (3, 0.0, 2.0)])
def test_it_is_the_camera_of_a_second_program(size: int, intensity: float, exposure: float) -> None:
    x = 1.3 * torch.rand(2, 2, 12, 9, generator=rng(1), dtype=torch.float64) - 0.15  # some outside of [0, 1]
    model = CameraShake((2, 12, 9), rng(4), kernel_size=size, intensity=intensity, exposure=exposure)
    expected = [photographed(image, 4, size, intensity, exposure) for image in x.numpy()]
    np.testing.assert_allclose(model(x), expected, atol=1e-9)
    operator = NonlinearBlur.camera(
        (2, 12, 9), rng(4), kernel_size=size, intensity=intensity, exposure=exposure, value_range=(-2.0, 3.0)
    )
    np.testing.assert_allclose(operator(5 * x - 2), 5 * np.array(expected) - 2, atol=1e-8)


def test_left_out_it_is_the_camera_of_seed_zero() -> None:
    x = 2 * torch.rand(1, 1, 50, 44, generator=rng(1), dtype=torch.float64) - 1
    expected = photographed((x[0].numpy() + 1) / 2, 0, 41, 0.5, 1.25)
    np.testing.assert_allclose(NonlinearBlur((1, 50, 44))(x)[0], 2 * expected - 1, atol=1e-8)
    np.testing.assert_allclose(NonlinearBlur.camera((1, 50, 44), rng())(x)[0], 2 * expected - 1, atol=1e-8)


def test_any_module_is_a_blur_of_images_in_their_range() -> None:
    model = torch.nn.Linear(4, 4)
    operator = NonlinearBlur((1, 3, 4), model, value_range=(0.0, 10.0))
    x = 10 * torch.rand(2, 1, 3, 4, generator=rng())
    torch.testing.assert_close(operator(x), (10 * model(x / 10)).clamp(0, 10))
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    (image,) = operator.feature_images
    assert image.name == "data" and not image.of_estimate and not image.dimensionless and image.absent == 0
    assert torch.equal(operator.data_images(x), x[:, None])
    for exposure in (0.0, -1.0):
        with pytest.raises(ValueError, match=f"exposure must be positive, got {exposure}"):
            CameraShake((1, 4, 4), rng(), exposure=exposure)
