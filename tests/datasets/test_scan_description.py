"""Geometry files: every key is read and checked, and an error names the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from deft_ct.datasets.scan_description import ScanDescription, read_scan_description
from deft_ct.io.errors import ReadError

WHOLE = """
beam: fan
detector: curved
source_to_center_mm: 100
source_to_detector_mm: 3e2      # text to YAML
detector_mm: 0.4
detectors: 282
center: 140.5
angles: angles.txt
unit: radians
turn: clockwise
axes: [frames, views, detectors]
data: scan/counts
flats: flats.npy
darks: scan/dark
slice_mm: 0.4
"""


def read(folder: Path, text: str) -> ScanDescription:
    path = folder / "geometry.yaml"
    path.write_text(text)
    return read_scan_description(path)


def test_every_key(tmp_path: Path) -> None:
    (tmp_path / "angles.txt").write_text("0\n1\n")
    found = read(tmp_path, WHOLE)
    assert (found.beam, found.detector, found.source_to_detector_mm, found.center) == ("fan", "curved", 300.0, 140.5)
    assert found.angles == str(tmp_path / "angles.txt"), "files lie beside the geometry file"
    assert (found.flats, found.darks) == ("flats.npy", "scan/dark"), "names in the data stay names"
    assert found.axes == ("frames", "views", "detectors") and found.holds == "counts"
    assert read(tmp_path, "angles: [0, 1.5, 3]").angles == (0, 1.5, 3)
    assert read(tmp_path, "center: auto").center == "auto"
    assert read(tmp_path, "beam: parallel").covered == 180.0
    assert read(tmp_path, "{beam: fan, source_to_center_mm: 1, source_to_detector_mm: 2}").covered == 360.0


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("beam: cone", "beam must be one of parallel, fan"),
        ("beam: fan", "needs source_to_center_mm and source_to_detector_mm"),
        ("{beam: parallel, source_to_center_mm: 1}", "belongs to a fan beam"),
        ("source_to_center_mm: 1", "write beam: fan beside it"),
        ("bream: fan", "unknown key bream; known: beam"),
        ("detector_mm: 0", "detector_mm must be positive"),
        ("detector_mm: wide", "detector_mm must be a finite number"),
        ("{angles: [1], arc: 180}", "leave out arc"),
        ("arc: 400", r"arc must lie in \(0, 360\]"),
        ("axes: [views, rows]", "axes must be"),
        ("axes: [views, slices]", "axes must be views and detectors"),
        ("axes: [views, detectors, views]", "axes must be views and detectors"),
        ("{flats: a, counts: 1}", "leave out one"),
        ("{flats: a, values: transmission}", "values says transmission"),
        ("center: left", "center must be"),
        ("{beam: parallel, beam: fan}", "the key beam is there twice"),
        ("beam: [", "is not YAML"),
        ("7", "expected keys such as beam, got int"),
    ],
)
def test_faults(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(ReadError, match=why):
        read(tmp_path, text)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_scan_description(tmp_path / "none.yaml")


def test_what_is_said_goes_over_what_the_layout_says() -> None:
    layout = ScanDescription(data="a", flats="white", darks="black", angles="theta")
    said = ScanDescription(detector_mm=0.5, center=0.0, arc=180.0, values="transmission")
    merged = said.over(layout)
    assert (merged.data, merged.detector_mm, merged.center, merged.arc) == ("a", 0.5, 0.0, 180.0)
    assert merged.angles is None and merged.flats is None and merged.holds == "transmission"
