"""NeXus files of CIL: files in its layout with exact line integrals, and a measured one against independent images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from deft_ct.datasets.check import check_data
from deft_ct.datasets.nexus_scan import read_nexus
from deft_ct.datasets.phantoms import Ellipse, EllipsePhantom
from deft_ct.datasets.sinogram_scan import ScanSetUp, read_sinogram_scan, remove_rings
from deft_ct.io.errors import ReadError
from deft_ct.operators.ct import FanGeometry, RayTransform, fbp
from deft_ct.problems.by_name import ProblemOptions, ct_problems

PHANTOM = EllipsePhantom(
    (
        Ellipse(value=0.03, center_mm=(2.0, -1.0), half_axes_mm=(12.0, 9.0)),
        Ellipse(value=0.03, center_mm=(-2.0, 4.0), half_axes_mm=(3.0, 2.0)),
    )
)
GEL = "raw_projections/gel_phantom_fips"


def _write(path: Path, *, offset_mm: float = 0.0, origin: str = "bottom-left", degrees: bool = False) -> FanGeometry:
    """A scan as CIL writes it: the source above, the detector below, positions for angle 0."""
    geometry = FanGeometry(
        image_shape=(48, 48), pixel_mm=0.8, angles=np.radians(np.arange(0, 360, 5.0) + 10.0), detectors=96,
        detector_mm=1.0, source_to_center_mm=100.0, source_to_detector_mm=250.0, detector_offset_mm=offset_mm,
    )  # fmt: skip
    lines = PHANTOM.sinogram(geometry)[0].numpy()
    right = "right" in origin
    with h5py.File(path, "w") as file:
        data = file.create_dataset(
            "entry1/tomo_entry/data/data", data=np.stack([lines, 2 * lines])[:, :, :: -1 if right else 1]
        )
        data.attrs.update({
            "data_type": "AcquisitionData", "dim0": "channel", "dim1": "angle", "dim2": "horizontal", "dimension": "2D",
            "geometry": "cone", "panel_origin": origin, "pixel_size_h": 1.0,
        })  # fmt: skip
        config = file.create_group("entry1/tomo_entry/config")
        config["source/position"], config["detector/position"] = [0.0, 100.0], [offset_mm, -150.0]
        config["rotation_axis/position"], config["detector/direction_x"] = [0.0, 0.0], [1.0, 0.0]
        angles = np.arange(0, 360, 5.0)
        config["angles"] = angles if degrees else np.radians(angles)
        config["angles"].attrs["angle_unit"] = "degree" if degrees else "radian"
        config["angles"].attrs["initial_angle"] = 10.0 if degrees else np.radians(10.0)
    return geometry


@pytest.mark.parametrize(
    "how", [{}, {"offset_mm": 3.0}, {"origin": "top-right"}, {"degrees": True}], ids=["plain", "offset", "right", "deg"]
)
def test_the_geometry_is_that_of_the_file(tmp_path: Path, how: dict[str, Any]) -> None:
    true = _write(tmp_path / "a.nxs", **how)
    sinogram, geometry = read_nexus(tmp_path / "a.nxs", side=48)
    assert sinogram.shape == (2, 1, 72, 96)
    image = fbp(sinogram, geometry)[:, 0].numpy()
    truth = PHANTOM.image((48, 48), geometry.pixel_rc[0], oversampling=8)[0].numpy()
    assert abs(image[0] - truth).mean() < 0.03 * truth.max()
    np.testing.assert_allclose(image[1], 2 * image[0], rtol=1e-4, atol=1e-6)
    whole = geometry.replace(image_shape=true.image_shape, pixel_mm=true.pixel_mm)
    np.testing.assert_allclose(whole.rays().direction, true.rays().direction, atol=1e-9)


def test_by_name(tmp_path: Path) -> None:
    _write(tmp_path / "a.nxs")
    (problem,) = ct_problems(f"sinogram:{tmp_path / 'a.nxs'}:views=24:size=32", None, ProblemOptions(limit=1))
    assert problem.batches[0].y.shape == (1, 1, 24, 96) and problem.truth.shape == (1, 32, 32)
    with pytest.raises(ValueError, match="leave out all options but rings"):
        read_sinogram_scan(tmp_path / "a.nxs", ScanSetUp(center=3.0))
    found = check_data(tmp_path / "a.nxs")
    assert found.complete and found.files[0].what == "2 fan-beam scans of 72 views, 96 elements"


def test_faults(tmp_path: Path) -> None:
    path = tmp_path / "a.nxs"

    def changed(attributes: dict[str, Any], match: str) -> None:
        _write(path)
        with h5py.File(path, "a") as file:
            file["entry1/tomo_entry/data/data"].attrs.update(attributes)
        with pytest.raises(ReadError, match=match):
            read_nexus(path)

    changed({"data_type": "ImageData"}, "expected AcquisitionData")
    changed({"geometry": "parallel"}, "only two-dimensional fan beams")
    changed({"dim0": "vertical"}, "only two-dimensional fan beams")
    changed({"pixel_size_h": "wide"}, "expected a number")
    for name, value, match in (
        ("angles", np.zeros(3), "3 angles for 72 views"), ("source/position", [0.0, np.nan], "two finite numbers"),
        ("source/position", [0.0, 0.0], "its geometry cannot be used"),
    ):  # fmt: skip
        _write(path)
        with h5py.File(path, "a") as file:
            del file[f"entry1/tomo_entry/config/{name}"]
            file[f"entry1/tomo_entry/config/{name}"] = value
        with pytest.raises(ReadError, match=match):
            read_nexus(path)
    with h5py.File(path, "w") as file:
        file["a"] = [1.0]
    with pytest.raises(ReadError, match="is no NeXus file of CIL"):
        read_nexus(path)


@pytest.mark.data
@pytest.mark.parametrize(
    ("frame", "reference", "tolerance"),
    [(0, "reference_fbp_frame01_720views", 2e-3), (16, "reference_fbp_frame18_1600views", 1e-2)],
    ids=["first", "last"],
)
def test_measured_gel_agrees_with_independent_images(
    data_root: Path, frame: int, reference: str, tolerance: float
) -> None:
    """Of 720 and 1600 views by others. The last frame is the one before the scan of its reference: iodine diffuses."""
    sinogram, geometry = read_nexus(data_root / GEL / "gel_phantom_72views_17frames.nxs")
    assert sinogram.shape == (17, 1, 72, 282)
    with h5py.File(data_root / GEL / f"{reference}.nxs") as file:
        data = file["entry1/tomo_entry/data/data"]
        true, pixel = data[()], float(data.attrs["voxel_size_x"])
    geometry = geometry.replace(image_shape=(256, 256), pixel_mm=pixel)
    y, x = np.mgrid[:256, :256] - 127.5
    gel = x**2 + y**2 < 90**2
    image = fbp(sinogram[frame], geometry, "hann")[0].numpy()
    assert image[gel].mean() == pytest.approx(true[gel].mean(), rel=tolerance)
    operator, lines = RayTransform(geometry), sinogram[frame, 0]

    def left(candidate: np.ndarray) -> float:
        predicted = operator(torch.from_numpy(np.ascontiguousarray(candidate))[None])[0]
        predicted *= (predicted * lines).sum() / (predicted**2).sum()
        return float((predicted - lines).norm() / lines.norm())

    turned = [np.rot90(true, k) for k in range(4)]
    others = [*turned[1:], *(image.T for image in turned)]
    assert left(true) < min(0.0256, *map(left, others)), "no other orientation explains the data as well"


def test_values_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "a.nxs"
    _write(path)
    with h5py.File(path, "a") as file:
        file["entry1/tomo_entry/data/data"][1, 3, 4] = np.nan
    with pytest.raises(ReadError, match=r"holds \(2, 72, 96\) values, of which some are not finite"):
        read_nexus(path)
    _write(path)
    with h5py.File(path, "a") as file:
        file["entry1/tomo_entry/config/angles"].attrs["angle_unit"] = "gon"
    with pytest.raises(ReadError, match="angles are in 'gon', expected degree or radian"):
        read_nexus(path)


def test_the_axis_lies_where_the_detector_says(tmp_path: Path) -> None:
    """A detector that lies 49 mm off does not see the axis: it projects to 49 columns left of the middle, at -1.5."""
    true = _write(tmp_path / "a.nxs", offset_mm=49.0)
    with pytest.raises(ReadError, match=r"the axis projects to column -1\.5, outside the detector"):
        read_nexus(tmp_path / "a.nxs")
    _write(tmp_path / "b.nxs", offset_mm=-10.0)
    _, geometry = read_nexus(tmp_path / "b.nxs")
    assert geometry.image_shape == (96, 96)
    seen = 2 * (47.5 - 10.0) + 1  # elements that are symmetric about the axis
    magnification = true.source_to_detector_mm / true.source_to_center_mm
    assert geometry.pixel_rc[0] * 96 == pytest.approx(seen / magnification)
    assert read_sinogram_scan(tmp_path / "b.nxs", ScanSetUp()).center == pytest.approx(47.5 + 10.0)


def test_rings_of_a_scan_are_removed(tmp_path: Path) -> None:
    pytest.importorskip("algotom")
    _write(tmp_path / "a.nxs")
    plain, clean = (read_sinogram_scan(tmp_path / "a.nxs", ScanSetUp(rings=rings)).sinogram for rings in (False, True))
    assert clean.shape == plain.shape == (2, 1, 72, 96)
    for n in range(2):
        torch.testing.assert_close(clean[n, 0], torch.from_numpy(remove_rings(plain[n, 0].numpy())))


@pytest.mark.parametrize("turned", [0.0, 30.0, 200.0])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_scan_in_other_axes_is_the_same_scan(tmp_path: Path, turned: float, mirrored: bool) -> None:
    """The file's axes turn everything by one angle; columns may count against the direction of the first axis."""
    true = _write(tmp_path / "a.nxs", offset_mm=3.0)
    plain, geometry = read_nexus(tmp_path / "a.nxs", side=8)
    cos, sin = np.cos(np.radians(turned)), np.sin(np.radians(turned))
    with h5py.File(tmp_path / "a.nxs", "a") as file:
        config = file["entry1/tomo_entry/config"]
        for name in ("source/position", "detector/position", "rotation_axis/position", "detector/direction_x"):
            config[name][...] = np.array([[cos, -sin], [sin, cos]]) @ config[name][()]
        if mirrored:
            config["detector/direction_x"][...] *= -1
            file["entry1/tomo_entry/data/data"][...] = file["entry1/tomo_entry/data/data"][()][..., ::-1]
    found, other = read_nexus(tmp_path / "a.nxs", side=8)
    torch.testing.assert_close(found, plain)
    assert other.pixel_rc == pytest.approx(geometry.pixel_rc)
    shifted = geometry.replace(angles=geometry.angle_array - np.radians(turned))
    np.testing.assert_allclose(other.rays().direction, shifted.rays().direction, atol=1e-9)
    np.testing.assert_allclose(other.rays().origin, shifted.rays().origin, atol=1e-6)
    assert true.detectors == other.detectors
