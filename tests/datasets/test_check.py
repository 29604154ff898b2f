"""``deft-ct data check`` on every layout: complete, with a file missing, and with a damaged one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pydicom
import pytest
import scipy.io
import tifffile
from typer.testing import CliRunner

from deft_ct.cli.app import app
from deft_ct.datasets.check import check_data
from deft_ct.datasets.findings import DataFindings
from deft_ct.io import sample_series_path
from tests.support.lodopab_layout import write_lodopab_layout


def _states(found: DataFindings, state: str) -> dict[str, str]:
    return {file.path: file.what for file in found.files if file.state == state}


def _shown(path: Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["data", "check", str(path)], env={"COLUMNS": "200"})
    return result.exit_code, result.output


def test_lodopab(tmp_path: Path) -> None:
    root = write_lodopab_layout(tmp_path, "validation")
    code, text = _shown(root)
    assert code == 0 and "validation: 56 of 56 files are sound; 3,522 samples" in text
    assert "--data lodopab:" in text and text.count("128 samples") == 54
    (root / "observation_validation_013.hdf5").unlink()
    with h5py.File(root / "observation_validation_027.hdf5", "w") as file:
        file.create_dataset("data", (65, 1000, 513), np.float32, chunks=(1, 1000, 513))
    (root / "ground_truth_validation_002.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n")
    (root / "patient_ids_rand_validation.csv").write_text("1\n")
    (root / "readme.txt").write_text("")
    found = check_data(root)
    assert not found.complete
    assert list(_states(found, "missing")) == ["observation_validation_013.hdf5"]
    damaged = _states(found, "damaged")
    assert damaged["observation_validation_027.hdf5"] == "holds 65 samples, expected 66; download it again"
    assert set(damaged) == {
        "observation_validation_027.hdf5", "ground_truth_validation_002.hdf5", "patient_ids_rand_validation.csv",
    }  # fmt: skip
    assert list(_states(found, "left out")) == ["readme.txt"]
    code, text = _shown(root)
    assert code == 2 and "NOT complete" in text and "observation_validation_013.hdf5" in text


def _dicom(folder: Path, names: tuple[str, ...] = ("006", "007", "008", "009")) -> None:
    folder.mkdir(parents=True)
    for name in names:
        shutil.copy(sample_series_path() / f"{name}.dcm", folder / f"{name}.IMA")


def test_aapm(tmp_path: Path) -> None:
    for patient in ("L067", "L506"):
        _dicom(tmp_path / patient / "full_1mm")
    found = check_data(tmp_path)
    assert found.kind.startswith("AAPM") and not found.complete
    assert set(_states(found, "found")) == {"L067/full_1mm", "L506/full_1mm"}
    assert _states(found, "found")["L067/full_1mm"].startswith("4 slices of 512 x 512")
    assert len(_states(found, "missing")) == 8
    assert found.notes == ["full_1mm, B30: 2 of 10 training patients (L067, L506)"]
    assert found.commands == [
        f"deft-ct compare --data aapm:{tmp_path}:test --every 10 --out OUT",
        f"deft-ct compare --data aapm:{tmp_path}:dm4ct=i,ii,iii,iv,v --out OUT",
    ]
    (tmp_path / "L067" / "full_1mm" / "007.IMA").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 9)
    assert list(_states(check_data(tmp_path), "damaged")) == ["L067/full_1mm"]


def test_ldct(tmp_path: Path) -> None:
    _dicom(tmp_path / "L004" / "08-21-2018-1" / "1.000000-Full Dose Images-1")
    assert check_data(tmp_path).complete
    raw = tmp_path / "C012" / "08-21-2018-1" / "2.000000-Full dose projections-2"
    raw.mkdir(parents=True)
    header = pydicom.dcmread(sample_series_path() / "006.dcm")
    header.add_new((0x7029, 0x0010), "LO", "CTPD")
    header.add_new((0x7029, 0x1010), "US", 64)
    header.save_as(raw / "1.dcm")
    found = check_data(tmp_path)
    assert found.kind == "TCIA LDCT-and-Projection-data" and list(_states(found, "missing")) == ["C012"]
    assert "1 raw projections" in _states(found, "found").values()
    assert found.notes == ["2 patients: 1 with full-dose images, 1 with projections"]
    assert found.commands == [
        f"deft-ct compare --data ldct:{tmp_path} --every 10 --out OUT",
        "deft-ct reconstruct --projections FOLDER --out OUT",
    ]
    images = raw.parent / "3.000000-Low dose projections-3"
    _dicom(images)
    assert _states(check_data(tmp_path), "damaged")[str(images.relative_to(tmp_path))] == (
        "holds 1 series of images, expected raw projections"
    )
    (raw.parent / "4-Full dose projections").mkdir()
    assert "it is empty" in _states(check_data(tmp_path), "damaged")["C012/08-21-2018-1/4-Full dose projections"]
    assert check_data(raw).commands == [f"deft-ct reconstruct --projections {raw} --out OUT"]


def test_series(tmp_path: Path) -> None:
    _dicom(tmp_path / "a")
    found = check_data(tmp_path)
    assert found.complete and found.kind == "DICOM series"
    (tmp_path / "a" / "007.IMA").unlink()
    assert "1 slice(s) missing" in next(iter(_states(check_data(tmp_path), "damaged").values()))


def test_a_series_in_words(tmp_path: Path) -> None:
    _dicom(tmp_path / "a")
    files = sorted((tmp_path / "a").iterdir())
    [what] = _states(check_data(tmp_path), "found").values()
    kernel = pydicom.dcmread(files[0]).ConvolutionKernel
    assert what == f"{len(files)} slices of 512 x 512, 0.781 mm pixels, 1 mm apart, kernel {kernel}"
    odd = pydicom.dcmread(files[1])
    spacing = list(odd.PixelSpacing)
    odd.PixelSpacing = [2 * float(spacing[0]), 2 * float(spacing[1])]
    odd.save_as(files[1])
    [what] = _states(check_data(tmp_path), "damaged").values()
    assert "PixelSpacing" in what
    for file in files:
        header = pydicom.dcmread(file)
        header.PixelSpacing = [0.5, 0.75]
        header.save_as(file)
    [what] = _states(check_data(tmp_path), "found").values()
    assert "0.5 mm pixels" in what, "the distance of its rows"
    for file in files[1:]:
        file.unlink()
    [what] = _states(check_data(tmp_path), "found").values()
    assert what.startswith("1 slices of 512 x 512") and "apart" not in what


def _other_series(file: Path) -> None:
    header = pydicom.dcmread(file)
    header.SeriesInstanceUID = "1.2.3"
    header.save_as(file)


def test_series_that_are_mixed(tmp_path: Path) -> None:
    """One for a patient of a challenge, any number elsewhere; each of them gets its command."""
    folder = tmp_path / "L067" / "full_1mm"
    _dicom(folder)
    _other_series(folder / "009.IMA")
    assert _states(check_data(tmp_path), "damaged")["L067/full_1mm"] == "holds 2 series; keep one"
    found = check_data(folder)
    assert found.kind == "DICOM series" and len(found.commands) == 2
    assert found.commands[0] == f"deft-ct reconstruct {folder} --series 1.2.3"
    (folder / "008.IMA").write_bytes((folder / "008.IMA").read_bytes()[:600])
    found = check_data(folder)
    assert "008.IMA" in _states(found, "damaged") and not found.complete


def test_scout_views_are_no_slices(tmp_path: Path) -> None:
    _dicom(tmp_path / "a", ("006", "007"))
    for file in (tmp_path / "a").iterdir():
        header = pydicom.dcmread(file)
        header.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        header.save_as(file)
    [what] = _states(check_data(tmp_path), "found").values()
    assert what == "2 scout view(s)"


def test_the_challenge_of_lodopab_has_no_truth(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "observation_challenge_000.hdf5", "w") as file:
        file.create_dataset("data", (130, 1000, 513), np.float32, chunks=(1, 1000, 513))
    found = check_data(tmp_path)
    assert _states(found, "found") == {"observation_challenge_000.hdf5": "128 samples (130 rows)"}
    assert len(_states(found, "missing")) == 28 and not any("ground" in name for name in _states(found, "missing"))
    assert found.notes == [
        "the challenge set has no ground truth here: it can be submitted, not judged",
        "patient_ids_rand_challenge.csv is not there: intervals over patients cannot be given",
        "challenge: 1 of 29 files are sound; 3,678 samples in all",
    ]
    with h5py.File(tmp_path / "ground_truth_challenge_000.hdf5", "w") as file:
        file.create_dataset("data", (128, 362, 362), np.float32, chunks=(1, 362, 362))
    assert check_data(tmp_path).notes[-1] == "challenge: 2 of 58 files are sound; 3,678 samples in all"


def test_two_detect(tmp_path: Path) -> None:
    place = tmp_path / "slice00001" / "mode1"
    place.mkdir(parents=True)
    for name in ("dark", "flat1", "flat2"):
        tifffile.imwrite(place / f"{name}.tif", np.zeros((1, 1912), np.uint16))
    tifffile.imwrite(place / "sinogram.tif", np.zeros((3601, 1912), np.uint16))
    found = check_data(tmp_path)
    assert found.complete and any("no reference reconstructions" in note for note in found.notes)
    (place / "flat2.tif").unlink()
    tifffile.imwrite(place / "dark.tif", np.zeros((1, 1911), np.uint16))
    tifffile.imwrite(place / "reconstruction.tif", np.zeros((1024, 1024), np.float32))
    found = check_data(tmp_path)
    assert list(_states(found, "missing")) == ["slice00001/mode1/flat2.tif"]
    assert list(_states(found, "damaged")) == ["slice00001/mode1/dark.tif"]
    assert _states(found, "found")["slice00001/mode1/reconstruction.tif"] == "1024 x 1024"
    assert _states(found, "found")["slice00001/mode1/sinogram.tif"] == "(3601, 1912)"
    assert found.notes == ["1 slices, 1 of slice and mode"]
    other = tmp_path / "more" / "slice00001" / "mode1"
    other.mkdir(parents=True)
    (place / "reconstruction.tif").unlink()
    tifffile.imwrite(other / "reconstruction.tif", np.zeros((1024, 1000), np.float32))
    found = check_data(tmp_path)
    assert _states(found, "damaged")["more/slice00001/mode1/reconstruction.tif"] == (
        "an image of 1024 x 1000, expected 1024 x 1024"
    )
    assert found.notes == ["1 slices, 1 of slice and mode"]
    (tmp_path / "slice00002" / "mode2").mkdir(parents=True)
    assert check_data(tmp_path).notes == ["2 slices, 2 of slice and mode"]


def test_walnuts(tmp_path: Path) -> None:
    orbit = tmp_path / "Walnut1" / "Projections" / "tubeV2"
    orbit.mkdir(parents=True)
    for name in ("di000000", "io000000", "io000001"):
        tifffile.imwrite(orbit / f"{name}.tif", np.zeros((4, 5), np.uint16))
    for n in range(1201):
        if n != 7:
            (orbit / f"scan_{n:06d}.tif").touch()
    np.savetxt(orbit / "scan_geom_corrected.geom", np.zeros((1201, 12)))
    found = check_data(tmp_path)
    assert list(_states(found, "missing")) == ["Walnut1/Projections/tubeV2/scan_000007.tif"]
    np.savetxt(orbit / "scan_geom_corrected.geom", np.zeros((1200, 12)))
    assert "holds 1200 lines" in next(iter(_states(check_data(tmp_path), "damaged").values()))


def test_htc2022(tmp_path: Path) -> None:
    parameters = {
        "distanceSourceOrigin": 410.66, "distanceSourceDetector": 553.74, "distanceUnit": "mm",
        "angles": np.arange(0.0, 3.0, 0.5), "numDetectorsPost": 8, "pixelSizePost": 0.2,
        "effectivePixelSizePost": 0.148,
    }  # fmt: skip
    content = {"CtDataLimited": {"sinogram": np.zeros((6, 8)), "parameters": parameters}}
    scipy.io.savemat(tmp_path / "htc2022_01a_limited.mat", content)
    found = check_data(tmp_path)
    assert list(_states(found, "missing")) == ["htc2022_01a_recon_fbp_seg.mat"]
    scipy.io.savemat(tmp_path / "htc2022_01a_recon_fbp_seg.mat", {"reconFullFbpSeg": np.ones((512, 512))})
    assert check_data(tmp_path).complete
    assert check_data(tmp_path / "htc2022_01a_limited.mat").complete
    found = check_data(tmp_path)
    assert set(_states(found, "found").values()) == {
        "6 views, 8 elements, limited angle", f"{512 * 512} pixels of material",
    }  # fmt: skip
    assert found.notes == ["1 discs, 1 with a reference"]
    [what] = _states(check_data(tmp_path / "htc2022_01a_recon_fbp_seg.mat"), "found").values()
    assert what == "reference segmentation"
    scipy.io.savemat(tmp_path / "b.mat", {"reconFullFbp": np.ones((512, 512))})
    [what] = _states(check_data(tmp_path / "b.mat"), "found").values()
    assert what == "reference reconstruction"


def _pack(path: Path) -> None:
    with h5py.File(path, "w") as file:
        group = file.create_group("a")
        group.attrs["pixel_mm"] = 1.0
        group["hu"] = np.zeros((3, 8, 8), np.int16)


def _exchange(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["exchange/data"] = np.full((4, 2, 12), 500.0)
        file["exchange/data_white"], file["exchange/data_dark"] = np.full((2, 2, 12), 1000.0), np.zeros((2, 2, 12))
        file["exchange/theta"] = np.linspace(0, 180, 4)


@pytest.mark.parametrize(("write", "what"), [(_pack, "3 slices of 8 x 8"), (_exchange, "(2, 1, 4, 12)")])
def test_single_files(tmp_path: Path, write: Callable[[Path], None], what: str) -> None:
    path = tmp_path / "a.h5"
    write(path)
    for place in (path, tmp_path):
        found = check_data(place)
        assert found.complete and found.files[0].what.startswith(what)
    path.write_bytes(path.read_bytes()[:200])
    assert not check_data(path).complete


def test_a_nifti_file(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((5, 6, 7), np.int16), np.eye(4)), tmp_path / "a.nii.gz")
    found = check_data(tmp_path / "a.nii.gz")
    assert found.kind == "NIfTI volume" and _states(found, "found") == {"a.nii.gz": "7 slices of 6 x 5"}
    assert found.commands == [f"deft-ct compare --data folder:{tmp_path} --out OUT"]


def test_nothing_known(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("")
    code, text = _shown(tmp_path)
    assert code == 2 and "holds nothing that is known" in text
    assert _shown(tmp_path / "nowhere")[0] == 2
    kinds = CliRunner().invoke(app, ["data", "kinds"], env={"COLUMNS": "200"}).output
    assert "lodopab:FOLDER" in kinds and "photos:FOLDER[@LIST][:SIZE]" in kinds
