"""Projectors on several threads and in other processes: the same numbers."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest
import torch

from deft_ct.operators.ct import ConeGeometry, FanGeometry, ParallelGeometry, RayTransform
from deft_ct.operators.ct.backends import joseph, joseph_cone

GEOMETRIES = [
    ParallelGeometry.for_image((24, 20), 1.0, 30),
    FanGeometry.for_image((24, 20), 1.0, 30),
    ConeGeometry.for_image((10, 12, 14), 1.0, 9),
]


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=["parallel", "fan", "cone"])
@pytest.mark.parametrize("backend", ["joseph", "astra"])
def test_threads_change_nothing(geometry: object, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if backend == "astra":
        pytest.importorskip("astra")
        if geometry is not GEOMETRIES[0]:
            pytest.skip("ASTRA's CPU code is for parallel beams here")
    pytest.importorskip("numba")
    monkeypatch.setattr(joseph, "_RAYS", 64)  # several tasks, of a whole number of rays and of the rest
    monkeypatch.setattr(joseph, "_LINES", 5)
    operator = RayTransform(geometry, backend)  # type: ignore[arg-type]
    x = torch.rand(3, *operator.domain_shape, generator=torch.Generator().manual_seed(0))
    y = torch.rand(3, *operator.range_shape, generator=torch.Generator().manual_seed(1))
    found = []
    for count in (1, 3):
        torch.set_num_threads(count)
        found.append((operator(x), operator.adjoint(y)))
    for one, three in zip(*found, strict=True):
        torch.testing.assert_close(one, three, rtol=1e-5, atol=1e-5)
    reference = RayTransform(geometry, "matrix")  # type: ignore[arg-type]
    torch.testing.assert_close(found[1][0], reference(x), rtol=2e-2, atol=0.3 if backend == "astra" else 2e-3)
    assert joseph_cone is not None


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=["parallel", "fan", "cone"])
@pytest.mark.parametrize("backend", ["joseph", "astra", "matrix"])
def test_a_projector_crosses_to_another_process(geometry: object, backend: str) -> None:
    if backend == "astra":
        pytest.importorskip("astra")
        if geometry is not GEOMETRIES[0]:
            pytest.skip("ASTRA's CPU code is for parallel beams here")
    pytest.importorskip("numba")
    operator = RayTransform(geometry, backend)  # type: ignore[arg-type]
    x = torch.rand(2, *operator.domain_shape, generator=torch.Generator().manual_seed(0))
    again = pickle.loads(pickle.dumps(operator))
    torch.testing.assert_close(again(x), operator(x), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(again.adjoint(operator(x)), operator.adjoint(operator(x)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", ["joseph", "matrix"])
def test_no_image_gives_no_data(backend: str) -> None:
    pytest.importorskip("numba")
    for geometry in GEOMETRIES:
        operator = RayTransform(geometry, backend)  # type: ignore[arg-type]
        assert operator(torch.zeros(0, *operator.domain_shape)).shape == (0, *operator.range_shape)
        assert operator.adjoint(torch.zeros(0, *operator.range_shape)).shape == (0, *operator.domain_shape)
