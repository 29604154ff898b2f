"""CT numbers that are wrong without a word in the file: bits that are no value, padding, slopes and intercepts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEG2000Lossless

from deft_ct.io import read_dicom_series

MakeSeries = Callable[..., list[Path]]


def names(folder: Path) -> list[str]:
    return [finding.name for finding in read_dicom_series(folder).findings]


def test_a_usual_series_has_no_findings(tmp_path: Path, make_series: MakeSeries) -> None:
    make_series(tmp_path)
    series = read_dicom_series(tmp_path)
    assert series.findings == series.changes == ()


@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("compressed", [False, True])
def test_overlay_bits_are_masked(
    tmp_path: Path, make_series: MakeSeries, phantom: np.ndarray, signed: int, compressed: bool
) -> None:
    if compressed:
        pytest.importorskip("openjpeg")
    make_series(
        tmp_path, BitsStored=13, HighBit=12, PixelRepresentation=signed, RescaleIntercept=0 if signed else -1024
    )
    for path in tmp_path.iterdir():
        dataset = pydicom.dcmread(path)
        stored = np.frombuffer(dataset.PixelData, "<u2").reshape(16, 16) & 0x1FFF
        dataset.PixelRepresentation = signed
        marked = stored.copy()
        marked[3:5] |= 0x8000
        if compressed:
            marked = np.kron(marked, np.ones((4, 4), np.uint16))  # the encoder wants more than 32 pixels
            dataset.Rows = dataset.Columns = 64
            dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 15, 0
        dataset.PixelData = marked.tobytes()
        if compressed:
            dataset.compress(JPEG2000Lossless, encoding_plugin="pylibjpeg", generate_instance_uid=False)
            dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 13, 12, signed
        dataset.save_as(path)
    series = read_dicom_series(tmp_path)
    np.testing.assert_array_equal(series.hu[:, :: 4 if compressed else 1, :: 4 if compressed else 1], phantom[:4])
    assert any("bits beyond BitsStored" in change for change in series.changes)


def test_a_high_bit_above_the_last_one(tmp_path: Path, make_series: MakeSeries, phantom: np.ndarray) -> None:
    """12 bits at the top of 16: what is below is no part of the value."""
    for path in make_series(tmp_path, BitsStored=12, HighBit=15):
        dataset = pydicom.dcmread(path)
        dataset.PixelData = ((np.frombuffer(dataset.PixelData, "<u2") << 4) | 5).tobytes()
        dataset.save_as(path)
    np.testing.assert_array_equal(read_dicom_series(tmp_path).hu, phantom[:4])


def test_padding_is_counted_and_suspected_where_it_is_like_tissue(
    tmp_path: Path, make_series: MakeSeries, phantom: np.ndarray
) -> None:
    phantom[:, 2, :5] = 40
    make_series(tmp_path / "tissue", PixelPaddingValue=1064)
    series = read_dicom_series(tmp_path / "tissue")
    count = int((phantom[:4] == 40).sum())
    assert count >= 20 and f"{count} of 1,024 pixels hold the PixelPaddingValue" in series.changes[0]
    (finding,) = series.findings
    assert finding.name == "padding like tissue" and f"is 40 HU: {count} pixels" in finding.text
    phantom[:, 2, :5] = -1024
    make_series(tmp_path / "usual", PixelPaddingValue=0)
    series = read_dicom_series(tmp_path / "usual")
    assert "20 of 1,024 pixels hold" in series.changes[0] and series.findings == ()


def test_padding_with_more_bits_than_are_stored(tmp_path: Path, make_series: MakeSeries, phantom: np.ndarray) -> None:
    for path in make_series(tmp_path, BitsStored=12, HighBit=11):
        dataset = pydicom.dcmread(path)
        stored = np.frombuffer(dataset.PixelData, "<u2").copy()
        stored[:7] = 63536
        dataset.PixelData = stored.tobytes()
        dataset.add_new("PixelPaddingValue", "US", 63536)
        dataset.save_as(path)
    series = read_dicom_series(tmp_path)
    assert (series.hu[:, 0, :7] == -1024).all() and series.changes[0].startswith("28 of 1,024")
    np.testing.assert_array_equal(series.hu[:, 1:], phantom[:4, 1:])


@pytest.mark.parametrize(("value", "padded"), [([24, 25], 24), ([], None)])
def test_padding_of_several_values(
    tmp_path: Path, make_series: MakeSeries, phantom: np.ndarray, value: list[int], padded: int | None
) -> None:
    phantom[:, 0, 0] = -1000
    for path in make_series(tmp_path):
        dataset = pydicom.dcmread(path)
        dataset.add_new("PixelPaddingValue", "US", value)
        dataset.save_as(path)
    assert (read_dicom_series(tmp_path).hu[:, 0, 0] == (-1000 if padded is None else -1024)).all()


def test_an_intercept_of_zero(tmp_path: Path, make_series: MakeSeries, phantom: np.ndarray) -> None:
    make_series(tmp_path, RescaleIntercept=0, PixelData=(phantom[0] + 1024).astype("<u2").tobytes())
    (finding,) = read_dicom_series(tmp_path).findings
    assert finding.name == "no air" and "RescaleIntercept" in finding.text


def test_a_slope_of_minus_one(tmp_path: Path, make_series: MakeSeries, phantom: np.ndarray) -> None:
    make_series(tmp_path, RescaleSlope=-1, PixelData=(phantom[0] + 1024).astype("<u2").tobytes())
    series = read_dicom_series(tmp_path)
    assert [finding.name for finding in series.findings] == ["negative slope", "no air"]
    assert "lie below -1024 HU" in series.changes[0]


def test_values_beyond_any_tissue(tmp_path: Path, make_series: MakeSeries) -> None:
    stored = np.zeros((16, 16), "<u2")
    for n, (top, found) in enumerate(((31024, []), (31025, ["values beyond any tissue"]))):
        stored[0, 0] = top
        make_series(tmp_path / str(n), PixelData=stored.tobytes(), z=(0.0,))
        assert names(tmp_path / str(n)) == found


@pytest.mark.parametrize("count", [0, 1])
def test_a_thousandth_of_air_is_enough(tmp_path: Path, make_series: MakeSeries, count: int) -> None:
    stored = np.full((16, 16), 1064, "<u2")
    stored[0, :count] = 24
    make_series(tmp_path, PixelData=stored.tobytes(), z=(0.0,))
    assert names(tmp_path) == ([] if count else ["no air"])
