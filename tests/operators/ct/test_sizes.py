"""Limits of memory, in bytes: what is kept, what is done in blocks of views, and what is refused."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from deft_ct.operators import memory
from deft_ct.operators.ct import ConeGeometry, ParallelGeometry, RayTransform, backprojection
from deft_ct.operators.ct.backends import choice, matrix
from deft_ct.operators.ct.backprojection import FilteredBackprojection

CPU = torch.device("cpu")
SCAN = ParallelGeometry(image_shape=(8, 8), pixel_mm=1.0, views=60, detectors=12, detector_mm=1.0)


def lengths(blocks: list[slice], views: int) -> list[int]:
    """Of blocks that follow one another and cover all views."""
    assert blocks[0].start == 0 and blocks[-1].stop == views
    assert all(a.stop == b.start for a, b in itertools.pairwise(blocks))
    return [block.stop - block.start for block in blocks]


def test_two_gigabytes_of_a_system_matrix_are_stored_and_others_built_in_quarters_of_one() -> None:
    backend, x = matrix.MatrixBackend(SCAN), torch.zeros(1)
    for size, expected in (
        (2 * 10**9, [60]),
        (2 * 10**9 + 1, [7] * 8 + [4]),
        (3 * 10**9, [5] * 12),
        (10**12, [1] * 60),
    ):
        backend._bytes = size
        blocks = backend._blocks(x)
        assert lengths([part for part, _ in blocks], 60) == expected
        assert [geometry.sinogram_shape[0] for _, geometry in blocks] == expected


def test_half_a_gibibyte_of_a_back_projection_is_stored_and_others_built_in_quarters_of_it() -> None:
    """Of a value and an index in double precision, twice: 24 bytes for each pixel and view."""
    stored = FilteredBackprojection(ParallelGeometry.for_image((64, 64), 1.0, 5461))
    assert stored._view_bytes == 24 * 64 * 64 and 5461 * 24 * 64 * 64 < 2**29 < 5462 * 24 * 64 * 64
    assert lengths(stored._blocks(CPU), 5461) == [5461]
    built = FilteredBackprojection(ParallelGeometry.for_image((64, 64), 1.0, 5462))
    assert lengths(built._blocks(CPU), 5462) == [1365] * 4 + [2]


def test_back_projections_together_may_take_two_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[int] = []

    class Store:
        def get(self, key: Any, build: Any, *, limit: int) -> torch.Tensor:
            limits.append(limit)
            matrix: torch.Tensor = build()
            return matrix

    monkeypatch.setattr(backprojection, "_STORE", Store())
    FilteredBackprojection(SCAN)(torch.ones(1, 60, 12))
    assert limits == [2 * 10**9]


def test_a_scan_of_a_gigabyte_is_stored_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for size, name in ((10**9, "matrix"), (10**9 + 1, "joseph")):
        monkeypatch.setattr(choice, "matrix_bytes", lambda _, n=size: n)
        assert choice.choose_backend(SCAN).name == name


@pytest.mark.parametrize(
    "geometry", [SCAN, ConeGeometry.for_image((3, 4, 5), 1.0, 6)], ids=["parallel", "cone"]
)  # fmt: skip
def test_a_scan_takes_48_bytes_a_ray_and_4_a_voxel(geometry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rays = torch.Size(geometry.sinogram_shape).numel()
    needed = 48 * rays + 4 * torch.Size(geometry.image_shape).numel()
    monkeypatch.setattr(memory, "free_bytes", lambda: needed)
    RayTransform(geometry, "matrix")
    monkeypatch.setattr(memory, "free_bytes", lambda: needed - 1)
    elements = " x ".join(map(str, geometry.sinogram_shape[1:]))
    views = geometry.sinogram_shape[0]
    with pytest.raises(ValueError, match=f"a scan with {views} views of {elements} detector elements needs at least"):
        RayTransform(geometry, "matrix")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_all_matrices_together_may_take_half_of_a_device(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Pair:
        def __init__(self, used: int, size: int) -> None:
            self.used, self.size = used, size

        def stored_bytes(self, place: torch.device) -> int:
            return self.size if place.type == device else 0

        def release(self) -> None:
            self.size = 0

    for missing, kept in ((0, [30, 20, 50]), (1, [30, 0, 50]), (20, [30, 0, 50]), (21, [0, 0, 50]), (99, [0, 0, 50])):
        pairs = [Pair(2, 30), Pair(1, 20), Pair(0, 50)]
        monkeypatch.setattr(matrix, "_PAIRS", dict(enumerate(pairs)))
        total = SimpleNamespace(total=200 - 2 * missing, total_memory=200 - 2 * missing)
        wrong = SimpleNamespace(total=1, total_memory=1)
        monkeypatch.setattr(matrix.psutil, "virtual_memory", lambda t=total if device == "cpu" else wrong: t)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _, t=total if device == "cuda" else wrong: t)
        matrix.make_room(pairs[2], torch.device(device))  # type: ignore[arg-type]
        assert [pair.size for pair in pairs] == kept, missing
