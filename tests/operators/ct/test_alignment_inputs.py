"""What the alignment of a scan refuses, before any work."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from deft_ct.operators.ct import ConeGeometry, ParallelGeometry, align_scan

SCAN = ParallelGeometry(image_shape=(16, 16), pixel_mm=1.0, views=6, detectors=24, detector_mm=1.0)
DATA = torch.rand(6, 24, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("data", "options", "problem"),
    [
        (DATA[:, :-1], {}, "trailing shape"),
        (torch.zeros(6, 24), {}, "not all zero"),
        (torch.full((6, 24), float("nan")), {}, "finite values"),
        (DATA, {"parameters": ("tilt",)}, "parameters must be some of"),
        (DATA, {"parameters": ()}, "parameters must be some of"),
        (DATA, {"parameters": ("axis_offset_mm", "axis_offset_mm")}, "each once"),
        (DATA, {"parameters": ("axis_offset_mm", "detector_offset_mm")}, "only the difference"),
        (DATA, {"levels": ()}, "levels must be integers"),
        (DATA, {"levels": (True,)}, "levels must be integers"),
        (DATA, {"levels": (7,)}, "a quarter of the 24 detectors"),
        (DATA, {"iterations": 0}, "iterations must be >= 1"),
        (DATA, {"smoothness": 0.0}, "smoothness must be finite and > 0"),
        (DATA, {"angle_error": float("inf")}, "angle_error must be finite and > 0"),
    ],
)
def test_values_out_of_range(data: torch.Tensor, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        align_scan(data, SCAN, **{"parameters": ("detector_offset_mm",), "levels": (4,), **options})


@pytest.mark.parametrize("data", [DATA.numpy(), DATA.half()])
def test_data_of_another_type(data: Any) -> None:
    with pytest.raises(TypeError, match="float32 or float64 torch tensor"):
        align_scan(data, SCAN, parameters=("detector_offset_mm",))


def test_geometries_that_cannot_be_aligned() -> None:
    cone = ConeGeometry(
        image_shape=(4, 8, 8), pixel_mm=1.0, views=4, detectors=(6, 10), detector_mm=1.0, source_to_center_mm=50.0,
        source_to_detector_mm=80.0,
    )  # fmt: skip
    with pytest.raises(TypeError, match="ParallelGeometry or FanGeometry, got ConeGeometry"):
        align_scan(DATA, cone, parameters=("detector_offset_mm",))  # type: ignore[arg-type]
    single = ParallelGeometry(image_shape=(16, 16), pixel_mm=1.0, views=1, detectors=24, detector_mm=1.0)
    with pytest.raises(ValueError, match="a single view fits any geometry"):
        align_scan(DATA[:1], single, parameters=("detector_offset_mm",))


def test_one_parameter_may_be_named_by_itself() -> None:
    found = align_scan(DATA, SCAN, parameters="detector_offset_mm", iterations=1, levels=(4,))
    assert found.geometry.angle_array.tolist() == SCAN.angle_array.tolist()
