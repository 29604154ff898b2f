"""Folders that are no CT series: the message says what they are and which command to use."""

from __future__ import annotations

import shutil
from pathlib import Path

import pydicom
import pytest
from typer.testing import CliRunner

from deft_ct.cli.app import app
from deft_ct.io import read_dicom_series, sample_series_path
from deft_ct.io.dicom_read import read_all_dicom_series
from deft_ct.io.errors import ReadError


def _copies(root: Path, names: list[str]) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
        for path in sorted(sample_series_path().glob("*.dcm"))[:2]:
            shutil.copy(path, root / name / f"{path.stem}.IMA")
    return root


def test_root_of_the_aapm_challenge(tmp_path: Path) -> None:
    root = _copies(tmp_path / "aapm", ["L067/full_1mm", "L067/quarter_1mm", "L506/full_1mm"])
    with pytest.raises(ReadError, match=r"3 series of the AAPM 2016.*L067/full_1mm, .*--data aapm:"):
        read_dicom_series(root)
    assert len(read_dicom_series(root / "L067" / "full_1mm")) == 2
    shown = CliRunner().invoke(app, ["reconstruct", str(root), "--out", str(tmp_path / "out")])
    assert shown.exit_code == 2 and "name one of these folders" in shown.stderr
    assert "there 3 times" not in shown.stderr


def test_collection_of_tcia(tmp_path: Path) -> None:
    root = _copies(tmp_path, ["L004/a/1.0-Full Dose Images-1", "L004/b/2.0-Low Dose Images-2"])
    with pytest.raises(ReadError, match=r"2 series of TCIA's LDCT.*--data ldct:"):
        read_dicom_series(root)


def test_copies_in_other_folders(tmp_path: Path) -> None:
    root = _copies(tmp_path, ["one", "two"])
    series = read_dicom_series(root)
    assert len(series) == 2 and any("left out 2 identical copies of slices" in note for note in series.notes)
    image = pydicom.dcmread(root / "two" / "006.IMA")
    image.PixelData = bytes(len(image.PixelData))
    image.save_as(root / "two" / "006.IMA")
    with pytest.raises(ReadError, match=r"there 2 times with .*: in the folders .*/one, .*/two; name one of them"):
        read_dicom_series(root)


def test_raw_projections(tmp_path: Path) -> None:
    header = pydicom.dcmread(sample_series_path() / "006.dcm")
    del header.PixelSpacing
    header.add_new((0x7029, 0x0010), "LO", "CTPD")
    header.add_new((0x7029, 0x1010), "US", 64)
    header.save_as(tmp_path / "1.dcm")
    for read in (read_dicom_series, read_all_dicom_series):
        with pytest.raises(ReadError, match=r"1 x raw projection of a scanner.*`deft-ct reconstruct --projections"):
            read(tmp_path)
    shutil.copy(sample_series_path() / "007.dcm", tmp_path)
    assert "skipped 1 x raw projection of a scanner (DICOM-CT-PD)" in read_dicom_series(tmp_path).notes
