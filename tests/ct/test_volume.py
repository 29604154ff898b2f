from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.ct.volume import Volume

RNG = np.random.default_rng(0)


def cube(z: int = 3, h: int = 4, w: int = 6) -> np.ndarray:
    return RNG.normal(0, 300, (z, h, w)).astype(np.float32)


def test_values_and_spacing() -> None:
    volume = Volume.from_spacing(cube(), pixel_mm=0.8, z_mm=3.0)
    assert volume.shape == (3, 4, 6) and volume.image_shape == (4, 6)
    assert volume.pixel_mm == pytest.approx(0.8) and volume.z_mm == pytest.approx(3.0)
    assert volume.hu.dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        volume.hu[0, 0, 0] = 1.0


def test_the_caller_keeps_a_writable_array() -> None:
    array = cube()
    volume = Volume.from_spacing(array, pixel_mm=1, z_mm=1)
    array[0, 0, 0] = 77.0
    assert volume.hu[0, 0, 0] != 77.0


def test_attenuation_is_a_batch_of_slices() -> None:
    volume = Volume.from_spacing(np.full((2, 3, 3), -1024), pixel_mm=1, z_mm=1, units=HounsfieldScale(0.019, 0.0))
    mu = volume.attenuation()
    assert mu.shape == (2, 1, 3, 3) and mu.dtype == torch.float32
    assert float(mu[0, 0, 0, 0]) == pytest.approx(0.019 * (1 - 1.024), abs=1e-9)
    assert float(volume.attenuation(nonnegative=True).min()) == 0.0


def test_ras_flips_x_and_y_only() -> None:
    volume = Volume(cube(), np.array([[0.5, 0, 0, -10], [0, 0.5, 0, 20], [0, 0, 2, 30], [0, 0, 0, 1.0]]))
    np.testing.assert_allclose(volume.ras_affine @ [0, 0, 0, 1], [10, -20, 30, 1])


@settings(deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), factor=st.sampled_from([1, 2, 4]), pixel=st.floats(0.3, 2.0), z=st.floats(0.5, 8))
def test_averaging_keeps_every_place(seed: int, factor: int, pixel: float, z: float) -> None:
    """The mean position of a block's pixels is the position of the pixel that replaces it."""
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.random(random_state=seed % 1000).as_matrix() * [pixel, pixel, z]
    affine[:3, 3] = rng.normal(0, 100, 3)
    volume = Volume(rng.normal(0, 100, (2, 8, 4)), affine)
    coarse = volume.resampled(factor)
    assert coarse.pixel_mm == pytest.approx(factor * pixel) and coarse.z_mm == pytest.approx(z)
    k, j, i = 1, 1 % (8 // factor), 0
    block = [(i * factor + a, j * factor + b, k, 1) for a in range(factor) for b in range(factor)]
    np.testing.assert_allclose(coarse.affine @ [i, j, k, 1], np.mean([affine @ p for p in block], axis=0), atol=1e-9)
    values = [volume.hu[k, r, c] for c, r, *_ in block]
    assert coarse.hu[k, j, i] == pytest.approx(np.mean(values), abs=1e-3)


def test_with_hu_checks_the_shape() -> None:
    volume = Volume.from_spacing(cube(), pixel_mm=1, z_mm=1)
    assert volume.with_hu(np.zeros((3, 4, 6))).hu.sum() == 0
    with pytest.raises(ValueError, match=r"shape \(3, 4, 6\), got \(3, 4, 5\)"):
        volume.with_hu(np.zeros((3, 4, 5)))


def test_bad_volumes() -> None:
    bad = cube()
    bad[1, 2, 3] = np.nan
    with pytest.raises(ValueError, match="slice 1, row 2, column 3"):
        Volume.from_spacing(bad, pixel_mm=1, z_mm=1)
    with pytest.raises(ValueError, match=r"\(Z, H, W\)"):
        Volume.from_spacing(np.zeros((4, 4)), pixel_mm=1, z_mm=1)
    with pytest.raises(TypeError, match="real-valued"):
        Volume.from_spacing(np.zeros((1, 4, 4), complex), pixel_mm=1, z_mm=1)
    oblong = Volume(cube(), np.diag([1.0, 1.2, 1.0, 1.0]))
    assert oblong.spacing_mm == pytest.approx((1.2, 1.0))
    with pytest.raises(ValueError, match=r"pixels are 1\.2 x 1 mm; resample"):
        _ = oblong.pixel_mm
    with pytest.raises(ValueError, match="length zero"):
        Volume(cube(), np.diag([0.0, 1.0, 1.0, 1.0]))
    sheared = np.eye(4)
    sheared[1, 2] = 0.3
    assert Volume(cube(), sheared).is_sheared and not Volume(cube(), np.eye(4)).is_sheared
    assert Volume(cube(), sheared).z_mm == pytest.approx(1.0), "along the normal"
    with pytest.raises(ValueError, match="perpendicular"):
        Volume(cube(), np.eye(4) + 0.3 * np.eye(4, k=1) * [0, 1, 0, 0])
    flat = np.eye(4)
    flat[:3, 2] = flat[:3, 0]
    with pytest.raises(ValueError, match="singular"):
        Volume(cube(), flat)
    with pytest.raises(ValueError, match=r"\(4, 4\)"):
        Volume(cube(), np.eye(3))
    with pytest.raises(ValueError, match="does not divide"):
        Volume.from_spacing(cube(1, 6, 6), pixel_mm=1, z_mm=1).resampled(4)
