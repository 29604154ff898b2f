from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from deft_ct.ct.volume import Volume
from deft_ct.io import read_dicom_series, sample_series_path
from deft_ct.io.errors import ReadError
from deft_ct.io.nifti import read_nifti, write_nifti


@pytest.fixture
def volume() -> Volume:
    affine = np.array([[0.7, 0, 0, -30.0], [0, 0.7, 0, -20.0], [0, 0, 2.5, 100.0], [0, 0, 0, 1.0]])
    return Volume(np.random.default_rng(0).normal(0, 300, (3, 4, 5)), affine)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_round_trip(tmp_path: Path, volume: Volume, suffix: str) -> None:
    path = write_nifti(volume, tmp_path / f"x{suffix}")
    back = read_nifti(path)
    np.testing.assert_array_equal(back.hu, volume.hu)
    np.testing.assert_allclose(back.affine, volume.affine, atol=1e-5)
    assert [p.name for p in tmp_path.iterdir()] == [f"x{suffix}"]


def test_places_agree_with_dicom(tmp_path: Path) -> None:
    """World coordinates from nibabel, with x and y turned, are those of the DICOM headers."""
    series = read_dicom_series(sample_series_path())
    image = nib.load(write_nifti(series.volume, tmp_path / "x.nii"))
    assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
    assert image.header["sform_code"] == 1 and image.header["qform_code"] == 1
    np.testing.assert_allclose(image.get_sform(), image.get_qform(), atol=1e-4)
    np.testing.assert_allclose(image.header.get_zooms(), (0.78125, 0.78125, 1.0), rtol=1e-5)
    assert b"not for clinical use" in image.header["descrip"].item()
    data = image.get_fdata()
    for k in (0, 5):
        header = series.headers[k]
        world = image.affine @ [0, 0, k, 1]
        np.testing.assert_allclose(world[:3] * [-1, -1, 1], np.array(header.ImagePositionPatient, float), atol=1e-4)
        np.testing.assert_array_equal(data[100, 200, k], series.hu[k, 200, 100])


@pytest.mark.parametrize("axes", ["RAS", "LAS", "SPL", "ARI"])
def test_any_orientation_is_turned_without_interpolation(tmp_path: Path, volume: Volume, axes: str) -> None:
    ras = nib.Nifti1Image(volume.hu.transpose(2, 1, 0), volume.ras_affine)
    turn = nib.orientations.ornt_transform(nib.io_orientation(ras.affine), nib.orientations.axcodes2ornt(axes))
    turned = ras.as_reoriented(turn)
    assert nib.aff2axcodes(turned.affine) == tuple(axes)
    nib.save(turned, tmp_path / "x.nii")
    back = read_nifti(tmp_path / "x.nii")
    np.testing.assert_array_equal(back.hu, volume.hu)
    np.testing.assert_allclose(back.affine, volume.affine, atol=1e-4)


def test_same_as_dicom2nifti(tmp_path: Path) -> None:
    dicom2nifti = pytest.importorskip("dicom2nifti")
    dicom2nifti.dicom_series_to_nifti(str(sample_series_path()), str(tmp_path / "x.nii.gz"), reorient_nifti=False)
    ours, theirs = read_dicom_series(sample_series_path()).volume, read_nifti(tmp_path / "x.nii.gz")
    np.testing.assert_allclose(theirs.affine, ours.affine, atol=1e-3)
    np.testing.assert_array_equal(theirs.hu, ours.hu)


def test_bad_files(tmp_path: Path, volume: Volume) -> None:
    with pytest.raises(ValueError, match=r"\.nii or \.nii\.gz"):
        write_nifti(volume, tmp_path / "x.mha")
    with pytest.raises(FileNotFoundError, match="no such NIfTI"):
        read_nifti(tmp_path / "none.nii")
    (tmp_path / "text.nii").write_text("hello")
    with pytest.raises(ValueError, match="cannot be read as NIfTI"):
        read_nifti(tmp_path / "text.nii")
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 2, 3), np.float32), np.eye(4)), tmp_path / "four.nii")
    with pytest.raises(ValueError, match="one 3D volume"):
        read_nifti(tmp_path / "four.nii")
    nib.save(nib.Nifti1Image(np.full((4, 4, 2), np.nan, np.float32), np.eye(4)), tmp_path / "nan.nii")
    with pytest.raises(ValueError, match="not finite"):
        read_nifti(tmp_path / "nan.nii")
    whole = write_nifti(volume, tmp_path / "whole.nii.gz").read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cannot be read as NIfTI"):
        read_nifti(tmp_path / "cut.nii.gz")
    with pytest.raises(FileExistsError, match="is a file"):
        write_nifti(volume, tmp_path / "whole.nii.gz" / "x.nii")


