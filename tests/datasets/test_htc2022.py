"""HTC2022 on real files where the data packs are at hand, and on small files made here in both MATLAB encodings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from scipy.optimize import least_squares
from torchmetrics.functional.classification import matthews_corrcoef

from deft_ct.datasets.htc2022 import challenge_score, read_htc2022
from deft_ct.datasets.packs import data_root
from deft_ct.datasets.phantoms import EllipsePhantom
from deft_ct.io.errors import ReadError

PARAMETERS: dict[str, Any] = {
    "projectName": "htc2022_test",
    "geometryType": "Cone",
    "distanceSourceOrigin": 410.66,
    "distanceSourceDetector": 553.74,
    "distanceUnit": "mm",
    "geometricMagnification": 553.74 / 410.66,
    "angles": np.arange(30.0, 60.5, 0.5),
    "numDetectorsPost": 56,
    "pixelSizePost": 2.0,
    "effectivePixelSizePost": 2.0 * 410.66 / 553.74,
}


def sinogram() -> np.ndarray:
    return np.random.default_rng(0).random((61, 56))


def write_v5(path: Path, name: str = "CtDataLimited", **changes: Any) -> Path:
    fields = {"type": "2d", "sinogram": sinogram(), "parameters": PARAMETERS | changes}
    scipy.io.savemat(path, {name: fields})
    return path


def write_v73(path: Path, name: str = "CtDataFull", **changes: Any) -> Path:
    """MATLAB 7.3: HDF5 behind a 512-byte text header, arrays transposed, text as UTF-16 code points."""
    with h5py.File(path, "w", userblock_size=512) as file:
        group = file.create_group(name)
        group["sinogram"] = sinogram().T
        for key, value in (PARAMETERS | changes).items():
            if isinstance(value, str):
                group[f"parameters/{key}"] = np.array([[ord(c)] for c in value], np.uint16)
                group[f"parameters/{key}"].attrs["MATLAB_class"] = np.bytes_("char")
            else:
                group[f"parameters/{key}"] = np.atleast_2d(np.asarray(value, float)).T
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(116) + bytes(8) + b"\x00\x02IM")
    return path


@pytest.mark.parametrize("write", [write_v5, write_v73])
def test_both_encodings(tmp_path: Path, write: Any) -> None:
    scan = read_htc2022(write(tmp_path / "x.mat"), image_shape=(64, 64))
    assert scan.sinogram.shape == (1, 1, 61, 56) and scan.limited == (write is write_v5)
    np.testing.assert_allclose(scan.sinogram[0, 0].numpy(), sinogram(), rtol=1e-6)
    geometry = scan.geometry
    np.testing.assert_allclose(np.degrees(geometry.angle_array), PARAMETERS["angles"])
    assert (geometry.source_to_center_mm, geometry.source_to_detector_mm) == (410.66, 553.74)
    assert geometry.detector_mm == 2.0 and geometry.pixel_rc[0] == pytest.approx(1.4832, abs=1e-4)
    assert scan.parameters["projectName"] == "htc2022_test"


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_htc2022(tmp_path / "none.mat")
    (tmp_path / "text.mat").write_text("hello " * 50)
    with pytest.raises(ValueError, match="not a MATLAB file"):
        read_htc2022(tmp_path / "text.mat")
    (tmp_path / "empty.mat").touch()
    with pytest.raises(ValueError, match="not a MATLAB file"):
        read_htc2022(tmp_path / "empty.mat")
    (tmp_path / "cut.mat").write_bytes(write_v73(tmp_path / "y.mat").read_bytes()[:600])
    with pytest.raises(ValueError, match="is the download complete"):
        read_htc2022(tmp_path / "cut.mat")
    with pytest.raises(ValueError, match=r"holds \['other'\]"):
        read_htc2022(write_v5(tmp_path / "x.mat", "other"))
    with pytest.raises(ValueError, match=r"sinogram is \(61, 56\), expected \(61 angles, 57 detectors\)"):
        read_htc2022(write_v5(tmp_path / "x.mat", numDetectorsPost=57))
    with pytest.raises(ValueError, match="in cm, expected mm"):
        read_htc2022(write_v5(tmp_path / "x.mat", distanceUnit="cm"))
    scipy.io.savemat(tmp_path / "x.mat", {"CtDataFull": {"sinogram": sinogram(), "parameters": {"angles": 1.0}}})
    with pytest.raises(ValueError, match=r"lacks .*numDetectorsPost"):
        read_htc2022(tmp_path / "x.mat")


@pytest.fixture
def raw() -> Path:
    try:
        return data_root() / "raw_projections"
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "views", "width"),
    [("lpd_tb_subsample_30", 61, 30.0), ("lpd_tb_subsample_60", 121, 60.0), ("lpd_tb_subsample_90", 181, 90.0)],
)
def test_real_wedges(raw: Path, name: str, views: int, width: float) -> None:
    scan = read_htc2022(raw / f"{name}.mat")
    assert scan.sinogram.shape == (1, 1, views, 560) and scan.limited
    span = np.degrees(scan.geometry.angle_array)
    assert span[-1] - span[0] == pytest.approx(width)
    assert 0 < float(scan.sinogram.median()) < 5


@pytest.mark.data
def test_real_disc_has_its_size(raw: Path) -> None:
    """A disc in closed form, fitted to the measured line integrals, has the 70 mm of the real one."""
    scan = read_htc2022(raw / "lpd_solid_disc_subsample73.mat")
    measured = scan.sinogram[0].double().numpy()

    def misfit(p: np.ndarray) -> np.ndarray:
        return (EllipsePhantom.disc(p[0], p[3], (p[1], p[2])).sinogram(scan.geometry).numpy() - measured)[
            ..., ::7
        ].ravel()

    fit = least_squares(misfit, [30.0, 0.0, 0.0, 0.03])
    assert fit.x[0] == pytest.approx(35.0, abs=0.5)
    assert float(np.sqrt((fit.fun**2).mean())) < 0.04 * measured.max(), "the rest is beam hardening"


def test_the_score_is_the_matthews_correlation() -> None:
    generator = np.random.default_rng(0)
    reference = generator.random((9, 11)) < 0.4
    guess = reference ^ (generator.random((9, 11)) < 0.2)
    flat = [torch.from_numpy(mask.ravel()) for mask in (guess, reference)]
    expected = float(matthews_corrcoef(*flat, task="binary"))
    assert challenge_score(guess, reference) == pytest.approx(expected, abs=1e-6)
    assert challenge_score(reference, reference) == pytest.approx(1)
    assert challenge_score(~reference, reference) == pytest.approx(-1)
    assert challenge_score(np.ones_like(reference), reference) == 0
    with pytest.raises(TypeError, match="segmentation must be Boolean, got float64"):
        challenge_score(reference.astype(float), reference)
    with pytest.raises(ValueError, match="shapes differ"):
        challenge_score(reference[1:], reference)


@pytest.mark.parametrize(
    ("name", "sound", "bad"),
    [
        ("pixelSizePost", 1e-3, 0.99e-3), ("pixelSizePost", 100.0, 100.1), ("effectivePixelSizePost", 1e-3, 0.99e-3),
        ("effectivePixelSizePost", 2.0, 100.1), ("distanceSourceOrigin", 553.0, 0.99e-3),
        ("distanceSourceDetector", 1e6, 1.01e6), ("distanceSourceDetector", 1e6, np.nan), ("distanceUnit", "mm", "m"),
    ],
)  # fmt: skip
def test_both_sides_of_each_bound(tmp_path: Path, name: str, sound: Any, bad: Any) -> None:
    shape = {"image_shape": (4, 4)}
    scan = read_htc2022(write_v5(tmp_path / "x.mat", **{name: sound}), **shape)
    assert scan.parameters[name] == sound
    with pytest.raises(ReadError, match=name if name != "distanceUnit" else "in m, expected mm"):
        read_htc2022(write_v5(tmp_path / "x.mat", **{name: bad}), **shape)


def test_pixels_and_angles_of_the_caller_and_of_the_file(tmp_path: Path) -> None:
    path = write_v5(tmp_path / "x.mat", "CtDataFull")
    scan = read_htc2022(path, image_shape=(20, 30), pixel_mm=0.5)
    assert scan.geometry.pixel_rc == (0.5, 0.5) and scan.geometry.image_shape == (20, 30) and not scan.limited
    assert scan.geometry.detectors == 56 and scan.geometry.angle_array[0] == pytest.approx(np.radians(30))
    assert read_htc2022(path, pixel_mm=0.1).geometry.image_shape == (512, 512)
    for bad in (56.5, "many", [56.0, 56.0], 0.0):
        with pytest.raises(ReadError, match=r"numDetectorsPost must be a number|expected .61 angles, 56\.5 detectors"):
            read_htc2022(write_v5(tmp_path / "y.mat", numDetectorsPost=bad))
    with pytest.raises(ReadError, match="its geometry cannot be used"):
        read_htc2022(write_v5(tmp_path / "y.mat", distanceSourceOrigin=600.0))
    for field in ("sinogram", "parameters"):
        fields = {"sinogram": sinogram(), "parameters": PARAMETERS}
        del fields[field]
        scipy.io.savemat(tmp_path / "z.mat", {"CtDataFull": fields})
        with pytest.raises(ReadError, match="CtDataFull lacks 'sinogram' or 'parameters'"):
            read_htc2022(tmp_path / "z.mat")
    for value, why in ((np.full((61, 56), np.nan), "values that are not finite"), ("words", "array of real numbers")):
        scipy.io.savemat(tmp_path / "z.mat", {"CtDataFull": {"sinogram": value, "parameters": PARAMETERS}})
        with pytest.raises(ReadError, match=f"sinogram .*{why}"):
            read_htc2022(tmp_path / "z.mat")


def test_a_score_of_one_class_is_zero() -> None:
    mixed, none = np.array([[True, False]]), np.zeros((1, 2), bool)
    for one, other in ((mixed, none), (none, mixed), (~none, mixed), (mixed, ~none), (none, none)):
        assert challenge_score(one, other) == 0
    with pytest.raises(TypeError, match="reference must be Boolean, got float64"):
        challenge_score(mixed, np.zeros((1, 2)))
    with pytest.raises(ValueError, match=r"shapes differ: \(1, 2\) and \(2, 1\)"):
        challenge_score(mixed, none.T)
