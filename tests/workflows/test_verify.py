"""A finished result is verified; whatever was changed in it, or comes out differently, is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from seeded_sampler import seeded_deft
from typer.testing import CliRunner

from deft_ct.cli import app
from deft_ct.io import Chosen, read_dicom_series, sample_series_path, write_dicom_series
from deft_ct.workflows.reconstruct_series import SparseView, reconstruct_series
from deft_ct.workflows.series_output import Output, file_sha256
from deft_ct.workflows.verify import verify_series

SETTINGS = SparseView(compare=("fbp",), views=12, samples=2, size=32, photons=1e4)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("verify") / "out"
    with seeded_deft():
        reconstruct_series(sample_series_path(), out, SETTINGS, chosen=Chosen(slices=(2, 6)))
    return out


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "out"))


def test_a_sound_result_is_the_same_again(made: Path) -> None:
    with seeded_deft():
        for number in (None, 1, 5):
            found = verify_series(made, slice_number=number)
            assert found.problems == () and found.slice_number == (number or 3) and found.files == 4
            assert set(found.largest_hu) == {
                "mean.nii.gz", "spread.nii.gz", f"dicom/mean/{found.slice_number:04d}.dcm",
                f"dicom/spread/{found.slice_number:04d}.dcm",
            }  # fmt: skip
            assert found.largest_hu["mean.nii.gz"] < 0.05 and max(found.largest_hu.values()) < 0.6


def test_another_method_of_the_same_name_is_found(made: Path) -> None:
    with seeded_deft(shift=2e-4):  # 10 HU
        found = verify_series(made)
        assert verify_series(made, tolerance_hu=20).problems == ()
    assert found.largest_hu["mean.nii.gz"] == pytest.approx(10, abs=0.2)
    assert len(found.problems) == 2 and "mean.nii.gz: slice 3 differs by up to 1" in found.problems[0]


def change_nifti(out: Path) -> None:
    image = nibabel.load(out / "mean.nii.gz")
    data = np.asarray(image.dataobj).copy()
    data[4, 4, 2] += 30
    nibabel.save(nibabel.Nifti1Image(data, image.affine), out / "mean.nii.gz")


def change_and_hide(out: Path) -> None:
    change_nifti(out)
    record = json.loads((out / "run.json").read_text())
    record["files"]["mean.nii.gz"] = file_sha256(out / "mean.nii.gz")
    (out / "run.json").write_text(json.dumps(record))


def change_dicom(out: Path) -> None:
    path = out / "dicom" / "mean" / "0003.dcm"
    image = pydicom.dcmread(path)
    image.RescaleIntercept = "-1000"
    image.save_as(path)


def change_seed(out: Path) -> None:
    record = json.loads((out / "run.json").read_text())
    record["settings"]["seed"] = 1
    (out / "run.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (change_nifti, "mean.nii.gz was changed since it was written"),
        (change_and_hide, "mean.nii.gz: slice 3 differs by up to 30 HU"),
        (change_dicom, "dicom/mean/0003.dcm: slice 3 differs by up to 24"),
        (change_seed, "mean.nii.gz: slice 3 differs"),
        (lambda out: (out / "report.html").unlink(), "report.html is missing"),
    ],
)
def test_what_was_changed_is_said(change: Callable[[Path], None], problem: str, out: Path) -> None:
    change(out)
    with seeded_deft():
        problems = verify_series(out).problems
    assert [text for text in problems if text.startswith(problem)], problems


def test_the_command_ends_with_2_and_says_why(out: Path) -> None:
    with seeded_deft():
        good = CliRunner().invoke(app, ["verify", str(out), "--slice", "2", "--no-progress"])
        assert good.exit_code == 0 and "slice 2 the same within 1 HU" in good.output
        change_nifti(out)
        bad = CliRunner().invoke(app, ["verify", str(out), "--no-progress"])
    assert bad.exit_code == 2 and "is not as it was written: mean.nii.gz was changed" in " ".join(bad.output.split())


def test_a_deidentified_result_needs_its_series(tmp_path: Path) -> None:
    pytest.importorskip("dicomanonymizer")
    with seeded_deft():
        done = reconstruct_series(sample_series_path(), tmp_path / "out", SETTINGS, output=Output(deidentify=True))
        with pytest.raises(ValueError, match=r"de-identified.*name the series"):
            verify_series(done.folder)
        assert verify_series(done.folder, sample_series_path()).problems == ()


def test_what_cannot_be_verified_is_refused(out: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no finished result"):
        verify_series(tmp_path)
    with seeded_deft(), pytest.raises(ValueError, match="slices count from 1 to 5, got 6"):
        verify_series(out, slice_number=6)
    series = read_dicom_series(sample_series_path()).slices(0, 6)
    write_dicom_series(series.hu, like=series, folder=tmp_path / "other")
    with seeded_deft(), pytest.raises(ValueError, match="is not the series that the result was made from"):
        verify_series(out, tmp_path / "other")
    for text, message in (("{", "damaged"), ('{"program": "deft-ct", "files": {}}', "nothing else can be verified")):
        (out / "run.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            verify_series(out)
