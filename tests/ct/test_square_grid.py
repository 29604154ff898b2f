"""Slices of any matrix on a square grid: places, means and margins against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deft_ct.ct.square_grid import SquareGrid
from deft_ct.ct.volume import Volume


def volume(shape: tuple[int, int], spacing: tuple[float, float]) -> Volume:
    """Two slices whose values are linear in the place: HU = 3 x + 5 y (mm)."""
    affine = np.diag([spacing[1], spacing[0], 2.0, 1.0])
    affine[:3, 3] = [-7.0, 11.0, 30.0]
    y, x = np.mgrid[: shape[0], : shape[1]]
    hu = 3 * (affine[0, 3] + x * spacing[1]) + 5 * (affine[1, 3] + y * spacing[0])
    return Volume(np.stack([hu, hu + 1]), affine)


@pytest.mark.parametrize(
    ("shape", "spacing", "expected", "pixel"),
    [
        ((64, 64), (0.5, 0.5), (32, 32), 1.0),  # 512 -> 256
        ((50, 64), (0.5, 0.5), (25, 32), 1.0),  # 400 x 512
        ((96, 96), (0.5, 0.5), (32, 32), 1.5),  # 768
        ((40, 40), (0.5, 0.5), (32, 32), 0.625),  # 320
        ((51, 51), (0.5, 0.5), (32, 32), 51 * 0.5 / 32),  # 410
        ((75, 75), (0.5, 0.5), (32, 32), 75 * 0.5 / 32),  # 600
        ((20, 16), (0.5, 0.5), (20, 16), 0.5),  # smaller than the square
        ((32, 32), (0.5, 1.0), (16, 32), 1.0),  # pixels that are not square
        ((64, 32), (0.7, 0.5), (32, 12), 1.4),
    ],
)
def test_every_pixel_stays_where_it_is(
    shape: tuple[int, int], spacing: tuple[float, float], expected: tuple[int, int], pixel: float
) -> None:
    source = volume(shape, spacing)
    grid = SquareGrid.around(shape, spacing, 32)
    found = grid.volume(source)
    assert found.image_shape == grid.shape == expected and found.pixel_mm == pytest.approx(pixel)
    whole_rows, whole_columns = (int(n * step / pixel + 1e-6) for n, step in zip(shape, spacing, strict=True))
    y, x = np.mgrid[: found.shape[1], : found.shape[2]]
    place = found.affine @ np.stack([x, y, 0 * x, 1 + 0 * x]).reshape(4, -1)
    linear = (3 * place[0] + 5 * place[1]).reshape(expected)[:whole_rows, :whole_columns]
    # The mean of a linear function over a pixel is its value at the middle.
    inside = found.hu[0, :whole_rows, :whole_columns]
    if pixel / spacing[0] % 1 or pixel / spacing[1] % 1:  # parts of pixels: constant within each of them
        assert np.abs(inside - linear).max() < 3 * spacing[1] + 5 * spacing[0]
        assert abs(float((inside - linear).mean())) < 0.3
    else:
        np.testing.assert_allclose(inside, linear, atol=1e-4)
    corner = found.affine[:2, 3] - 0.5 * pixel
    np.testing.assert_allclose(corner, source.affine[:2, 3] - 0.5 * np.array(spacing[::-1]), atol=1e-9)
    np.testing.assert_allclose(found.hu[1] - found.hu[0], 1, atol=1e-4)


def test_padding_is_undone() -> None:
    grid = SquareGrid.around((50, 64), (0.5, 0.5), 32)
    found = grid.volume(volume((50, 64), (0.5, 0.5)))
    whole = grid.padded(found.hu)
    assert whole.shape == (2, 32, 32) and grid.margins == (3, 0)
    assert (whole[:, :3] == -1024).all() and (whole[:, 28:] == -1024).all()
    np.testing.assert_array_equal(grid.cropped(whole), found.hu)
    np.testing.assert_array_equal(grid.cropped(torch.from_numpy(whole)[:, None])[:, 0].numpy(), found.hu)
    assert "50 x 64 pixels of 0.5 mm were averaged to 25 x 32 of 1 mm" in grid.in_words
    assert "padded with air to 32 x 32" in grid.in_words


def test_a_square_of_the_right_size_is_left_alone() -> None:
    grid = SquareGrid.around((32, 32), (0.5, 0.5), 32)
    assert grid.is_identity and grid.margins == (0, 0)
    assert not SquareGrid.around((32, 32), (0.5, 0.7), 32).is_identity
    with pytest.raises(ValueError, match="at least 1"):
        SquareGrid.around((32, 32), (1.0, 1.0), 0)
    with pytest.raises(ValueError, match="expected slices of"):
        grid.volume(volume((16, 16), (0.5, 0.5)))


def test_a_whole_factor_is_the_plain_mean_of_blocks() -> None:
    source = volume((64, 64), (0.5, 0.5))
    found = SquareGrid.around((64, 64), (0.5, 0.5), 32).volume(source)
    np.testing.assert_array_equal(found.hu, source.resampled(2).hu)
