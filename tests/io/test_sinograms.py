"""Sinogram files of every kind, with angles beside them, and broken ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import tifffile

from deft_ct.io.errors import ReadError
from deft_ct.io.sinograms import SinogramOptions, read_sinogram

LINES = np.random.default_rng(0).random((5, 7)).astype(np.float32)
ANGLES = np.array([0.0, 30.0, 60.0, 90.0, 120.0])


def _write(path: Path) -> Path:
    if path.suffix == ".npy":
        np.save(path, LINES)
    elif path.suffix == ".npz":
        np.savez(path, sinogram=LINES, theta=ANGLES, other=np.zeros(3))
    elif path.suffix == ".mat":
        scipy.io.savemat(path, {"sinogram": LINES, "angles": ANGLES})
    else:
        tifffile.imwrite(path, LINES)
    return path


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mat", ".tif"])
def test_every_kind(tmp_path: Path, suffix: str) -> None:
    path = _write(tmp_path / f"a{suffix}")
    found = read_sinogram(path)
    np.testing.assert_allclose(found.lines[0], LINES, rtol=1e-6)
    own = suffix in (".npz", ".mat")
    np.testing.assert_allclose(np.degrees(found.angles), ANGLES if own else np.arange(5) * 36.0)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ReadError):
        read_sinogram(path)


def test_angles(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.npy")
    ends = read_sinogram(path, SinogramOptions(degrees=360, ends=True)).angles
    np.testing.assert_allclose(np.degrees(ends), np.linspace(0, 360, 5))
    for name in ("angles.txt", "angles.npy"):
        beside = tmp_path / name
        np.savetxt(beside, np.radians(ANGLES)) if name.endswith("txt") else np.save(beside, np.radians(ANGLES))
        found = read_sinogram(path, SinogramOptions(angles=beside, radians=True)).angles
        np.testing.assert_allclose(np.degrees(found), ANGLES)
    np.savetxt(tmp_path / "few.txt", ANGLES[:3])
    with pytest.raises(ReadError, match="holds 3 angles for 5 views"):
        read_sinogram(path, SinogramOptions(angles=tmp_path / "few.txt"))
    with pytest.raises(FileNotFoundError, match="no such file of angles"):
        read_sinogram(path, SinogramOptions(angles=tmp_path / "none.txt"))


def test_counts(tmp_path: Path) -> None:
    counts = np.array([[1000, 500, 0], [1000, 250, 100]], np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", counts)
    found = read_sinogram(tmp_path / "a.tif", SinogramOptions(counts=1000.0))
    np.testing.assert_allclose(found.lines[0], -np.log([[1, 0.5, 1e-4], [1, 0.25, 0.1]]), rtol=1e-6)
    assert found.raised == 1


def test_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "pickle.npy", np.array([{}], object), allow_pickle=True)
    np.save(tmp_path / "nan.npy", np.array([[np.nan, 1.0]]))
    np.save(tmp_path / "line.npy", np.zeros(4))
    np.savez(tmp_path / "other.npz", a=LINES)
    tifffile.imwrite(tmp_path / "pages.tif", np.zeros((3, 5, 7), np.float32), photometric="minisblack")
    for name, message in (
        ("pickle.npy", "cannot be read"), ("nan.npy", "1 values are not finite"), ("line.npy", "shape"),
        ("other.npz", "expected a sinogram under one of"), ("pages.tif", "several pages"),
    ):  # fmt: skip
        with pytest.raises(ReadError, match=message):
            read_sinogram(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_sinogram(tmp_path / "nowhere.npy")
    with pytest.raises(ValueError, match="degrees must lie in"):
        SinogramOptions(degrees=0)
    with pytest.raises(ValueError, match="counts must be"):
        SinogramOptions(counts=-1)


class _Touch:
    """A pickle that makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["x.npz", "x.npy"])
def test_pickles_are_never_run(tmp_path: Path, name: str) -> None:
    trap = np.array([_Touch(tmp_path / "ran")], dtype=object)
    np.savez(tmp_path / "x.npz", sinogram=trap) if name == "x.npz" else np.save(tmp_path / "x.npy", trap)
    with pytest.raises(ReadError, match="cannot be read as a NumPy file"):
        read_sinogram(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_files_of_angles(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.npy")
    np.savetxt(tmp_path / "a.csv", ANGLES[None], delimiter=",")
    found = read_sinogram(path, SinogramOptions(angles=tmp_path / "a.csv"))
    np.testing.assert_allclose(np.degrees(found.angles), ANGLES)
    np.savez(tmp_path / "other.npz", x=ANGLES)
    np.save(tmp_path / "words.npy", np.array(["a"] * 5))
    (tmp_path / "words.txt").write_text("one two")
    (tmp_path / "angles.dat").write_text("1")
    for name, match in (
        ("other.npz", "holds no angles under one of angles, theta"), ("words.npy", "the angles must be real numbers"),
        ("words.txt", "is not a list of numbers"), ("angles.dat", r"ends in \.dat; expected one of"),
    ):  # fmt: skip
        with pytest.raises(ReadError, match=match):
            read_sinogram(path, SinogramOptions(angles=tmp_path / name))


def test_one_view_and_several_slices(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", LINES[:1])
    np.save(tmp_path / "angle.npy", np.array([[30.0]]))
    found = read_sinogram(tmp_path / "one.npy", SinogramOptions(angles=tmp_path / "angle.npy"))
    assert found.lines.shape == (1, 1, 7) and np.degrees(found.angles) == pytest.approx([30.0])
    np.save(tmp_path / "many.npy", np.stack([LINES, 2 * LINES]))
    found = read_sinogram(tmp_path / "many.npy")
    assert found.lines.shape == (2, 5, 7) and found.lines.dtype == np.float32 and found.raised == 0
    np.testing.assert_allclose(found.lines[1], 2 * LINES)
    for shape in ((2, 5, 7, 1), (0, 7), (5, 0)):
        np.save(tmp_path / "odd.npy", np.zeros(shape))
        with pytest.raises(ReadError, match="holds data of shape"):
            read_sinogram(tmp_path / "odd.npy")


def test_values_of_the_options() -> None:
    assert SinogramOptions(degrees=360).degrees == 360 and SinogramOptions(counts=0.5).counts == 0.5
    for wrong in (0.0, -1.0, 360.5, float("nan")):
        with pytest.raises(ValueError, match=r"degrees must lie in \(0, 360\]"):
            SinogramOptions(degrees=wrong)
    for wrong in (0.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="counts must be those of the open beam"):
            SinogramOptions(counts=wrong)
