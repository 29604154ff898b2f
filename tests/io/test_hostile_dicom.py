"""DICOM and zip files that nobody should trust: each ends in a ReadError with its name, or in a right result."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless

from deft_ct.io import read_all_dicom_series, read_dicom_series
from deft_ct.io.codestreams import declared_size
from deft_ct.io.dicom_write import check_derivable
from deft_ct.io.errors import ReadError
from deft_ct.io.limits import LIMIT_VARIABLE

MakeSeries = Callable[..., list[Path]]


def refused(source: Path, *, path: Path | None = None) -> ReadError:
    """The error of reading ``source``; it must name ``path``."""
    with pytest.raises(ReadError) as caught:
        read_dicom_series(source)
    assert caught.value.path == str(path or source)
    assert str(path or source) in str(caught.value)
    return caught.value


def zipped(target: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return target


# --- damage -------------------------------------------------------------------------------------------------------


def test_a_slice_that_is_cut_anywhere_is_named(tmp_path: Path, make_series: MakeSeries) -> None:
    """Every cut of a file, at a stride that meets every kind of place (240 cases)."""
    paths = make_series(tmp_path / "scan")
    before = read_dicom_series(tmp_path / "scan").hu
    whole = paths[1].read_bytes()
    for keep in range(0, len(whole), max(1, len(whole) // 240)):
        paths[1].write_bytes(whole[:keep])
        with pytest.raises(ReadError) as caught:
            read_dicom_series(tmp_path / "scan")
        assert caught.value.path == str(paths[1]), (keep, str(caught.value))
        error = caught.value
        assert paths[1].name in str(error), keep
        series, left_out = read_all_dicom_series(tmp_path / "scan", allow_gaps=True)
        assert [len(s) for s in series] == [3] and list(left_out) == [paths[1].name], keep
    paths[1].write_bytes(whole)
    np.testing.assert_array_equal(read_dicom_series(tmp_path / "scan").hu, before)


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bytes_end_in_one_family_of_errors(tmp_path: Path, make_series: MakeSeries, seed: int) -> None:
    """100 damaged files a seed: an error that names something given, or a volume of the right form."""
    rng = np.random.default_rng(seed)
    paths = make_series(tmp_path / "scan", SeriesNumber=3)
    whole = paths[1].read_bytes()
    header = len(whole) - 512
    for case in range(100):
        damaged = bytearray(whole)
        for place in rng.integers(128, header, rng.integers(1, 6)):
            damaged[place] = rng.integers(256)
        paths[1].write_bytes(damaged)
        try:
            series = read_dicom_series(tmp_path / "scan")
            check_derivable(series)
        except ReadError as error:
            assert Path(error.path).exists(), case
            continue
        assert series.volume.shape == (len(series), 16, 16) and np.isfinite(series.hu).all()


@pytest.mark.parametrize("seed", range(3))
def test_flipped_bytes_of_an_archive(tmp_path: Path, make_series: MakeSeries, seed: int) -> None:
    """Content is protected by checksums: a result is the right one."""
    rng = np.random.default_rng(seed)
    paths = make_series(tmp_path / "scan")
    whole = zipped(tmp_path / "whole.zip", {p.name: p.read_bytes() for p in paths}).read_bytes()
    before, target = read_dicom_series(tmp_path / "whole.zip").hu, tmp_path / "a.zip"
    for _ in range(50):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), rng.integers(1, 4)):
            damaged[place] = rng.integers(256)
        target.write_bytes(damaged)
        try:
            series = read_dicom_series(target)
        except ReadError as error:
            assert error.path == str(target)
            continue
        if len(series) == len(before):
            np.testing.assert_array_equal(series.hu, before)
        else:
            assert any("skipped" in note or "left out" in note for note in series.notes)


def test_a_damaged_file_of_another_series_is_only_noted(tmp_path: Path, make_series: MakeSeries) -> None:
    make_series(tmp_path / "scan" / "a")
    (other, *_) = make_series(tmp_path / "scan" / "b", SeriesInstanceUID="1.2.3.2", StudyDescription="SOMETHING")
    content = other.read_bytes()
    # A series number that overflows: the rest of the header can be read.
    place = content.index(b"\x20\x00\x13\x00IS")
    other.write_bytes(content[: place + 6] + b"\x06\x00" + b"1e9999" + content[place + 8 + content[place + 6] :])
    series = read_dicom_series(tmp_path / "scan", series_uid="1.2.3.1")
    assert any(other.name in note for note in series.notes)
    with pytest.raises(ReadError, match=other.name):
        read_dicom_series(tmp_path / "scan", series_uid="1.2.3.2")


def test_nested_sequences(tmp_path: Path, make_series: MakeSeries) -> None:
    (path,) = make_series(tmp_path / "scan", z=(0.0,))
    dataset = pydicom.dcmread(path)
    inner = Dataset()
    inner.CodeValue = "end"
    for _ in range(40):
        outer = Dataset()
        outer.ReferencedSeriesSequence = Sequence([inner])
        inner = outer
    dataset.ReferencedSeriesSequence = Sequence([inner])
    dataset.save_as(path)
    assert "nested" in str(refused(tmp_path / "scan", path=path))


def test_values_that_no_scanner_has(tmp_path: Path, make_series: MakeSeries) -> None:
    for n, changes in enumerate(
        (
            {"PixelSpacing": [1e12, 1e12]}, {"PixelSpacing": [1e-9, 1e-9]}, {"RescaleSlope": 1e30},
            {"ImagePositionPatient": [0, 0, 1e20]}, {"SliceThickness": 1e9},
        )
    ):  # fmt: skip
        (path,) = make_series(tmp_path / str(n), z=(0.0,), PixelData=b"\1\0" * 256, **changes)
        refused(tmp_path / str(n), path=path)


def test_more_pixels_than_the_header_says(tmp_path: Path, make_series: MakeSeries) -> None:
    (path,) = make_series(tmp_path / "scan", z=(0.0,))
    dataset = pydicom.dcmread(path)
    dataset.Rows = 8
    dataset.save_as(path)
    assert "512 bytes" in str(refused(tmp_path / "scan", path=path))


def test_what_would_fail_after_the_work_fails_before(tmp_path: Path, make_series: MakeSeries) -> None:
    paths = make_series(tmp_path / "scan", SeriesNumber=12)
    for path in paths:
        path.write_bytes(path.read_bytes().replace(b"\x20\x00\x11\x00IS\x02\x0012", b"\x20\x00\x11\x00IS\x04\x0012A "))
    with pytest.raises(ReadError, match=r"\.dcm: SeriesNumber is '12A'"):
        check_derivable(read_dicom_series(tmp_path / "scan"))
    paths = make_series(tmp_path / "none", SeriesInstanceUID=None)
    with pytest.raises(ReadError, match="lacks SeriesInstanceUID"):
        read_dicom_series(tmp_path / "none")


EVIL = "\x1b]0;owned\x07\x9b31m"

# --- other people's pixels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["DICOMDIR", "dicomdir"])
def test_a_folder_called_dicomdir_is_a_folder(tmp_path: Path, make_series: MakeSeries, name: str) -> None:
    make_series(tmp_path / name, z=(0.0, 2.5))
    make_series(tmp_path / "neighbour", SeriesInstanceUID="1.2.3.8")
    series = read_dicom_series(tmp_path / name)
    assert len(series) == 2 and series.series_uid == "1.2.3.1"


def test_members_of_one_name(tmp_path: Path, make_series: MakeSeries) -> None:
    paths = make_series(tmp_path / "scan", z=(0.0, 2.5))
    target = tmp_path / "a.zip"
    with zipfile.ZipFile(target, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        for path in paths:
            archive.write(path, "same.dcm")
    assert "2 members called same.dcm" in str(refused(target))


def test_control_characters_stay_out_of_messages(tmp_path: Path, make_series: MakeSeries) -> None:
    for n, uid in enumerate(("1.2.8", "1.2.9")):
        changes = {"ConvolutionKernel": "\x1b[2J", "SeriesInstanceUID": uid, "SpecificCharacterSet": "ISO_IR 192"}
        make_series(tmp_path / "scan" / str(n), SeriesDescription=f"{EVIL}\u202ex", **changes)
    make_series(tmp_path / "scan" / "mr", z=(0.0,), Modality="MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.4")
    (tmp_path / "scan" / "\x1b[5mtext").write_text("hello")
    with pytest.raises(ReadError) as caught:
        read_dicom_series(tmp_path / "scan")
    notes = read_dicom_series(tmp_path / "scan", series_uid="1.2.9").notes
    for text in (str(caught.value), *notes):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text), text
    assert any("[5mtext" in note for note in notes) and "owned" in str(caught.value)


# --- bombs --------------------------------------------------------------------------------------------------------

_CHILD = """
import resource, sys, time
from deft_ct.io import read_dicom_series
from deft_ct.io.errors import ReadError
import pydicom.pixels, numpy
start = int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (start + 600 * 2**20,) * 2)
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before, began = peak(), time.monotonic()
try:
    read_dicom_series(sys.argv[1])
