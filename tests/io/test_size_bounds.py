"""Sizes at which a file, a member of an archive or a picture is just read, and one byte more that is refused."""

from __future__ import annotations

import io
import logging
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from deft_ct.ct.volume import Volume
from deft_ct.io import dicom_stream, pictures, read_nifti, write_nifti, zip_members
from deft_ct.io.codestreams import declared_size
from deft_ct.io.dicom_stream import peek_series_uid, read_stream
from deft_ct.io.errors import ReadError
from deft_ct.io.limits import Limits
from deft_ct.io.pictures import read_picture


def limited(monkeypatch: pytest.MonkeyPatch, module: Any, **limits: int) -> None:
    """Other limits in one module."""
    monkeypatch.setattr(module, "current_limits", lambda: Limits(**limits))


@pytest.fixture
def image(tmp_path: Path, make_slice: Callable[..., Dataset]) -> Path:
    """A file of one CT image of 64 x 64 pixels."""
    make_slice(np.zeros((64, 64))).save_as(tmp_path / "x.dcm", enforce_file_format=True)
    return tmp_path / "x.dcm"


def test_a_file_with_its_pixels(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = image.stat().st_size

    def read() -> Dataset:
        with image.open("rb") as stream:
            return read_stream(stream, size, image, pixels=True)

    limited(monkeypatch, dicom_stream, modest_bytes=size + 1000)  # pydicom reads the beginning more than once
    assert len(read().PixelData) == 2 * 64 * 64
    limited(monkeypatch, dicom_stream, modest_bytes=size - 1)
    with pytest.raises(ReadError, match=r"it takes 0 MiB; at most 0 MiB are read of one CT image"):
        read()


def test_a_header_takes_a_sixteenth(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 16 x 8 KiB a header takes 8 KiB, a long comment among it."""
    whole = pydicom.dcmread(image)

    def read(length: int) -> Dataset:
        whole.ImageComments = "x" * length
        whole.save_as(image)
        with image.open("rb") as stream:
            return read_stream(stream, image.stat().st_size, image, pixels=False)

    limited(monkeypatch, dicom_stream, modest_bytes=16 * 8192)
    assert "PixelData" not in read(6000) and Path(read(6000).filename) == image
    for length in (8192, 9000):
        with pytest.raises(ReadError, match="more data beside the pixels than any CT image has"):
            read(length)


def test_a_deflated_data_set(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pydicom.dcmread(image)
    plain = io.BytesIO()
    whole.save_as(plain)
    inside = len(plain.getvalue()) - 144 - whole.file_meta.FileMetaInformationGroupLength
    whole.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    whole.save_as(image)

    def read() -> Dataset:
        with image.open("rb") as stream:
            return read_stream(stream, image.stat().st_size, image, pixels=False)

    limited(monkeypatch, dicom_stream, modest_bytes=max(inside, 16 * (image.stat().st_size + 1000)))
    assert read().Rows == 64
    big = pydicom.dcmread(image)
    big.PixelData = bytes(2 * 512 * 512)
    big.Rows = big.Columns = 512
    big.save_as(image)
    inside += 2 * (512 * 512 - 64 * 64)
    for most, sound in ((inside, True), (inside - 1, False)):
        limited(monkeypatch, dicom_stream, modest_bytes=most)
        if sound:
            assert read().Rows == 512
        else:
            with pytest.raises(ReadError, match="deflated data set inflates to more than 1 MiB, which no CT image has"):
                read()


def test_the_series_of_a_damaged_file(image: Path) -> None:
    whole = image.read_bytes()
    place = whole.index(b"1.2.3.1\0")
    for length, expected in ((len(whole), "1.2.3.1"), (place + 4, None), (200, None)):
        stream = io.BytesIO(whole[:length])
        assert peek_series_uid(stream, length, image) == expected


def test_members_of_an_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("b", "a", "c/d"):
            archive.writestr(name, bytes(1000))
        archive.mkdir("empty")
    with zip_members.opened(path) as archive:
        members = zip_members.visible_members(archive)
        assert [info.filename for info in members] == ["a", "b", "c/d"]
        assert zip_members.read_start(archive, members[0], path, 7) == bytes(7)
        limited(monkeypatch, zip_members, modest_bytes=1000)
        assert len(zip_members.read_member(archive, members[0], path)) == 1000
        limited(monkeypatch, zip_members, modest_bytes=999)
        with pytest.raises(ReadError, match="member a declares 0 MiB; at most 0 MiB are read of one DICOM image"):
            zip_members.read_member(archive, members[0], path)
        limited(monkeypatch, zip_members, inflated_bytes=3000)
        zip_members.check_members(path, members)
        zip_members.check_members(path, [])
        limited(monkeypatch, zip_members, inflated_bytes=2999)
        with pytest.raises(ReadError, match=r"its DICOM members inflate to 0\.0 GiB; at most 0\.0 GiB"):
            zip_members.check_members(path, members)
        limited(monkeypatch, zip_members, modest_bytes=2999, inflation=10)
        with pytest.raises(ReadError, match=r"declares DICOM members of 2\.9 kiB but stores"):
            zip_members.check_members(path, members)
        with pytest.raises(ReadError, match="it holds 2 members called a, so that nobody knows"):
            zip_members.check_members(path, [members[0], members[1], members[0]])
    for most, sound in ((4, True), (3, False)):
        limited(monkeypatch, zip_members, members=most)
        if sound:
            with zip_members.opened(path) as archive:
                assert len(archive.infolist()) == 4
        else:
            with pytest.raises(ReadError, match="it holds 4 members; at most 3 are read"), zip_members.opened(path):
                pass


def test_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.png"
    Image.fromarray(np.zeros((5, 7, 3), np.uint8)).save(path)
    limited(monkeypatch, pictures, modest_bytes=5 * 7 * 4)
    assert (
        read_picture(path).size == (7, 5) and read_picture(path).mode == "RGB" and read_picture(path, "L").mode == "L"
    )
    limited(monkeypatch, pictures, modest_bytes=5 * 7 * 4 - 1)
    with pytest.raises(ReadError, match="declares 7 x 5 pixels, 0 MiB; at most 0 MiB are read"):
        read_picture(path)


def _jpeg(*segments: bytes) -> bytes:
    return b"\xff\xd8" + b"".join(segments)


def _segment(kind: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, kind, 2 + len(content)) + content


@pytest.mark.parametrize("kind", [*range(0xC0, 0xD0), 0xF7])
def test_each_frame_of_a_jpeg_says_its_size(kind: int) -> None:
    frame = struct.pack(">BHHB", 8, 300, 400, 1)
    other = struct.pack(">BHHB", 8, 5, 6, 1)
    content = _jpeg(_segment(0xE0, b"JFIF\0"), b"\xff", _segment(kind, frame), _segment(0xC3, other))
    assert declared_size(content) == ((5, 6) if kind in (0xC4, 0xC8, 0xCC) else (300, 400))
    with pytest.raises(ValueError, match="ends before it says its size"):
        declared_size(content[:20])
    for damaged in (b"\xfe\xc0\0\x08", struct.pack(">BBH", 0xFF, 0xC0, 1)):
        with pytest.raises(ValueError, match="a damaged marker before its size"):
            declared_size(_jpeg(damaged, frame))
    assert declared_size(_jpeg(struct.pack(">BBH", 0xFF, 0xE0, 2), _segment(0xC0, frame))) == (300, 400)


@pytest.mark.parametrize(("before", "found"), [(0, True), (4092, True), (4093, False)])
def test_a_jpeg_2000_may_lie_in_boxes(before: int, found: bool) -> None:
    content = bytes(before) + b"\xff\x4f\xff\x51" + struct.pack(">HH4I", 47, 0, 410, 320, 10, 20)
    assert declared_size(content) == ((300, 400) if found else None)
    with pytest.raises(ValueError, match="ends before"):
        declared_size(b"\xff\x4f\xff\x51" + bytes(10))
    assert declared_size(b"\0" * 64) is None, "RLE declares none"


def test_notes_and_names_of_nifti(tmp_path: Path) -> None:
    volume = Volume.from_spacing(np.arange(24.0).reshape(2, 3, 4), pixel_mm=0.5, z_mm=2.0)
    for length, kept in ((79, 79), (80, 79)):
        header: Any = nib.load(write_nifti(volume, tmp_path / "x.nii", note="n" * length)).header
        assert header["descrip"].item() == b"n" * kept
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
    assert header.get_xyzt_units()[0] == "mm" and header.get_data_dtype() == np.float32
    np.testing.assert_array_equal(read_nifti(write_nifti(volume, tmp_path / "X.NII.GZ")).hu, volume.hu)
    timed = nib.Nifti1Image(np.zeros((4, 3, 2), np.int16), np.eye(4))
    timed.header.set_xyzt_units("mm", "sec")
    nib.save(timed, tmp_path / "timed.nii")
    assert read_nifti(tmp_path / "timed.nii").hu.shape == (2, 3, 4)
    data = np.arange(24, dtype=np.int16).reshape(4, 3, 2)
    for shape in ((4, 3, 2), (4, 3, 2, 1), (4, 3, 2, 1, 1)):
        nib.save(nib.Nifti1Image(data.reshape(shape), np.diag([-1.0, -1.0, 1.0, 1.0])), tmp_path / "y.nii")
        assert read_nifti(tmp_path / "y.nii").hu.shape == (2, 3, 4)
    for shape in ((4, 3), (4, 3, 1, 2), (4, 3, 2, 1, 1)[:2]):
        nib.save(nib.Nifti1Image(np.zeros(shape, np.int16), np.eye(4)), tmp_path / "y.nii")
        with pytest.raises(ReadError, match="expected one 3D volume"):
            read_nifti(tmp_path / "y.nii")


def test_the_log_of_pydicom_is_quiet_only_while_a_file_is_read(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("pydicom")
    for before in (logging.NOTSET, logging.INFO):
        with caplog.at_level(before, logger="pydicom"):
            with pytest.raises(KeyError), dicom_stream.quiet_pydicom():
                assert logger.level == logging.ERROR
                raise KeyError
            assert logger.level == before
