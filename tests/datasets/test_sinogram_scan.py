"""Sinogram files as scans: rings go, the centre is found, and some views are judged against all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deft_ct.datasets.data_exchange import estimate_center
from deft_ct.datasets.phantoms import Ellipse, EllipsePhantom
from deft_ct.datasets.sinogram_scan import ScanSetUp, read_sinogram_scan, remove_rings
from deft_ct.io.sinograms import SinogramOptions
from deft_ct.operators.ct import FanGeometry, ParallelGeometry, detector_shift, fbp
from deft_ct.problems.by_name import ProblemOptions, ct_problems

SHIFT = 4.3
PHANTOM = EllipsePhantom(
    (
        Ellipse(value=0.03, center_mm=(3.0, -2.0), half_axes_mm=(20.0, 16.0)),
        Ellipse(value=0.03, center_mm=(-2.0, 8.0), half_axes_mm=(5.0, 3.0)),
    )
)


def _parallel(path: Path, views: int = 181) -> ParallelGeometry:
    geometry = ParallelGeometry(
        image_shape=(64, 64), pixel_mm=1.0, angles=np.linspace(0, np.pi, views), detectors=96, detector_mm=1.0,
        axis_offset_mm=SHIFT,
    )  # fmt: skip
    np.save(path, PHANTOM.sinogram(geometry)[0].numpy())
    return geometry


def test_the_centre_is_found(tmp_path: Path) -> None:
    _parallel(tmp_path / "a.npy")
    how = ScanSetUp(reading=SinogramOptions(ends=True), center="auto")
    scan = read_sinogram_scan(tmp_path / "a.npy", how)
    assert scan.center == pytest.approx(47.5 + SHIFT, abs=0.1)
    image = fbp(scan.sinogram, scan.geometry)[0, 0].numpy()
    truth = PHANTOM.image(scan.geometry.image_shape, scan.geometry.pixel_rc[0], oversampling=8)[0].numpy()
    right = float(((image - truth) ** 2).mean())
    assert abs(image - truth).mean() < 0.03 * truth.max()
    middle = read_sinogram_scan(tmp_path / "a.npy", ScanSetUp(reading=SinogramOptions(ends=True)))
    wrong = fbp(middle.sinogram, middle.geometry)[0, 0].numpy()
    truth = PHANTOM.image(middle.geometry.image_shape, middle.geometry.pixel_rc[0], oversampling=8)[0].numpy()
    assert ((wrong - truth) ** 2).mean() > 3 * right, "so the centre matters"
    with pytest.raises(ValueError, match="outside the detector"):
        read_sinogram_scan(tmp_path / "a.npy", ScanSetUp(center=200.0))


def test_fan(tmp_path: Path) -> None:
    geometry = FanGeometry(
        image_shape=(64, 64), pixel_mm=1.0, views=180, detectors=128, detector_mm=1.0, source_to_center_mm=200.0,
        source_to_detector_mm=300.0, detector_offset_mm=-2.0,
    )  # fmt: skip
    np.save(tmp_path / "a.npy", PHANTOM.sinogram(geometry)[0].numpy())
    how = ScanSetUp(
        reading=SinogramOptions(degrees=360), center=63.5 + 2.0, source_to_center_mm=200.0, source_to_detector_mm=300.0
    )
    scan = read_sinogram_scan(tmp_path / "a.npy", how, side=64)
    image = fbp(scan.sinogram, scan.geometry)[0, 0].numpy()
    truth = PHANTOM.image((64, 64), scan.geometry.pixel_rc[0], oversampling=8)[0].numpy()
    assert abs(image - truth).mean() < 0.03 * truth.max()
    with pytest.raises(ValueError, match="needs both distances"):
        ScanSetUp(source_to_center_mm=200.0)
    found = read_sinogram_scan(tmp_path / "a.npy", replace(how, center="auto"))
    assert found.center == pytest.approx(65.5, abs=0.1)
    np.save(tmp_path / "half.npy", np.load(tmp_path / "a.npy")[:90])
    with pytest.raises(ValueError, match="do not determine the centre"):
        read_sinogram_scan(tmp_path / "half.npy", replace(how, center="auto", reading=SinogramOptions(degrees=180)))


def test_rings_are_removed(tmp_path: Path) -> None:
    pytest.importorskip("algotom")
    geometry = ParallelGeometry(
        image_shape=(64, 64), pixel_mm=1.0, angles=np.linspace(0, np.pi, 361), detectors=500, detector_mm=0.1
    )
    noise = np.random.default_rng(0).normal(0, 0.01, (361, 500))
    clean = (PHANTOM.sinogram(geometry)[0].numpy() + noise).astype(np.float32)
    bad = [200, 260, 310]
    gain = np.zeros(500, np.float32)
    gain[bad] = 0.1, -0.08, 0.12
    error = (remove_rings(clean + gain) - clean).mean(0)[bad]
    assert (abs(error) < 0.3 * abs(gain[bad])).all()


def test_some_views_against_all(tmp_path: Path) -> None:
    _parallel(tmp_path / "a.npy")
    name = f"sinogram:{tmp_path / 'a.npy'}:ends:center=auto"
    few, more = ct_problems(f"{name}:views=20,90:size=48", None, ProblemOptions())
    assert (few.name, more.name) == ("sinogram-20views", "sinogram-90views")
    assert few.batches[0].y.shape == (1, 1, 20, 96) and few.truth.shape == (1, 48, 48)
    images = []
    for problem in (few, more):
        y, measurement, _ = problem.batches[0]
        image = measurement.units.affine.inverse(fbp(y, measurement.operator.geometry, "hann"))  # type: ignore
        images.append(float(problem.measure(problem.to_numpy(image))["psnr"][0]))
    assert images[1] > images[0] + 3
    with pytest.raises(ValueError, match="has 181 views, 200 were asked for"):
        ct_problems(f"{name}:views=200", None, ProblemOptions())
    with pytest.raises(ValueError, match="sod must be a number"):
        ct_problems(f"{name}:sod=a", None, ProblemOptions())


@pytest.mark.data
def test_measured_neutron_sinogram(data_root: Path) -> None:
    """Rods between stripes: stripes leave arcs as bright as a rod, and removing them leaves the rods alone."""
    pytest.importorskip("algotom")
    path = data_root / "raw_projections" / "neutron_rods_sarepy" / "sinogram_360_neutron_image.tif"
    name = f"sinogram:{path}:degrees=360:ends:counts=47600:center=auto:views=90:size=251"
    (plain,), (clean,) = (ct_problems(name + more, None, ProblemOptions()) for more in ("", ":rings"))
    assert abs(clean.source.center - 245.0) < 1  # type: ignore[attr-defined]
    # Nothing is 40 % denser than the mean of the rods, except the arcs.
    dense = [int((problem.truth[0] > 400.0).sum()) for problem in (plain, clean)]
    assert dense[0] > 30 and dense[1] == 0


def test_the_axis_of_truncated_views_is_found_by_opposite_ones(tmp_path: Path) -> None:
    """Their moments say nothing, as a part of the object is outside."""
    _parallel(tmp_path / "a.npy")
    lines = np.load(tmp_path / "a.npy")[:, 32:80]
    np.save(tmp_path / "cut.npy", lines)
    how = ScanSetUp(reading=SinogramOptions(ends=True), center="auto")
    scan = read_sinogram_scan(tmp_path / "cut.npy", how)
    assert detector_shift(scan.sinogram, scan.geometry) is None
    assert scan.center == estimate_center(scan.sinogram, scan.geometry.angle_array)
    assert scan.center == pytest.approx(47.5 + SHIFT - 32, abs=1.5)


def test_values_of_a_scan(tmp_path: Path) -> None:
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="width of a detector element must be positive"):
            ScanSetUp(detector_mm=wrong)
    lines = np.random.default_rng(0).random((2, 6, 9)).astype(np.float32)
    np.save(tmp_path / "a.npy", lines)
    scan = read_sinogram_scan(tmp_path / "a.npy", ScanSetUp(center=3.0, detector_mm=0.5))
    assert scan.sinogram.shape == (2, 1, 6, 9) and scan.center == 3.0
    np.testing.assert_array_equal(scan.sinogram[:, 0], lines)
    # Seven columns lie symmetrically about the third one.
    assert scan.geometry.image_shape == (7, 7) and scan.geometry.pixel_rc == (0.5, 0.5)
    assert scan.geometry.detector_offset_mm == 0.5
    right = read_sinogram_scan(tmp_path / "a.npy", ScanSetUp(center=5.0, detector_mm=0.5), side=14).geometry
    assert right.image_shape == (14, 14) and right.pixel_rc == (0.25, 0.25) and right.detector_offset_mm == -0.5
    for wrong in (0.0, 8.0, -1.0):
        with pytest.raises(ValueError, match=r"lies outside the detector's columns 0\.\.8"):
            read_sinogram_scan(tmp_path / "a.npy", ScanSetUp(center=wrong))


def test_rings_are_removed_from_each_slice(tmp_path: Path) -> None:
    pytest.importorskip("algotom")
    lines = np.random.default_rng(0).random((2, 40, 64)).astype(np.float32)
    np.save(tmp_path / "a.npy", lines)
    found = read_sinogram_scan(tmp_path / "a.npy", ScanSetUp(rings=True)).sinogram
    for n in range(2):
        np.testing.assert_array_equal(found[n, 0], remove_rings(lines[n]))
    assert abs(found[:, 0].numpy() - lines).max() > 0.01
