from __future__ import annotations

import gzip
import shutil
import struct
import zlib
from pathlib import Path

import h5py
import numpy as np
import pydicom
import pytest
from PIL import Image
from skimage.measure import block_reduce

from deft_ct.ct.volume import Volume
from deft_ct.datasets.dicom_folder import CTFolder, resize_slices
from deft_ct.io import read_dicom_series, sample_series_path, write_hdf5, write_nifti


@pytest.fixture
def volume() -> Volume:
    return Volume.from_spacing(np.random.default_rng(0).integers(-1000, 1000, (3, 32, 32)), pixel_mm=1.0, z_mm=2.0)


def test_dicom_series_and_volumes(tmp_path: Path, volume: Volume) -> None:
    shutil.copytree(sample_series_path(), tmp_path / "scan")
    write_nifti(volume, tmp_path / "b.nii.gz")
    write_hdf5(volume, tmp_path / "c.h5")
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["s/hu"], file["s/z_mm"] = volume.hu.astype(np.int16), np.arange(3, dtype=np.float32)
        file["s"].attrs["pixel_mm"] = 1.0
    data = CTFolder(tmp_path, size=16)
    assert len(data) == 8 + 3 + 3 + 3 and not data.skipped
    assert [s.group for s in data][8:] == ["b.nii.gz"] * 3 + ["c.h5"] * 3 + ["d.h5:s"] * 3
    source = read_dicom_series(sample_series_path())
    assert data[2].hu.shape == (1, 16, 16) and data[2].pixel_mm == pytest.approx(0.78125 * 32)
    np.testing.assert_allclose(data[2].hu[0].numpy(), block_reduce(source.hu[2], (32, 32), np.mean), atol=0.51)
    assert data[2].z_mm == pytest.approx(source.volume.affine[2, 3] + 2)
    for n in range(8, 17):
        np.testing.assert_allclose(
            data[n].hu[0].numpy(), block_reduce(volume.hu[(n - 8) % 3], (2, 2), np.mean), atol=0.51
        )
    assert [s.position for s in CTFolder(tmp_path, size=16, every=5)] == [0, 5, 10, 15]
    assert data.batch([0, 8]).shape == (2, 1, 16, 16)


def test_other_sizes_keep_the_mean_and_the_field_of_view(volume: Volume) -> None:
    smooth = np.broadcast_to(np.linspace(-500, 500, 32, dtype=np.float32), (2, 32, 32))
    small, pixel_mm = resize_slices(smooth, 1.0, 20)
    assert small.shape == (2, 20, 20) and pixel_mm == pytest.approx(1.6)
    np.testing.assert_allclose(small.mean(), smooth.mean(), atol=1.0)
    assert resize_slices(volume.hu, 1.0, 32)[0] is volume.hu


def test_pictures_need_their_scale(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 128, np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.full((8, 8), 65535, np.uint16)).save(tmp_path / "b.png")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "c.png")
    with pytest.raises(ValueError, match="no HU scale"):
        CTFolder(tmp_path)
    with pytest.raises(ValueError, match="belong together"):
        CTFolder(tmp_path, picture_hu=(-1000, 1000))
    with pytest.raises(ValueError, match="increasing"):
        CTFolder(tmp_path, picture_hu=(1000, -1000), picture_pixel_mm=1.0)
    data = CTFolder(tmp_path, size=8, picture_hu=(-1000.0, 1040.0), picture_pixel_mm=1.5)
    assert [float(s.hu[0, 0, 0]) for s in data] == [24.0, 1040.0] and data[0].pixel_mm == 1.5
    assert "one grey channel" in data.skipped["c.png"]


def test_what_cannot_be_used_is_listed(tmp_path: Path, volume: Volume, caplog: pytest.LogCaptureFixture) -> None:
    write_nifti(volume, tmp_path / "good.nii")
    (tmp_path / "bad.nii").write_text("hello")
    write_nifti(Volume.from_spacing(np.zeros((1, 8, 10)), pixel_mm=1, z_mm=1), tmp_path / "wide.nii")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    data = CTFolder(tmp_path, size=32)
    assert len(data) == 3 and sorted(data.skipped) == ["bad.nii", "other.h5", "wide.nii"]
    assert data.skipped["wide.nii"] == "slices are 8 x 10, not square" and "left out bad.nii" in caplog.text


