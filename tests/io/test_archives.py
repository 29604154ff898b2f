"""Tar archives and archives inside of archives, sound, damaged and hostile."""

from __future__ import annotations

import io
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deft_ct.io import read_dicom_series
from deft_ct.io.archives import unpacked
from deft_ct.io.errors import ReadError
from deft_ct.io.limits import LIMIT_VARIABLE, Limits

MakeSeries = Callable[..., list[Path]]


@pytest.fixture
def scan(tmp_path: Path, make_series: MakeSeries) -> Path:
    make_series(tmp_path / "scan" / "deep")
    (tmp_path / "scan" / "README.txt").write_text("hello")
    return tmp_path / "scan"


def tarred(folder: Path, target: Path, mode: str) -> Path:
    with tarfile.open(target, mode) as archive:  # type: ignore[call-overload]
        archive.add(folder, "study")
    return target


def zipped(target: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return target


def in_zip(folder: Path, target: Path) -> Path:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return zipped(target, {str(path.relative_to(folder)): path.read_bytes() for path in files})


def refusal(source: Path) -> str:
    with pytest.raises(ReadError) as caught:
        read_dicom_series(source)
    assert caught.value.path == str(source) and tempfile.gettempdir() not in caught.value.problem
    return caught.value.problem


@pytest.mark.parametrize(
    ("name", "mode"),
    [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.TGZ", "w:gz"), ("a.tar.bz2", "w:bz2"), ("a.txz", "w:xz")],
)
def test_tar_archives(scan: Path, tmp_path: Path, phantom: np.ndarray, name: str, mode: str) -> None:
    series = read_dicom_series(tarred(scan, tmp_path / name, mode))
    np.testing.assert_array_equal(series.hu, phantom[:4])
    assert series.source == tmp_path / name and series.file_of(series.headers[0]) == str(tmp_path / name)
    assert series.notes == ("skipped 1 file(s) that are not DICOM: README.txt",)


def test_archives_in_archives(scan: Path, tmp_path: Path, phantom: np.ndarray) -> None:
    inner = in_zip(scan, tmp_path / "inner.zip").read_bytes()
    packed = tarred(scan, tmp_path / "inner.tar.gz", "w:gz").read_bytes()
    for n, members in enumerate(({"a/b.zip": inner}, {"c.tar.gz": packed}, {"notes.txt": b"x", "a.ZIP": inner})):
        series = read_dicom_series(zipped(tmp_path / f"{n}.zip", members))
        np.testing.assert_array_equal(series.hu, phantom[:4])
    twice = zipped(tmp_path / "twice.zip", {"a.zip": inner, "b.zip": inner})
    assert "left out 4 identical copies of slices" in " ".join(read_dicom_series(twice).notes)
    deep = inner
    for n in range(3):
        deep = zipped(tmp_path / f"deep{n}.zip", {"a.zip": deep}).read_bytes()
    assert len(read_dicom_series(tmp_path / "deep1.zip")) == 4
    assert "nested deeper than 3 levels" in refusal(tmp_path / "deep2.zip")


def test_damage_is_named(scan: Path, tmp_path: Path) -> None:
    content = tarred(scan, tmp_path / "a.tar.gz", "w:gz").read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(content[: len(content) // 2])
    assert "cannot be read as an archive" in refusal(tmp_path / "a.tar.gz")
    inner = in_zip(scan, tmp_path / "inner.zip").read_bytes()
    (tmp_path / "inner.zip").write_bytes(inner[: len(inner) // 2])
    assert "is a zip archive that is cut off or damaged" in refusal(tmp_path / "inner.zip")
    outer = zipped(tmp_path / "outer.zip", {"in/a.zip": inner[: len(inner) // 2]})
    assert refusal(outer).startswith("member in/a.zip: ")


def test_a_damaged_slice_is_named_by_its_member(scan: Path, tmp_path: Path) -> None:
    path = scan / "deep" / "008.dcm"
    path.write_bytes(path.read_bytes()[:400])
    assert refusal(tarred(scan, tmp_path / "a.tar", "w")).startswith("member study/deep/008.dcm: it has no pixel data")


def test_names_that_lead_out_stay_inside(scan: Path, tmp_path: Path, phantom: np.ndarray) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for n, path in enumerate(sorted((scan / "deep").iterdir())):
            info = tarfile.TarInfo(("../../evil.dcm", "/evil1.dcm", "a/../../e.dcm", "x\n\x1b.dcm")[n])
            info.size = path.stat().st_size
            archive.addfile(info, io.BytesIO(path.read_bytes()))
        link = tarfile.TarInfo("link.dcm")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    np.testing.assert_array_equal(read_dicom_series(tmp_path / "a.tar").hu, phantom[:4])
    assert not list(tmp_path.rglob("*evil*")) and not list(tmp_path.parent.glob("*evil*"))


def test_two_members_of_one_name(scan: Path, tmp_path: Path) -> None:
    path = scan / "deep" / "003.dcm"
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(path, "a.dcm")
        archive.add(path, "a.dcm")
    assert "2 members called a.dcm" in refusal(tmp_path / "a.tar")


def test_bombs_end_before_the_disk_is_full(scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = (scan / "deep" / "003.dcm").read_bytes() + bytes(2**22)
    (scan / "deep" / "003.dcm").write_bytes(large)
    monkeypatch.setenv(LIMIT_VARIABLE, str(2**20 / 2**30))
    assert "inflates to more than" in refusal(tarred(scan, tmp_path / "a.tar.gz", "w:gz"))
    assert "inflates to more than" in refusal(
        zipped(tmp_path / "b.zip", {"a.zip": in_zip(scan, tmp_path / "c.zip").read_bytes()})
    )


def test_nothing_is_left_behind(scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    read_dicom_series(tarred(scan, tmp_path / "a.tar.gz", "w:gz"))
    (tmp_path / "a.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(ReadError):
        read_dicom_series(tmp_path / "a.tar.gz")
    assert not list((tmp_path / "temporary").iterdir())


def test_encrypted_members_are_said_to_be_so(tmp_path: Path, scan: Path) -> None:
    target = zipped(tmp_path / "x.zip", {"a.dcm": next(scan.rglob("*.dcm")).read_bytes()})
    content = bytearray(target.read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + place] |= 1
    target.write_bytes(bytes(content))
    with pytest.raises(ReadError, match=r"member a\.dcm is encrypted; unpack the archive with its password"):
        read_dicom_series(target)


def test_members_of_archives_in_archives_are_counted(
    tmp_path: Path, scan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = zipped(tmp_path / "in.zip", {path.name: path.read_bytes() for path in scan.rglob("*.dcm")})
    outer = zipped(tmp_path / "x.zip", {"in.zip": inner.read_bytes(), "note.txt": b"hello"})
    for most, sound in ((6, True), (5, False)):  # the archive, its four slices, and the note
        monkeypatch.setattr("deft_ct.io.archives.current_limits", lambda most=most: Limits(members=most))
        if sound:
            assert len(read_dicom_series(outer)) == 4
        else:
            with pytest.raises(ReadError, match="it holds more than 5 members; unpack the study"):
                read_dicom_series(outer)


def test_an_archive_inside_is_not_kept(tmp_path: Path, scan: Path) -> None:
    inner = zipped(tmp_path / "in.zip", {path.name: path.read_bytes() for path in scan.rglob("*.dcm")})
    outer = zipped(tmp_path / "x.zip", {"deep/er/in.zip": inner.read_bytes()})
    with unpacked(outer) as folder:
        found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        assert found == [f"deep/er/in.zip/{path.name}" for path in sorted(scan.rglob("*.dcm"))]
    assert not folder.exists()
