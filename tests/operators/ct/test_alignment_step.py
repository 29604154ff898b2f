"""A joint step of the alignment against dense least squares in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from deft_ct.operators.ct import FanGeometry, ParallelGeometry, RayTransform, alignment

SHAPE = (6, 5)
PARALLEL = ParallelGeometry(image_shape=SHAPE, pixel_mm=(1.0, 1.5), views=10, detectors=12, detector_mm=0.9)
FAN = FanGeometry(
    image_shape=SHAPE, pixel_mm=(1.0, 1.5), views=9, detectors=12, detector_mm=1.4, source_to_center_mm=30.0,
    source_to_detector_mm=50.0,
)  # fmt: skip
CASES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "angles and axis": (PARALLEL, ("angles", "axis_offset_mm")), "axis": (PARALLEL, ("axis_offset_mm",)),
    "detector and angles of a fan": (FAN, ("detector_offset_mm", "angles")),
}  # fmt: skip


def solved(matvec: Callable[[torch.Tensor], torch.Tensor], rhs: torch.Tensor, **_: Any) -> tuple[torch.Tensor, int]:
    """The exact solution where the search takes a few steps of conjugate gradients."""
    matrix = torch.stack([matvec(unit) for unit in torch.eye(rhs.numel(), dtype=rhs.dtype)], 1)
    torch.testing.assert_close(matrix, matrix.T)
    return torch.linalg.lstsq(matrix, rhs[:, None], driver="gelsd").solution[:, 0], 1


def dense(geometry: Any) -> np.ndarray:
    units = torch.eye(30, dtype=torch.float64).reshape(30, *SHAPE)
    return RayTransform(geometry, "matrix")(units).flatten(1).T.numpy()


def slope(geometry: Any, image: torch.Tensor, name: str) -> np.ndarray:
    """``(views, detectors)`` by finite differences."""
    sides = [
        RayTransform(geometry.replace(**{name: np.array(getattr(geometry, name)) + step}), "matrix")(image)
        for step in (1e-6, -1e-6)
    ]
    return ((sides[0] - sides[1]) / 2e-6).numpy()


@pytest.mark.parametrize("case", CASES)
def test_a_step_is_dense_least_squares(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    geometry, names = CASES[case]
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.random(SHAPE))
    views, detectors = geometry.sinogram_shape
    data = RayTransform(geometry, "matrix")(image) + 0.3 * torch.from_numpy(rng.random((views, detectors)))
    away, expected_error, smoothness = 0.05 * rng.standard_normal(views), 0.02, 0.1
    monkeypatch.setattr(alignment, "conjugate_gradient", solved)
    found, changes, residual = alignment._gauss_newton(
        data[None], geometry, image[None], names, smoothness, (away, expected_error)
    )

    matrix = dense(geometry)
    square = np.linalg.norm(matrix.T @ matrix @ np.ones(30)) / np.sqrt(30)
    down, right = (np.diff(np.eye(n), axis=0) for n in SHAPE)
    penalty = np.sqrt(smoothness * square) * np.concatenate([np.kron(down, np.eye(5)), np.kron(np.eye(6), right)])
    remaining = data.numpy().ravel() - matrix @ image.numpy().ravel()
    columns, held, sizes = [matrix], np.zeros((0, 30)), [30]
    zero_sum = np.linalg.svd(np.ones((1, views)))[2][1:].T  # a rotation of all views cannot be seen
    for name in names:
        one = slope(geometry, image, name)
        if name == "angles":
            each = np.zeros((views, detectors, views))
            each[np.arange(views), :, np.arange(views)] = one
            columns.append(each.reshape(-1, views) @ zero_sum)
        else:
            columns.append(one.reshape(-1, 1))
        sizes.append(columns[-1].shape[1])
    rows = [np.concatenate(columns, 1), np.concatenate([penalty, np.zeros((len(penalty), sum(sizes) - 30))], 1)]
    wanted = [data.numpy().ravel(), np.zeros(len(penalty))]
    starts = dict(zip(names, np.cumsum(sizes)[:-1], strict=True))
    if "angles" in names:
        weight = np.sqrt((remaining**2).mean()) / expected_error
        held = np.zeros((views, sum(sizes)))
        held[:, starts["angles"] : starts["angles"] + views - 1] = weight * zero_sum
        rows.append(held)
        wanted.append(-weight * away)
    solution = np.linalg.lstsq(np.concatenate(rows), np.concatenate(wanted), rcond=None)[0]

    np.testing.assert_allclose(found.numpy().ravel(), solution[:30], atol=1e-5)
    assert list(changes) == list(names)
    for name in names:
        start = starts[name]
        if name == "angles":
            expected = zero_sum @ solution[start : start + views - 1]
        else:
            expected = solution[start]
        np.testing.assert_allclose(changes[name], expected, atol=1e-5)
    assert residual == pytest.approx(np.linalg.norm(remaining) / np.linalg.norm(data))


@pytest.mark.parametrize("geometry", [PARALLEL, FAN], ids=["parallel", "fan"])
def test_steps_are_counted_in_detector_elements(geometry: Any) -> None:
    """Of rays at the axis; angles move rays at half the width of the image most."""
    seen = 30 / 50 if geometry is FAN else 1.0
    change = torch.tensor([0.1, -0.3, 0.2], dtype=torch.float64)
    assert alignment._elements(geometry, "axis_offset_mm", change) == pytest.approx(0.3 / (geometry.detector_mm * seen))
    assert alignment._elements(geometry, "detector_offset_mm", change) == pytest.approx(0.3 / geometry.detector_mm)
    half = 0.5 * max(6 * 1.0, 5 * 1.5)
    assert alignment._elements(geometry, "angles", change) == pytest.approx(0.3 * half / (geometry.detector_mm * seen))
    tall = geometry.replace(image_shape=(8, 5))
    assert alignment._elements(tall, "angles", change) == pytest.approx(0.3 * 4.0 / (geometry.detector_mm * seen))


@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.3])
def test_the_blur_is_a_gaussian_of_four_sigma_with_repeated_ends(sigma: float) -> None:
    rows = np.random.default_rng(0).random((2, 3, 20))
    reach = int(np.ceil(4 * sigma))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    padded = np.pad(rows, ((0, 0), (0, 0), (reach, reach)), mode="edge")
    expected = sum(w * padded[..., k : k + 20] for k, w in enumerate(weights))
    np.testing.assert_allclose(alignment._blurred(torch.from_numpy(rows), sigma), expected, atol=1e-12)


@pytest.mark.parametrize("level", [1, 3, 4])
@pytest.mark.parametrize("geometry", [PARALLEL, FAN], ids=["parallel", "fan"])
def test_the_coarse_grid_has_half_as_many_unknowns_as_data_at_most(geometry: Any, level: int) -> None:
    """Or pixels as wide as its detector elements at the axis, if these are wider, and none finer than the own grid."""
    fine = geometry.replace(image_shape=(60, 40), pixel_mm=(0.1, 0.15), detectors=50, detector_mm=0.2)
    data = torch.rand(1, *fine.sinogram_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    binned, coarse = alignment._coarse(data, fine, level)
    seen = 0.2 * (30 / 50 if geometry is FAN else 1.0)
    kept = 50 // level
    factor = max(level * seen / 0.1, np.sqrt(60 * 40 / (0.5 * kept * len(fine.angle_array))), 1.0)
    assert coarse.image_shape == (int(np.ceil(60 / factor)), int(np.ceil(40 / factor)))
    np.testing.assert_allclose(np.array(coarse.image_shape) * coarse.pixel_rc, [6.0, 6.0])
    smooth = alignment._blurred(data, factor * 0.15 / seen)
    left = (50 - kept * level) // 2
    parts = [smooth[..., left + k : left + kept * level : level] for k in range(level)]
    torch.testing.assert_close(binned, torch.stack(parts).mean(0))
    assert (coarse.detectors, coarse.detector_mm) == (kept, pytest.approx(0.2 * level))
    middle = fine.detector_positions[left : left + kept * level].reshape(kept, level).mean(1)
    np.testing.assert_allclose(coarse.detector_positions, middle, atol=1e-12)
    assert alignment._coarse(data, fine.replace(image_shape=(3, 2), pixel_mm=1.0), 1)[1].image_shape == (3, 2)
