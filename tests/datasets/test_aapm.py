"""AAPM 2016 in both published folder layouts, made here of tiny DICOM files with the challenge's file names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from deft_ct.datasets.aapm import AAPMChallenge
from deft_ct.io import sample_series_path


def write_slices(folder: Path, patient: str, value: int, suffix: str = ".IMA", slices: int = 3) -> None:
    """Slices whose file names sort against their position, as those of the challenge may."""
    folder.mkdir(parents=True)
    template = pydicom.dcmread(sample_series_path() / "006.dcm")
    for n in range(slices):
        template.Rows = template.Columns = 8
        template.PixelData = np.full((8, 8), 1000 + value + n, np.uint16).tobytes()
        template.SOPInstanceUID = f"1.2.3.{value}.{n}"
        template.file_meta.MediaStorageSOPInstanceUID = template.SOPInstanceUID
        template.SeriesInstanceUID = f"1.2.3.{value}"
        template.ImagePositionPatient = [0, 0, float(n)]
        template.RescaleIntercept = -1024
        name = f"{patient}_FD_1_1.CT.0001.{slices - n:04d}.2015.12.22.18.09.40.840353.358074219{suffix}"
        template.save_as(folder / name)


@pytest.fixture
def older(tmp_path: Path) -> Path:
    for n, name in enumerate(("full_1mm", "quarter_1mm", "full_3mm", "full_1mm_sharp")):
        write_slices(tmp_path / "old" / "L067" / name, "L067", 10 * n)
    write_slices(tmp_path / "old" / "L506" / "full_1mm", "L506", 100, ".ima")
    return tmp_path / "old"


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    root = tmp_path / "new" / "Training_Image_Data"
    for n, (kernel, dose, leaf) in enumerate(
        (
            ("1mm B30", "FD_1mm", "full_1mm"),
            ("1mm B30", "QD_1mm", "quarter_1mm"),
            ("1mm D45", "FD_1mm", "full_1mm_sharp"),
            ("3mm D45", "QD_3mm", "quarter_3mm"),
        )
    ):
        write_slices(root / kernel / dose / "L067" / leaf, "L067", 10 * n, ".dcm" if n == 1 else ".IMA")
    return tmp_path / "new"


def first_hu(data: AAPMChallenge, patient: str = "L067") -> float:
    return float(data.series(patient).hu[0, 0, 0])


def test_older_layout(older: Path) -> None:
    assert first_hu(AAPMChallenge(older)) == -24
    assert first_hu(AAPMChallenge(str(older), "quarter")) == -14  # type: ignore[arg-type]
    assert first_hu(AAPMChallenge(older, thickness_mm=3)) == -4
    assert first_hu(AAPMChallenge(older, kernel="D45")) == 6
    assert AAPMChallenge(older).patients() == ("L067", "L506")
    assert AAPMChallenge(older, "quarter").patients() == ("L067",)


def test_newer_layout(newer: Path) -> None:
    assert first_hu(AAPMChallenge(newer)) == -24
    assert first_hu(AAPMChallenge(newer, "quarter")) == -14
    assert first_hu(AAPMChallenge(newer, kernel="D45")) == -4
    assert first_hu(AAPMChallenge(newer, "quarter", 3, "D45")) == 6


def test_order_is_by_position_not_by_file_name(older: Path) -> None:
    np.testing.assert_array_equal(AAPMChallenge(older).series("L067").hu[:, 0, 0], [-24, -23, -22])


def test_what_is_refused(older: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no series of L506 with quarter dose, 1 mm, B30.*L506/full_1mm"):
        AAPMChallenge(older, "quarter").series("L506")
    with pytest.raises(FileNotFoundError, match="it has none"):
        AAPMChallenge(older).series("L096")
    with pytest.raises(ValueError, match="unknown patient 'L999'"):
        AAPMChallenge(older).folder("L999")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        AAPMChallenge(tmp_path / "none")
    with pytest.raises(ValueError, match="expected dose"):
        AAPMChallenge(older, "half")  # type: ignore[arg-type]
    write_slices(older / "copy" / "L506" / "full_1mm", "L506", 200)
    with pytest.raises(ValueError, match="2 folders fit L506"):
        AAPMChallenge(older).series("L506")


def test_slices_of_patients(older: Path) -> None:
    data = AAPMChallenge(older)
    assert data.name == "aapm:full_1mm_B30" and AAPMChallenge(older, "quarter").name == "aapm:quarter_1mm_B30"
    found = data.slices(["L067", "L506"], split="test", every=2)
    assert (found.name, found.split, found.every, found.limit) == (data.name, "test", 2, None)
    assert [(s.group, s.index, s.position) for s in found] == [("L067", 0, 0), ("L067", 2, 2), ("L506", 1, 4)]
    assert [float(s.hu.mean()) for s in found] == [-24, -22, 77]
    assert [s.group for s in data.slices(["L067", "L506"], limit=2)] == ["L067", "L506"]