def _break(path: Path) -> None:
    """Overwrite the middle of a file."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = b"\xff" * 200
    path.write_bytes(bytes(content))


def test_damaged_files_of_every_kind_are_left_out(tmp_path: Path, volume: Volume) -> None:
    write_nifti(volume, tmp_path / "good.nii")
    whole, member = (tmp_path / "good.nii").read_bytes(), gzip.compress(b"")
    # A compressed block of a type that does not exist, after the header of the volume.
    (tmp_path / "flipped.nii.gz").write_bytes(gzip.compress(whole[:1000]) + member[:10] + b"\x07" * 50)
    for name, write in (("cut.nii.gz", write_nifti), ("cut.h5", write_hdf5)):
        write(volume, tmp_path / name)
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-1500])
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32)).astype(np.uint8)).save(tmp_path / "broken.png")
    _break(tmp_path / "broken.png")
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "cut.tiff")
    (tmp_path / "cut.tiff").write_bytes((tmp_path / "cut.tiff").read_bytes()[:100])
    series = sorted(path for path in sample_series_path().iterdir() if path.suffix == ".dcm")
    (tmp_path / "scan").mkdir()
    for path in series:
        shutil.copy(path, tmp_path / "scan")
    (tmp_path / "scan" / series[3].name).write_bytes(series[3].read_bytes()[:-20000])
    data = CTFolder(tmp_path, size=32, picture_hu=(-1000, 1000), picture_pixel_mm=1.0)
    uid = str(pydicom.dcmread(series[0]).SeriesInstanceUID)
    assert [s.group for s in data] == [uid] * 7 + ["good.nii"] * 3, "the sound slices of a series stay"
    damaged = {"flipped.nii.gz", "cut.nii.gz", "cut.h5", "broken.png", "cut.tiff", f"scan/{series[3].name}"}
    assert set(data.skipped) == damaged and all(data.skipped.values())


def test_a_damaged_header_and_a_picture_bomb_do_not_end_a_folder(
    tmp_path: Path, volume: Volume, caplog: pytest.LogCaptureFixture
) -> None:
    write_nifti(volume, tmp_path / "good.nii")
    whole = sorted(sample_series_path().glob("*.dcm"))[0].read_bytes()
    (tmp_path / "header.dcm").write_bytes(whole[:400])
    # The header of a PNG of 60,000 x 60,000 pixels, 10.8 GB.
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "bomb.png").write_bytes(bomb + struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND")))
    data = CTFolder(tmp_path, size=32, picture_hu=(-1000, 1000), picture_pixel_mm=1.0)
    assert len(data) == 3 and set(data.skipped) == {"header.dcm", "bomb.png"}
    assert "pixels" in data.skipped["bomb.png"]
    assert "left out header.dcm" in caplog.text and "left out bomb.png" in caplog.text


@pytest.mark.data
@pytest.mark.parametrize("case", ["train_one_bad_file", "train_one_bad_nifti"])
def test_hostile_training_folders(data_root: Path, case: str) -> None:
    folder = data_root / "hostile" / case
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    data = CTFolder(folder, size=32)
    assert len(data) == 2
    assert set(data.skipped) == {"bad/cut.dcm" if case == "train_one_bad_file" else "n2.nii"}


def test_nothing_to_use(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        CTFolder(tmp_path / "none")
    with pytest.raises(ValueError, match="no files of a known kind"):
        CTFolder(tmp_path)
    with pytest.raises(ValueError, match="at least 1"):
        CTFolder(tmp_path, size=0)


def test_a_series_whose_pixels_are_not_square_is_left_out(tmp_path: Path, volume: Volume) -> None:
    shutil.copytree(sample_series_path(), tmp_path / "scan")
    for path in (tmp_path / "scan").glob("*.dcm"):
        header = pydicom.dcmread(path)
        header.PixelSpacing = [0.5, 0.7]
        header.save_as(path)
    write_nifti(volume, tmp_path / "b.nii")
    data = CTFolder(tmp_path, size=16)
    assert [s.group for s in data] == ["b.nii"] * 3
    [(uid, reason)] = data.skipped.items()
    assert uid == str(header.SeriesInstanceUID) and "square" in reason
