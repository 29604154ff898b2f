"""The compiled kernels against the same lines in Python, and the vector instructions against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("numba")

from deft_ct.operators.ct import ConeGeometry, ParallelGeometry
from deft_ct.operators.ct.backends import _cone_kernels, _vector_kernels
from deft_ct.operators.ct.backends.joseph import JosephBackend
from deft_ct.operators.ct.backends.joseph_cone import JosephConeBackend


class _Interpreted:
    """Kernels of a module as Python runs them."""

    def __init__(self, *kernels: Any) -> None:
        for kernel in kernels:
            setattr(self, kernel.py_func.__name__, kernel.py_func)


@pytest.fixture
def cone() -> JosephConeBackend:
    geometry = ConeGeometry(
        image_shape=(4, 5, 6), pixel_mm=(1.5, 1.0, 1.0), angles=np.linspace(0.1, 5.9, 5), detectors=(7, 8),
        detector_mm=(3.0, 2.0), source_to_center_mm=12.0, source_to_detector_mm=20.0, pitch_mm=3.0,
    )  # fmt: skip
    return JosephConeBackend(geometry)


def _interpreted_cone(backend: JosephConeBackend, monkeypatch: pytest.MonkeyPatch) -> JosephConeBackend:
    twin = JosephConeBackend(backend.geometry)
    monkeypatch.setattr(_cone_kernels, "_range", _cone_kernels._range.py_func)
    twin._kernels = _Interpreted(_cone_kernels.project_cone, _cone_kernels.backproject_cone)
    return twin


def test_the_cone_kernels_are_their_python_lines(cone: JosephConeBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, *cone.geometry.image_shape, dtype=torch.float64, generator=generator)
    y = torch.rand(1, *cone.geometry.sinogram_shape, dtype=torch.float64, generator=generator)
    forward, adjoint = cone.forward(x), cone.adjoint(y)
    twin = _interpreted_cone(cone, monkeypatch)
    torch.testing.assert_close(twin.forward(x), forward, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(twin.adjoint(y), adjoint, rtol=1e-12, atol=1e-12)
    assert (forward == 0).any() and (forward > 0).any()  # rays beside the volume and through it


def test_a_steep_cone_has_rays_along_every_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    """A detector that is far higher than the source is away: the rays run along z, too."""
    geometry = ConeGeometry(
        image_shape=(6, 4, 4), pixel_mm=1.0, views=4, detectors=(9, 5), detector_mm=(10.0, 4.0),
        source_to_center_mm=8.0, source_to_detector_mm=16.0,
    )  # fmt: skip
    backend = JosephConeBackend(geometry)
    x = torch.rand(1, *geometry.image_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y = torch.rand(1, *geometry.sinogram_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    twin = _interpreted_cone(backend, monkeypatch)
    torch.testing.assert_close(twin.forward(x), backend.forward(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close((backend.forward(x) * y).sum(), (x * twin.adjoint(y)).sum(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("start", "slope", "lines", "cells"),
    [(0.5, 0.0, 6, 4), (-1.0, 0.0, 6, 4), (4.0, 0.0, 6, 4), (-3.0, 1.0, 9, 4), (7.5, -1.25, 9, 4), (-9.0, 0.5, 4, 4),
     (9.0, 0.5, 4, 4), (0.25, 0.3, 5, 3), (-1.0, 1.0, 5, 3)],
)  # fmt: skip
def test_the_range_of_lines_is_what_counting_finds(start: float, slope: float, lines: int, cells: int) -> None:
    first, last = _cone_kernels._range.py_func(start, slope, lines, cells)
    counted = [k for k in range(lines) if -1 < start + slope * k < cells]
    assert list(range(first, last)) == counted
    assert list(range(*_cone_kernels._range(start, slope, lines, cells))) == counted


def _gather(
    lanes: int, image: Any, stride: int, first: int, last: int, start: float, slope: float, weight: float, out: Any,
    ray: int,
) -> None:  # fmt: skip
    assert image.shape[1:] == (stride, lanes)
    total = np.zeros(lanes)
    for k in range(first, last):
        cell, share = int(start + slope * k), (start + slope * k) % 1
        total += (1 - share) * image[k, cell] + share * image[k, cell + 1]
    out[ray] = weight * total


def _scatter(
    lanes: int, image: Any, stride: int, first: int, last: int, start: float, slope: float, weight: float, data: Any,
    ray: int,
) -> None:  # fmt: skip
    assert image.shape[1:] == (stride, lanes)
    for k in range(first, last):
        cell, share = int(start + slope * k), (start + slope * k) % 1
        image[k, cell] += (1 - share) * weight * data[ray]
        image[k, cell + 1] += share * weight * data[ray]


@pytest.mark.parametrize("count", [1, 3, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_vector_kernels_are_interpolation_in_numpy(
    count: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One, four and eight lanes, of which some are filled up."""
    geometry = ParallelGeometry(image_shape=(5, 7), pixel_mm=1.0, views=5, detectors=9, detector_mm=1.1)
    backend, twin = JosephBackend(geometry), JosephBackend(geometry)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(count, *geometry.image_shape, dtype=dtype, generator=generator)
    y = torch.rand(count, *geometry.sinogram_shape, dtype=dtype, generator=generator)
    limits = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-12}
    forward, adjoint = backend.forward(x), backend.adjoint(y)  # compiled before the names below are replaced
    monkeypatch.setattr(_vector_kernels, "_gather", _gather)
    monkeypatch.setattr(_vector_kernels, "_scatter", _scatter)
    twin._kernels = _Interpreted(_vector_kernels.project_rays, _vector_kernels.backproject_rays)
    torch.testing.assert_close(forward, twin.forward(x), **limits)
    torch.testing.assert_close(adjoint, twin.adjoint(y), **limits)


def test_kernels_compile_where_they_cannot_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    from deft_ct.operators.ct.backends import _compile

    asked = []

    def njit(**options: Any) -> Any:
        asked.append(options)
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(_compile, "njit", njit)
    assert _compile.compiled(abs) is abs
    assert asked == [{"cache": True, "nogil": True}, {"nogil": True}]
