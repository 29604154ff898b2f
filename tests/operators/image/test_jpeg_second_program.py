"""JPEG step by step in NumPy with whole numbers, as libjpeg computes them; and the images of phase retrieval."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft
import torch

from deft_ct.operators import JPEG, PhaseRetrieval
from deft_ct.operators.image.jpeg import quantisation_tables


def nearest(x: np.ndarray) -> np.ndarray:
    """Halves up, also where rounding has left a little less."""
    return np.floor(x + 0.5 + 1e-4)


def coded(plane: np.ndarray, table: np.ndarray) -> np.ndarray:
    height, width = plane.shape
    padded = np.pad(plane - 128, ((0, -height % 8), (0, -width % 8)), mode="edge")
    out = np.empty_like(padded)
    for r in range(0, padded.shape[0], 8):
        for c in range(0, padded.shape[1], 8):
            block = padded[r : r + 8, c : c + 8]
            rows = nearest(4 * 8**0.5 * scipy.fft.dct(block, axis=1, norm="ortho"))  # quarters
            both = nearest(8**0.5 / 4 * scipy.fft.dct(rows, axis=0, norm="ortho")) / 8  # eighths
            levels = np.sign(both) * np.floor(np.abs(both) / table + 0.5)
            columns = nearest(4 * 8**0.5 * scipy.fft.idct(levels * table, axis=0, norm="ortho"))
            out[r : r + 8, c : c + 8] = nearest(8**0.5 / 32 * scipy.fft.idct(columns, axis=1, norm="ortho"))
    return (out + 128).clip(0, 255)[:height, :width]


def halved(plane: np.ndarray) -> np.ndarray:
    height, width = plane.shape
    padded = np.pad(plane, ((0, height % 2), (0, -width % 16)), mode="edge").astype(int)
    total = padded[::2, ::2] + padded[::2, 1::2] + padded[1::2, ::2] + padded[1::2, 1::2]
    return (total + np.tile([1, 2], total.shape[1] // 2)) // 4


def doubled(plane: np.ndarray, height: int, width: int) -> np.ndarray:
    small = plane[: (height + 1) // 2, : (width + 1) // 2].astype(int)
    h, w = small.shape
    out = np.empty((height, width), int)
    for r in range(height):
        for c in range(width):
            if w <= 2:
                out[r, c] = small[r // 2, c // 2]
                continue
            beside = [min(max(n // 2 + (1 if n % 2 else -1), 0), count - 1) for n, count in ((r, h), (c, w))]
            near = 3 * small[r // 2, c // 2] + small[beside[0], c // 2]
            far = 3 * small[r // 2, beside[1]] + small[beside[0], beside[1]]
            out[r, c] = (3 * near + far + (7 if c % 2 else 8)) // 16
    return out


def compressed(image: np.ndarray, quality: int, halve: bool) -> np.ndarray:
    """Grey levels ``(C, H, W)``."""
    luma, chroma = (table.numpy() for table in quantisation_tables(quality))
    if len(image) == 1:
        return coded(nearest(image[0]), luma)[None]
    _, height, width = image.shape
    r, g, b = image
    y = nearest((19595 * r + 38470 * g + 7471 * b) / 65536)
    colours = []
    for weights in ((-11059, -21709, 32768), (32768, -27439, -5329)):
        difference = (weights[0] * r + weights[1] * g + weights[2] * b) / 65536
        plane = 128 - nearest(-difference)  # halves down
        plane = doubled(coded(halved(plane).astype(float), chroma), height, width) if halve else coded(plane, chroma)
        colours.append(plane - 128)
    y, (cb, cr) = coded(y, luma), colours
    rgb = [y + 91881 / 65536 * cr, y - 22554 / 65536 * cb - 46802 / 65536 * cr, y + 116130 / 65536 * cb]
    return nearest(np.stack(rgb)).clip(0, 255)


@pytest.mark.parametrize("subsampling", ["4:2:0", "4:4:4"])
@pytest.mark.parametrize("size", [(8, 8), (17, 21), (16, 32), (3, 5), (9, 4)])
@pytest.mark.parametrize("quality", [5, 50, 92])
def test_the_image_is_that_of_a_second_program(quality: int, size: tuple[int, int], subsampling: str) -> None:
    rng = np.random.default_rng(quality)
    smooth = rng.uniform(0, 255, (3, 1, 1)) + 40 * np.sin(np.arange(size[1]) / 5 + np.arange(size[0])[:, None] / 3)
    grey = np.round(smooth + rng.uniform(-30, 30, (3, *size))).clip(0, 255)
    for image in (grey, grey[:1]):
        operator = JPEG(image.shape, quality, subsampling=subsampling, value_range=(0.0, 255.0))  # type: ignore[arg-type]
        found = operator(torch.from_numpy(image)[None])[0].numpy()
        np.testing.assert_allclose(found, compressed(image, quality, subsampling == "4:2:0"), atol=1e-9)
    scaled = JPEG((3, *size), quality, subsampling=subsampling)  # type: ignore[arg-type]
    y = 127.5 * (scaled(torch.from_numpy(grey / 127.5 - 1)[None])[0].numpy() + 1)
    np.testing.assert_allclose(y, compressed(grey, quality, subsampling == "4:2:0"), atol=1e-6)


def test_images_of_an_estimate_are_a_projection_and_ten_and_two_steps() -> None:
    operator = PhaseRetrieval((2, 8, 16), 1.0)
    x, guess = (2 * torch.rand(2, 2, 2, 8, 16, generator=torch.Generator().manual_seed(0)).double() - 1).unbind()
    y = operator(x)
    projection, hybrid = operator.estimate_images(guess, y).unbind(1)
    torch.testing.assert_close(projection, operator.project_magnitude(guess, y))
    torch.testing.assert_close(hybrid, operator.hybrid_input_output(y, guess, iterations=10, reductions=2, beta=0.95))
    names = [(image.name, image.of_estimate, image.dimensionless) for image in operator.feature_images]
    assert names == [("projection", True, False), ("hybrid", True, False)]
    assert operator.range_shape == (2, 10, 20)
