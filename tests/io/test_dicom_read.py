"""DICOM series that are read, and what comes out."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from pydicom.uid import (
    JPEG2000Lossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.io import DicomSeriesError, read_all_dicom_series, read_dicom_series, sample_series_path

MakeSeries = Callable[..., list[Path]]
Z = (0.0, 2.5, 5.0, 7.5)


def test_real_sample() -> None:
    series = read_dicom_series(sample_series_path())
    files = [pydicom.dcmread(p) for p in sample_series_path().glob("*.dcm")]
    files.sort(key=lambda d: float(d.ImagePositionPatient[2]))
    assert series.volume.shape == (8, 512, 512) and series.pixel_mm == 0.78125 and series.z_mm == pytest.approx(1.0)
    assert series.slice_uids == tuple(d.SOPInstanceUID for d in files)
    for n, file in enumerate(files):
        np.testing.assert_array_equal(series.hu[n], file.pixel_array * file.RescaleSlope + file.RescaleIntercept)
    first = [*map(float, files[0].ImagePositionPatient), 1.0]
    np.testing.assert_allclose(series.volume.affine @ [0, 0, 0, 1], first)
    assert all("PixelData" not in header for header in series.headers)
    mu = series.attenuation()
    assert mu.shape == (8, 1, 512, 512) and mu.dtype == torch.float32
    np.testing.assert_allclose(series.units.to_hu(mu)[:, 0].numpy(), series.hu, atol=1e-3)
    assert any("frames of reference" in note for note in series.notes)


def test_order_is_by_position_not_by_name_or_number(
    tmp_path: Path, make_series: MakeSeries, phantom: np.ndarray
) -> None:
    make_series(tmp_path / "scan", z=(5.0, 0.0, 7.5, 2.5))
    series = read_dicom_series(tmp_path / "scan")
    np.testing.assert_array_equal(series.hu, phantom[[1, 3, 0, 2]])
    assert series.z_mm == pytest.approx(2.5) and len(series) == 4
    assert [float(h.ImagePositionPatient[2]) for h in series.headers] == list(Z)


def test_order_follows_the_normal_of_a_prone_scan(tmp_path: Path, make_series: MakeSeries, phantom: np.ndarray) -> None:
    make_series(tmp_path / "scan", ImageOrientationPatient=[-1, 0, 0, 0, 1, 0])  # normal points to the feet
    series = read_dicom_series(tmp_path / "scan")
    np.testing.assert_array_equal(series.hu, phantom[[3, 2, 1, 0]])
    np.testing.assert_allclose(series.volume.affine[:3, 2], [0, 0, -2.5])
    assert np.linalg.det(series.volume.affine[:3, :3]) > 0


def test_every_slice_is_rescaled_by_its_own_header(
    tmp_path: Path, make_series: MakeSeries, phantom: np.ndarray
) -> None:
    make_series(
        tmp_path / "scan",
        each_RescaleSlope=[1, 2, 0.5, 1],
        each_RescaleIntercept=[-1024, -1000, -2000, 0],
        each_PixelRepresentation=[0, 0, 0, 1],
    )
    np.testing.assert_allclose(read_dicom_series(tmp_path / "scan").hu, phantom[:4], atol=1.0)


@pytest.mark.parametrize(("representation", "padding"), [(1, -2000), (0, 63536), (1, 63536)])
def test_padding_becomes_air(
    tmp_path: Path, make_series: MakeSeries, phantom: np.ndarray, representation: int, padding: int
) -> None:
    phantom[:, 0, :4] = -2000 if representation else 63536  # stored values: slope 1, intercept 0
    phantom[:, 1:] = np.abs(phantom[:, 1:])
    make_series(tmp_path / "scan", PixelRepresentation=representation, RescaleIntercept=0)
    for path in (tmp_path / "scan").iterdir():
        dataset = pydicom.dcmread(path)
        dataset.add_new("PixelPaddingValue", "SS" if padding < 0 else "US", padding)
        dataset.save_as(path)
    hu = read_dicom_series(tmp_path / "scan").hu
    assert (hu[:, 0, :4] == -1024).all() and (hu[:, 1:] >= 0).all()


def test_padding_range(tmp_path: Path, make_series: MakeSeries, phantom: np.ndarray) -> None:
    make_series(tmp_path / "scan", PixelPaddingValue=0, PixelPaddingRangeLimit=500)
    hu = read_dicom_series(tmp_path / "scan").hu
    low = phantom[:4] + 1024 <= 500
    assert low.any() and (hu[low] == -1024).all()
    np.testing.assert_array_equal(hu[~low], phantom[:4][~low])


def test_values_below_the_scale_become_air(tmp_path: Path, make_series: MakeSeries, phantom: np.ndarray) -> None:
    phantom[0, 0, 0] = -3024
    make_series(tmp_path / "scan", PixelRepresentation=1)
    assert read_dicom_series(tmp_path / "scan").hu[0, 0, 0] == -1024


def test_single_slice_and_single_file(tmp_path: Path, make_series: MakeSeries) -> None:
    (path,) = make_series(tmp_path / "scan", z=(4.0,))
    for source in (tmp_path / "scan", path):
        series = read_dicom_series(source)
        assert series.volume.shape == (1, 16, 16) and series.z_mm == 2.5


def test_zip_and_nested_folders(tmp_path: Path, make_series: MakeSeries) -> None:
    paths = make_series(tmp_path / "scan" / "deep")
    paths[0].rename(tmp_path / "scan" / paths[0].name)
    archive = tmp_path / "scan.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in (tmp_path / "scan").rglob("*.dcm"):
            file.write(path, path.relative_to(tmp_path))
        file.writestr("scan/README.txt", "hello")
    one, two = read_dicom_series(tmp_path / "scan"), read_dicom_series(archive)
    np.testing.assert_array_equal(one.hu, two.hu)
    assert two.notes == ("skipped 1 file(s) that are not DICOM: scan/README.txt",)


def compress(paths: list[Path], syntax: pydicom.uid.UID, plugin: str) -> None:
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.PixelData = np.kron(dataset.pixel_array, np.ones((4, 4), np.uint16)).tobytes()
        dataset.Rows = dataset.Columns = 64  # the JPEG 2000 encoder wants more than 32 pixels
        dataset.compress(syntax, encoding_plugin=plugin, generate_instance_uid=False)
        dataset.save_as(path)


@pytest.mark.parametrize(("syntax", "plugin"), [(RLELossless, "pydicom"), (JPEG2000Lossless, "pylibjpeg")])
def test_compressed_files(
    tmp_path: Path, make_series: MakeSeries, phantom: np.ndarray, syntax: pydicom.uid.UID, plugin: str
) -> None:
    if plugin == "pylibjpeg":
        pytest.importorskip("openjpeg")
    compress(make_series(tmp_path / "scan"), syntax, plugin)
    np.testing.assert_array_equal(read_dicom_series(tmp_path / "scan").hu[:, ::4, ::4], phantom[:4])


def test_missing_decoder_names_the_extra(
    tmp_path: Path, make_series: MakeSeries, monkeypatch: pytest.MonkeyPatch
) -> None:
    compress(make_series(tmp_path / "scan"), RLELossless, "pydicom")
    from pydicom.pixels import decoders

    monkeypatch.setattr(decoders.RLELosslessDecoder, "_available", {})
    with pytest.raises(DicomSeriesError, match=r"RLE Lossless.*deft-ct\[dicom-compressed\]"):
        read_dicom_series(tmp_path / "scan")


def test_other_objects_are_skipped_and_named(tmp_path: Path, make_series: MakeSeries) -> None:
    make_series(tmp_path / "scan")
    make_series(tmp_path / "scan" / "pet", Modality="PT", SeriesInstanceUID="1.2.3.2")
    make_series(
        tmp_path / "scan" / "sc", z=(0.0,), SOPClassUID=SecondaryCaptureImageStorage, SeriesInstanceUID="1.2.3.3"
    )
    make_series(
        tmp_path / "scan" / "sr",
        z=(0.0,),
        Modality="SR",
        Rows=None,
        PixelData=None,
        SOPClassUID="1.2.840.10008.5.1.4.1.1.88.67",
    )
    (tmp_path / "scan" / "notes.txt").write_text("hello")
    series = read_dicom_series(tmp_path / "scan")
    assert len(series) == 4
    assert " ".join(series.notes).count("skipped") == 4


def test_scouts_beside_the_slices_are_skipped(tmp_path: Path, make_series: MakeSeries) -> None:
    make_series(tmp_path / "scan")
    scout = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}
    make_series(tmp_path / "scan" / "own_series", z=(0.0,), SeriesInstanceUID="1.2.3.7", **scout)
    make_series(tmp_path / "scan" / "same_series", z=(0.0,), **scout)
    series = read_dicom_series(tmp_path / "scan")
    assert len(series) == 4 and series.notes == ("skipped 1 localizer image(s) in the series",)


def test_hidden_folders_are_no_input(tmp_path: Path, make_series: MakeSeries) -> None:
    make_series(tmp_path / "scan")
    make_series(tmp_path / "scan" / ".out.partial-x1", SeriesInstanceUID="1.2.3.8")
    assert len(read_dicom_series(tmp_path / "scan")) == 4


def test_mixed_kernels_are_noted(tmp_path: Path, make_series: MakeSeries) -> None:
    make_series(tmp_path / "scan", each_ConvolutionKernel=["B30f", "B30f", "B70f", "B30f"])
    assert "B30f, B70f" in read_dicom_series(tmp_path / "scan").notes[0]


def test_positions_rounded_by_the_scanner_are_accepted(tmp_path: Path, make_series: MakeSeries) -> None:
    make_series(tmp_path / "scan", z=(0.0, 3.3, 6.7, 10.0, 13.3))
    assert read_dicom_series(tmp_path / "scan").z_mm == pytest.approx(13.3 / 4)


def test_units_are_the_callers(tmp_path: Path, make_series: MakeSeries) -> None:
    make_series(tmp_path / "scan")
    units = HounsfieldScale(0.0192, 0.0)
    series = read_dicom_series(tmp_path / "scan", units=units)
    assert series.units == units
    np.testing.assert_allclose(series.attenuation()[:, 0], 0.0192 * (1 + series.hu / 1000), rtol=1e-5, atol=1e-8)


def test_resampled_series_keeps_geometry(tmp_path: Path, make_series: MakeSeries) -> None:
    make_series(tmp_path / "scan")
    series = read_dicom_series(tmp_path / "scan")
    coarse = series.resampled(2)
    header = coarse.headers[1]
    assert (header.Rows, header.Columns, list(header.PixelSpacing)) == (8, 8, [1.5, 1.5])
    np.testing.assert_allclose(np.array(header.ImagePositionPatient, float), [-99.625, -89.625, 2.5])
    np.testing.assert_allclose(coarse.volume.affine @ [0, 0, 1, 1], [-99.625, -89.625, 2.5, 1])
    np.testing.assert_allclose(coarse.hu[2, 3, 4], series.hu[2, 6:8, 8:10].mean(), rtol=1e-6)
    assert series.headers[1].Rows == 16, "the original headers stay"
    assert coarse.slice_uids == series.slice_uids


def test_part_of_a_series(tmp_path: Path, make_series: MakeSeries) -> None:
    make_series(tmp_path / "scan")
    series = read_dicom_series(tmp_path / "scan")
    part = series.slices(1, 3)
    np.testing.assert_array_equal(part.hu, series.hu[1:3])
    np.testing.assert_allclose(part.volume.affine[:3, 3], [-100, -90, 2.5])
    with pytest.raises(ValueError, match="start < stop <= 4"):
        series.slices(2, 5)


def test_all_series_of_a_folder(tmp_path: Path, make_series: MakeSeries) -> None:
    make_series(tmp_path / "scan" / "a", SeriesInstanceUID="1.2.3.3")
    make_series(tmp_path / "scan" / "b", z=(0.0, 5.0), SeriesInstanceUID="1.2.3.2")
    make_series(tmp_path / "scan" / "c", z=(0.0, 2.5, 7.5), SeriesInstanceUID="1.2.3.1")
    series, refused = read_all_dicom_series(tmp_path / "scan")
    assert [(s.series_uid, len(s)) for s in series] == [("1.2.3.2", 2), ("1.2.3.3", 4)]
    assert list(refused) == ["1.2.3.1"] and "missing" in refused["1.2.3.1"]
    assert len(read_all_dicom_series(tmp_path / "scan", allow_gaps=True)[0]) == 3


@pytest.mark.parametrize(("flag", "noted"), [("01", True), ("00", False), (None, False)])
def test_loss_of_the_compression_is_noted(
    tmp_path: Path, make_series: MakeSeries, flag: str | None, noted: bool
) -> None:
    make_series(tmp_path / "s", **({} if flag is None else {"LossyImageCompression": flag}))
    assert ("the pixel data was compressed with loss" in read_dicom_series(tmp_path / "s").notes) is noted


@pytest.mark.parametrize(("spacing", "thickness", "expected"), [(1.25, 5.0, 1.25), (None, 5.0, 5.0), (None, None, 1.0)])
def test_a_single_slice_takes_the_spacing_before_the_thickness(
    tmp_path: Path, make_series: MakeSeries, spacing: float | None, thickness: float | None, expected: float
) -> None:
    make_series(tmp_path / "s", z=(3.0,), SpacingBetweenSlices=spacing, SliceThickness=thickness)
    assert read_dicom_series(tmp_path / "s").z_mm == expected


def test_padding_in_the_other_representation_is_compared_bit_by_bit(
    tmp_path: Path, make_series: MakeSeries, phantom: np.ndarray
) -> None:
    paths = make_series(tmp_path / "s", z=(0.0,), PixelRepresentation=1, RescaleIntercept=0)
    dataset = pydicom.dcmread(paths[0])
    stored = dataset.pixel_array.astype("<i2")
    stored[2, 3] = -2000
    dataset.PixelData = stored.tobytes()
    dataset.add_new("PixelPaddingValue", "US", 2**16 - 2000)
    dataset.RescaleIntercept = 1500  # padding is -500 HU, if it is not seen
    dataset.save_as(paths[0])
    expected = phantom[0] + 1500
    expected[2, 3] = -1024
    np.testing.assert_array_equal(read_dicom_series(tmp_path / "s").hu[0], expected)