except ReadError as error:
    print(f"refused {peak() - before:.0f} MiB {time.monotonic() - began:.1f} s: {error}")
"""


def in_a_child(source: Path) -> str:
    """Read a bomb with 600 MiB of address space left; returns what was said."""
    if not sys.platform.startswith("linux"):
        pytest.skip("limits of memory are set as Linux does")
    child = subprocess.run(
        [sys.executable, "-c", _CHILD, str(source)], capture_output=True, text=True, timeout=120, env={**os.environ}
    )
    assert child.returncode == 0, child.stderr
    found = re.match(r"refused (\d+) MiB ([\d.]+) s: (.*)", child.stdout)
    assert found, child.stdout
    assert int(found[1]) < 450 and float(found[2]) < 15, child.stdout
    assert str(source) in found[3] or source.is_dir()
    return found[3]


def deflated(blocks: int, head: bytes = b"") -> bytes:
    """``head`` and ``blocks`` MiB of zeros, raw deflate."""
    machine = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    zeros = bytes(2**20)
    return machine.compress(head) + b"".join(machine.compress(zeros) for _ in range(blocks)) + machine.flush()


def bomb(path: Path, blocks: int) -> Path:
    """A deflated DICOM file."""
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path)
    content = path.read_bytes()
    start = 132 + 12 + int.from_bytes(content[140:144], "little")
    body = zlib.decompress(content[start:], -zlib.MAX_WBITS)
    place = body.index(b"\xe0\x7f\x10\x00OW")
    head = body[: place + 8] + (blocks * 2**20).to_bytes(4, "little")
    path.write_bytes(content[:start] + deflated(blocks, head))
    return path


def test_a_deflated_file_that_inflates_without_end(tmp_path: Path, make_series: MakeSeries) -> None:
    (path,) = make_series(tmp_path / "scan", z=(0.0,))
    bomb(path, 1500)
    assert path.stat().st_size < 2**21
    assert "inflates to more than 256 MiB" in in_a_child(tmp_path / "scan")


def test_a_sound_deflated_file(tmp_path: Path, make_series: MakeSeries, phantom: np.ndarray) -> None:
    (path,) = make_series(tmp_path / "scan", z=(0.0,))
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path)
    np.testing.assert_array_equal(read_dicom_series(tmp_path / "scan").hu[0], phantom[0])


def stretched(path: Path, size: int) -> bytes:
    """A DICOM file whose pixel data goes on with zeros to ``size`` bytes."""
    content = path.read_bytes()
    return content + bytes(size - len(content))


def test_zip_bombs(tmp_path: Path, make_series: MakeSeries) -> None:
    paths = make_series(tmp_path / "scan")
    large = stretched(paths[0], 300 * 2**20)
    one = zipped(tmp_path / "one.zip", {"a.dcm": large})
    assert "expansion" in in_a_child(one)
    many = zipped(tmp_path / "many.zip", {f"{n}.dcm": large[: 100 * 2**20] for n in range(5)})
    assert "expansion" in in_a_child(many)


def test_members_that_are_not_dicom_are_not_inflated(tmp_path: Path, make_series: MakeSeries) -> None:
    paths = make_series(tmp_path / "scan")
    members = {p.name: p.read_bytes() for p in paths} | {"movie.bin": bytes(400 * 2**20)}
    began = time.monotonic()
    series = read_dicom_series(zipped(tmp_path / "a.zip", members))
    assert len(series) == 4 and series.notes == ("skipped 1 file(s) that are not DICOM: movie.bin",)
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_inflate_without_a_limit(tmp_path: Path, make_series: MakeSeries, method: int) -> None:
    (path,) = make_series(tmp_path / "scan", z=(0.0,))
    target = zipped(tmp_path / "a.zip", {"a.dcm": path.read_bytes()}, method)
    assert "only stored and deflated" in str(refused(target))


def test_the_limit_can_be_raised(tmp_path: Path, make_series: MakeSeries, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = make_series(tmp_path / "scan", z=(0.0,))
    source = tmp_path / "a.zip"
    zipped(source, {"a.dcm": path.read_bytes()})
    monkeypatch.setenv(LIMIT_VARIABLE, str(1000 / 2**30))
    assert LIMIT_VARIABLE in str(refused(source))
    monkeypatch.setenv(LIMIT_VARIABLE, "1")
    assert len(read_dicom_series(source)) == 1


def test_a_length_that_asks_for_4_gib(tmp_path: Path, make_series: MakeSeries) -> None:
    (path,) = make_series(tmp_path / "scan", z=(0.0,), StudyDescription="X" * 10)
    content = path.read_bytes()
    place = content.index(b"\x28\x00\x02\x00US")
    path.write_bytes(content[:place] + b"\x08\x00\x99\x99OB\0\0" + (2**32 - 16).to_bytes(4, "little") + content[place:])
    in_a_child(tmp_path / "scan")


def test_pixels_that_are_declared_and_not_there(tmp_path: Path, make_series: MakeSeries) -> None:
    (path,) = make_series(tmp_path / "scan", z=(0.0,), Rows=65535, Columns=65535, PixelData=b"\0" * 512)
    assert "65535 x 65535" in in_a_child(tmp_path / "scan")
    assert path.is_file()


def test_the_size_inside_of_a_compressed_image(tmp_path: Path, make_series: MakeSeries) -> None:
    pytest.importorskip("openjpeg")
    (path,) = make_series(tmp_path / "scan", z=(0.0,))
    dataset = pydicom.dcmread(path)
    dataset.PixelData = np.kron(dataset.pixel_array, np.ones((4, 4), np.uint16)).tobytes()
    dataset.Rows = dataset.Columns = 64
    dataset.compress(JPEG2000Lossless, encoding_plugin="pylibjpeg", generate_instance_uid=False)
    frame = next(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1))
    assert declared_size(frame) == (64, 64)
    place = dataset.PixelData.index(b"\xff\x4f\xff\x51") + 8
    huge = (40000).to_bytes(4, "big") * 2
    dataset.PixelData = dataset.PixelData[:place] + huge + dataset.PixelData[place + 8 :]
    dataset.save_as(path)
    assert "40000 x 40000" in in_a_child(tmp_path / "scan")


def test_the_size_inside_of_a_jpeg() -> None:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.zeros((24, 40), np.uint8)).save(buffer, "JPEG")
    assert declared_size(buffer.getvalue()) == (24, 40)
    assert declared_size(b"\0" * 64) is None, "RLE"
    for cut in (3, 10, 30):
        with pytest.raises(ValueError, match="compressed image"):
            declared_size(buffer.getvalue()[:cut])


# --- the corpus ---------------------------------------------------------------------------------------------------

ACCEPTED = {"dicom_series_number_text", "train_one_bad_nifti"}
"""Cases of which the images themselves can be read."""


@pytest.mark.data
def test_the_hostile_corpus(data_root: Path) -> None:
    root = data_root / "hostile"
    if not root.is_dir():
        pytest.skip(f"no {root}")
    cases = [*root.glob("zip_*"), *root.glob("dicom_*"), *root.glob("train_*")]
    cases += [p / "case" for p in (root / "fuzz").glob("*dicom*")]
    cases += list((root / "fuzz").glob("*zip*/case/*.zip"))
    assert len(cases) >= 20
    for case in cases:
        began = time.monotonic()
        try:
            series = read_dicom_series(case)
            assert np.isfinite(series.hu).all() and 1e-3 <= series.pixel_mm <= 100
            assert case.parent != root or case.name in ACCEPTED, case
            check_derivable(series)
        except ReadError as error:
            assert str(case) in error.path, case
        assert time.monotonic() - began < 15, case
    with pytest.raises(ReadError, match="12A"):
        check_derivable(read_dicom_series(root / "dicom_series_number_text"))