def _changed(path: Path, change: Callable[[Any], None], *, source: bytes) -> Path:
    """The file with another header."""
    header = nib.Nifti1Header(source[:348], check=False)
    change(header)
    path.write_bytes(header.binaryblock + source[348:])
    return path


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"dim": [3, 30000, 30000, 30000, 1, 1, 1, 1]}, r"declares a volume of .* GiB; at most 4\.0 GiB"),
        ({"dim": [3, 400, 400, 900, 1, 1, 1, 1]}, "expansion of more than 200 times"),
        ({"dim": [3, 4, 4, 900, 1, 1, 1, 1]}, "cut off"),
        ({"dim": [3, 4, -4, 3, 1, 1, 1, 1]}, "damaged"),
        ({"dim": [3, 4, 0, 3, 1, 1, 1, 1]}, r"declares a shape of \(4, 0, 3\)"),
        ({"dim": [9, 4, 4, 3, 1, 1, 1, 1]}, "cannot be read as NIfTI"),
        ({"datatype": 32, "bitpix": 64}, "type complex64; expected real numbers"),
        ({"datatype": 128, "bitpix": 24}, "expected real numbers"),
        ({"datatype": 99}, "cannot be read as NIfTI"),
        ({"magic": b"ni1"}, "pair of files"),
        ({"vox_offset": -352.0}, "damaged|cannot be read"),
        ({"vox_offset": np.nan}, "cannot be read as NIfTI"),
        ({"xyzt_units": 1}, "is in meter"),
        ({"xyzt_units": 7}, "cannot be read as NIfTI"),
        ({"srow_x": [np.nan, 0, 0, 0]}, "its affine is"),
        ({"srow_x": [0, 0, 0, 0]}, "its affine is"),
        ({"srow_x": [1e12, 0, 0, 0], "srow_y": [0, 1e12, 0, 0]}, r"pixel size is 1e\+12 mm"),
        ({"srow_z": [0, 0, 1e9, 0]}, r"distance of its slices is 1e\+09 mm"),
        ({"scl_slope": 1e30, "scl_inter": 0}, "CT numbers lie within"),
        ({"scl_slope": 1.0, "scl_inter": np.inf}, "cannot be read as NIfTI"),
        ({"scl_slope": 3e38, "scl_inter": 0}, "not finite"),
    ],
)
def test_headers_that_lie(tmp_path: Path, volume: Volume, change: dict[str, Any], why: str) -> None:
    whole = write_nifti(volume, tmp_path / "whole.nii").read_bytes()
    bad = _changed(
        tmp_path / "bad.nii", lambda header: [header.__setitem__(*item) for item in change.items()], source=whole
    )
    with pytest.raises(ReadError, match=why) as caught:
        read_nifti(bad)
    assert caught.value.path == str(bad)


def test_a_volume_cut_at_any_byte_is_one_error(tmp_path: Path, volume: Volume) -> None:
    for name in ("whole.nii", "whole.nii.gz"):
        whole = write_nifti(volume, tmp_path / name).read_bytes()
        for length in [*range(0, 400, 23), *range(400, len(whole) - 1, 997), len(whole) - 1]:
            (tmp_path / f"cut-{name}").write_bytes(whole[:length])
            with pytest.raises(ReadError, match=r"cut-whole\.nii"):
                read_nifti(tmp_path / f"cut-{name}")


def test_a_flipped_bit_of_a_compressed_volume_is_noticed(tmp_path: Path, volume: Volume) -> None:
    whole = bytearray(write_nifti(volume, tmp_path / "x.nii.gz").read_bytes())
    whole[-6] ^= 1  # of the checksum at the end
    (tmp_path / "x.nii.gz").write_bytes(whole)
    with pytest.raises(ReadError, match="CRC"):
        read_nifti(tmp_path / "x.nii.gz")


def test_a_compressed_bomb_is_not_inflated(tmp_path: Path, volume: Volume) -> None:
    """300 MB of zeros in 0.3 MB, declared truly; and extensions that would be read to the end are not."""
    header = nib.Nifti1Header(write_nifti(volume, tmp_path / "x.nii").read_bytes()[:348])
    header["dim"][1:4] = 512, 512, 286
    with gzip.open(tmp_path / "bomb.nii.gz", "wb", compresslevel=9) as file:
        file.write(header.binaryblock + b"\1\0\0\0" + bytes(8))
        for _ in range(286):
            file.write(bytes(4 * 512 * 512))
    with pytest.raises(ReadError, match="expansion of more than 200 times"):
        read_nifti(tmp_path / "bomb.nii.gz")


@pytest.mark.parametrize("lost", [1, 2, 60])
def test_a_file_that_lacks_a_few_bytes_is_cut_off(tmp_path: Path, lost: int) -> None:
    nib.save(nib.Nifti1Image(np.ones((3, 4, 5), np.int16), np.eye(4)), tmp_path / "x.nii")
    whole = (tmp_path / "x.nii").read_bytes()
    assert read_nifti(tmp_path / "x.nii").shape == (5, 4, 3)
    (tmp_path / "x.nii").write_bytes(whole[:-lost])
    with pytest.raises(ReadError, match=f"declares {len(whole)} bytes and has {len(whole) - lost}: it is cut off"):
        read_nifti(tmp_path / "x.nii")
