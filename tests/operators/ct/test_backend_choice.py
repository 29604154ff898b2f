"""Which backend `auto` takes, and why, on machines with other memory and packages."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from deft_ct.operators.ct import ConeGeometry, FanGeometry, ParallelGeometry
from deft_ct.operators.ct.backends import choice
from deft_ct.operators.ct.backends.choice import choose_backend
from deft_ct.operators.ct.system_matrix import joseph_nonzeros

SCAN = ParallelGeometry(image_shape=(32, 32), pixel_mm=1.0, views=8, detectors=40, detector_mm=1.0)


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The installed packages: a set that a test may change."""
    found = {"numba", "astra"}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace() if name in found else None)
    return found


def _limits(monkeypatch: pytest.MonkeyPatch, small: int, stored: int) -> None:
    monkeypatch.setattr(choice, "SMALL_BYTES", small)
    monkeypatch.setattr(choice, "STORED_BYTES", stored)


def test_a_small_scan_is_stored(packages: set[str]) -> None:
    found = choose_backend(SCAN)
    assert found.name == "matrix" and "within the limit for stored matrices" in found.reason


def test_a_larger_one_is_computed_where_numba_is(packages: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _limits(monkeypatch, 1, 2**40)
    assert choose_backend(SCAN).name == "joseph"
    packages.remove("numba")
    found = choose_backend(SCAN)
    assert found.name == "matrix" and "Numba, which would do without them, is not installed" in found.reason


@pytest.mark.parametrize(
    ("changes", "name"),
    [({}, "astra"), ({"detector": "curved"}, "matrix"), ({"pixel_mm": (1.0, 2.0)}, "matrix")],
)  # fmt: skip
def test_astra_takes_what_it_can(
    packages: set[str], monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], name: str
) -> None:
    _limits(monkeypatch, 1, 1)
    packages.remove("numba")
    values: dict[str, Any] = {
        "image_shape": (16, 16), "pixel_mm": 1.0, "views": 4, "detectors": 20, "detector_mm": 1.0,
        "source_to_center_mm": 100.0, "source_to_detector_mm": 150.0,
    }  # fmt: skip
    assert choose_backend(FanGeometry(**values | changes)).name == name
    assert choose_backend(SCAN).name == "astra"
    packages.remove("astra")
    assert "rebuilt in blocks" in choose_backend(SCAN).reason


def test_volumes_are_not_for_astra_here(packages: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _limits(monkeypatch, 1, 1)
    packages.remove("numba")
    cone = ConeGeometry(
        image_shape=(4, 8, 8), pixel_mm=1.0, views=4, detectors=(6, 10), detector_mm=1.0, source_to_center_mm=50.0,
        source_to_detector_mm=80.0,
    )  # fmt: skip
    assert choose_backend(cone).name == "matrix"


def test_a_gpu_has_a_budget_of_its_own(packages: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(choice, "gpu_budget", lambda _: 2**40)
    _limits(monkeypatch, 1, 1)
    found = choose_backend(SCAN)
    assert found.name == "matrix" and "a quarter of the GPU's memory" in found.reason


def test_the_reason_names_both_sizes(packages: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """In millions of bytes, as the numbers of a memory are given."""
    monkeypatch.setattr(choice, "matrix_bytes", lambda _: 3_000_000 * 10**6)
    for limit, name, reason in (
        (8_000_000, "matrix", "the matrices take up to 3000000 MB, within the limit for stored matrices (8000000 MB)"),
        (
            2_000_000,
            "joseph",
            "the matrices take up to 3000000 MB, above the limit for stored matrices (2000000 MB); Numba is",
        ),
    ):
        _limits(monkeypatch, limit * 10**6, 1)
        found = choose_backend(SCAN)
        assert found.name == name and found.reason.startswith(reason)
    monkeypatch.undo()
    assert choice.matrix_bytes(SCAN) == 16 * joseph_nonzeros(SCAN)
