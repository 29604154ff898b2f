"""Enhanced multi-frame CT images: frames are slices, in every way that other slices are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedCTImageStorage, RLELossless

from deft_ct.io import DicomOptions, read_dicom_series, write_dicom_series
from deft_ct.io.errors import ReadError

MakeSlice = Callable[..., Dataset]


def group(name: str, **values: Any) -> tuple[str, Sequence]:
    item = Dataset()
    for key, value in values.items():
        setattr(item, key, value)
    return name, Sequence([item])


def items(*groups: tuple[str, Sequence]) -> Dataset:
    item = Dataset()
    for name, sequence in groups:
        setattr(item, name, sequence)
    return item


@pytest.fixture
def enhanced(tmp_path: Path, make_slice: MakeSlice, phantom: np.ndarray) -> Callable[..., Path]:
    """Write frames out of order; each has a slope of its own, the other values are shared."""

    def make(folder: str = "scan", *, phases: tuple[int, ...] = (1,), compress: bool = False, **changes: Any) -> Path:
        order = [(phase, n) for phase in phases for n in (2, 0, 3, 1)]
        frames, pixels = [], []
        for phase, n in order:
            slope = 1 + n
            stored = np.round((phantom[n] * phase + 1024) / slope)
            pixels.append(stored.astype("<u2"))
            frames.append(
                items(
                    group("FrameContentSequence", TemporalPositionIndex=phase, FrameAcquisitionNumber=7),
                    group("PlanePositionSequence", ImagePositionPatient=[-100, -90, 2.5 * n]),
                    group(
                        "PixelValueTransformationSequence", RescaleSlope=slope, RescaleIntercept=-1024, RescaleType="HU"
                    ),
                )
            )
        one = make_slice(
            phantom[0], SOPClassUID=EnhancedCTImageStorage, NumberOfFrames=len(order), PixelData=b"", PixelSpacing=None,
            ImagePositionPatient=None, ImageOrientationPatient=None, RescaleSlope=None, RescaleIntercept=None,
            **changes,
        )  # fmt: skip
        one.PixelData = np.stack(pixels).tobytes()
        one["PixelData"].VR = "OW"
        one.SharedFunctionalGroupsSequence = Sequence(
            [
                items(
                    group("PixelMeasuresSequence", PixelSpacing=[0.75, 0.75], SliceThickness=2.5),
                    group("PlaneOrientationSequence", ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
                    group("CTImageFrameTypeSequence", FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]),
                    group("CTReconstructionSequence", ConvolutionKernel="B30f"),
                )
            ]
        )
        one.PerFrameFunctionalGroupsSequence = Sequence(frames)
        if compress:
            one.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
        (tmp_path / folder).mkdir()
        one.save_as(tmp_path / folder / "x.dcm", enforce_file_format=True)
        return tmp_path / folder

    return make


@pytest.mark.parametrize("compress", [False, True])
def test_frames_are_slices(enhanced: Callable[..., Path], phantom: np.ndarray, compress: bool) -> None:
    series = read_dicom_series(enhanced(compress=compress))
    for n in range(4):
        np.testing.assert_allclose(series.hu[n], np.maximum(phantom[n], -1024), atol=0.5 * (1 + n))
    np.testing.assert_allclose(
        series.volume.affine, [[0.75, 0, 0, -100], [0, 0.75, 0, -90], [0, 0, 2.5, 0], [0, 0, 0, 1]]
    )
    assert len(set(series.slice_uids)) == 4
    assert [h.ReferencedFrameNumber for h in series.headers] == [2, 4, 1, 3]
    assert all(h.AcquisitionNumber == 7 and h.ConvolutionKernel == "B30f" for h in series.headers)


def test_phases_of_frames(enhanced: Callable[..., Path], phantom: np.ndarray) -> None:
    folder = enhanced(phases=(1, 0))
    with pytest.raises(ReadError, match=r"2 scan phases .* by TemporalPositionIdentifier: 0 \(4 slices\), 1 \(4"):
        read_dicom_series(folder)
    np.testing.assert_allclose(read_dicom_series(folder, phase="0").hu, 0, atol=2)
    np.testing.assert_allclose(read_dicom_series(folder, phase="1").hu[0], phantom[0], atol=0.5)


def test_a_series_derived_from_frames(enhanced: Callable[..., Path], tmp_path: Path) -> None:
    series = read_dicom_series(enhanced())
    written = write_dicom_series(series.volume, like=series, folder=tmp_path / "out")
    files = [pydicom.dcmread(path) for path in written.mean]
    assert len({file.SOPInstanceUID for file in files}) == 4
    for file, frame, n in zip(files, (2, 4, 1, 3), range(4), strict=True):
        (source,) = file.SourceImageSequence
        assert source.ReferencedSOPClassUID == EnhancedCTImageStorage and source.ReferencedFrameNumber == frame
        assert source.ReferencedSOPInstanceUID == series.headers[0].SOPInstanceUID
        assert [float(v) for v in file.ImagePositionPatient] == [-100, -90, 2.5 * n]
        assert "PerFrameFunctionalGroupsSequence" not in file and "NumberOfFrames" not in file
        assert "ReferencedFrameNumber" not in file
    again = read_dicom_series(tmp_path / "out")
    np.testing.assert_array_equal(again.hu, np.round(series.hu))


def test_frames_that_are_not_described(enhanced: Callable[..., Path]) -> None:
    folder = enhanced()
    dataset = pydicom.dcmread(folder / "x.dcm")
    del dataset.PerFrameFunctionalGroupsSequence[0]
    dataset.save_as(folder / "x.dcm")
    with pytest.raises(ReadError, match="says that it holds 4 frames and describes 3"):
        read_dicom_series(folder)
    del dataset.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence
    dataset.NumberOfFrames = 3
    dataset.save_as(folder / "x.dcm")
    with pytest.raises(ReadError, match="frame 1: it lacks ImagePositionPatient"):
        read_dicom_series(folder)


def test_frames_that_are_cut_off(enhanced: Callable[..., Path]) -> None:
    folder = enhanced()
    content = (folder / "x.dcm").read_bytes()
    (folder / "x.dcm").write_bytes(content[:-600])
    with pytest.raises(ReadError, match="cut off"):
        read_dicom_series(folder)


def test_a_map_of_the_spread_of_frames(enhanced: Callable[..., Path], tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    from derived import Result

    series = read_dicom_series(enhanced(FrameOfReferenceUID="1.2.3.9"))
    result = Result(series.attenuation(), series.attenuation().abs())
    written = write_dicom_series(
        result, like=series, folder=tmp_path / "out", options=DicomOptions(parametric_map=True)
    )
    assert written.parametric_map is not None and pydicom.dcmread(written.parametric_map).NumberOfFrames == 4


def test_frames_count_as_they_lie_in_the_file(enhanced: Callable[..., Path]) -> None:
    """They are written in the order 2, 0, 3, 1 of their places."""
    headers = read_dicom_series(enhanced(InstanceNumber=17)).headers
    assert [header.InstanceNumber for header in headers] == [2, 4, 1, 3]
    assert [header.ReferencedFrameNumber for header in headers] == [2, 4, 1, 3]
