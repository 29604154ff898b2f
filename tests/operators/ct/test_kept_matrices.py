"""Back-projection matrices that are kept between calls, and the default arc of each geometry."""

from __future__ import annotations

import math

import pytest
import torch

from deft_ct.operators.ct import ConeGeometry, FanGeometry, ParallelGeometry
from deft_ct.operators.ct.backprojection import MatrixStore


def _matrix(entries: int) -> torch.Tensor:
    """One row of float32 values: 4 + 8 bytes an entry, and 16 for the ends of the row."""
    return torch.sparse_csr_tensor(
        torch.tensor([0, entries]), torch.arange(entries), torch.ones(entries), (1, entries), check_invariants=True
    )


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_the_matrices_used_longest_ago_go_first() -> None:
    store, built = MatrixStore(), []

    def get(key: str, entries: int = 10) -> torch.Tensor:
        def build() -> torch.Tensor:
            built.append(key)
            return _matrix(entries)

        return store.get(key, build, limit=2 * (12 * 10 + 16))

    first = get("a")
    assert get("a") is first and built == ["a"]
    get("b")
    get("a")  # b is now the one that was used longest ago
    get("c")
    assert len(store) == 2
    get("a")
    assert built == ["a", "b", "c"]
    get("b")
    assert built == ["a", "b", "c", "b"] and len(store) == 2
    get("large", entries=1000)  # alone beyond the limit: it stays, and all others go
    assert len(store) == 1
    get("large", entries=1000)
    assert built[-1] == "large" and built.count("large") == 1


def test_views_cover_half_a_turn_or_a_whole_one_by_default() -> None:
    distances = {"source_to_center_mm": 60.0, "source_to_detector_mm": 90.0}
    plane = {"image_shape": (8, 8), "pixel_mm": 1.0, "views": 6, "detectors": 12, "detector_mm": 1.0}
    solid = plane | {"image_shape": (4, 8, 8), "detectors": (6, 12)}
    for geometry, arc in (
        (ParallelGeometry(**plane), math.pi), (FanGeometry(**plane, **distances), 2 * math.pi),
        (ConeGeometry(**solid, **distances), 2 * math.pi),
    ):  # fmt: skip
        torch.testing.assert_close(torch.from_numpy(geometry.angle_array), torch.arange(6).double() * arc / 6)
