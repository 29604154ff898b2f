"""Measured scans by name, on files in the published layouts with exact line integrals of phantoms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io
import tifffile
import torch

from deft_ct.datasets.phantoms import Ellipse, EllipsePhantom
from deft_ct.datasets.two_detect import PIXEL_MM, TwoDetect
from deft_ct.io.errors import ReadError
from deft_ct.operators.ct import FanGeometry, fbp
from deft_ct.problems.by_name import ProblemOptions, ct_problems

MATERIAL = 0.0333
DISC = EllipsePhantom(
    (
        Ellipse(value=MATERIAL, center_mm=(1.0, -2.0), half_axes_mm=(30.0, 28.0)),
        Ellipse(value=-MATERIAL, center_mm=(8.0, 10.0), half_axes_mm=(6.0, 4.0)),
    )
)


def _htc(folder: Path, name: str, kind: str, angles: np.ndarray, seg: str | None) -> None:
    pixel = 0.2 * 410.66 / 553.74
    geometry = FanGeometry(
        image_shape=(512, 512), pixel_mm=pixel, angles=np.radians(angles), detectors=560, detector_mm=0.2,
        source_to_center_mm=410.66, source_to_detector_mm=553.74,
    )  # fmt: skip
    parameters = {
        "distanceSourceOrigin": 410.66, "distanceSourceDetector": 553.74, "distanceUnit": "mm", "angles": angles,
        "numDetectorsPost": 560, "pixelSizePost": 0.2, "effectivePixelSizePost": pixel,
    }  # fmt: skip
    struct = "CtDataFull" if kind == "full" else "CtDataLimited"
    data = {struct: {"type": "2d", "sinogram": DISC.sinogram(geometry)[0].double().numpy(), "parameters": parameters}}
    scipy.io.savemat(folder / f"{name}_{kind}.mat", data)
    if seg is not None:
        mask = DISC.image((512, 512), pixel)[0].numpy() > MATERIAL / 2
        scipy.io.savemat(folder / f"{name}_{seg}recon_fbp_seg.mat", {"reconFullFbpSeg": mask})


@pytest.fixture(scope="module")
def htc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("htc")
    _htc(root, "htc2022_ta", "full", np.arange(0, 360.5, 0.5), "full_")
    _htc(root, "htc2022_01a", "limited", np.arange(75, 165.5, 0.5), "")
    _htc(root, "htc2022_01a", "full", np.arange(0, 10, 0.5), None)
    _htc(root, "htc2022_07b", "limited", np.arange(0, 30.5, 0.5), None)
    return root


def test_htc2022(htc: Path) -> None:
    (problem,) = ct_problems(f"htc2022:{htc}:size=128", None, ProblemOptions())
    assert problem.image_ids == ["htc2022_01a", "htc2022_ta"], "the disc without a reference is left out"
    assert [batch.y.shape[2] for batch in problem.batches] == [181, 721] and problem.split == "test"
    np.testing.assert_array_equal(problem.measure(problem.truth)["score"], 1.0)
    scores = []
    for y, measurement, _ in problem.batches:
        image = fbp(y, measurement.operator.geometry)  # type: ignore[attr-defined]
        scores.append(problem.to_numpy(measurement.units.affine.inverse(image))[0])  # type: ignore[union-attr]
    found = problem.measure(np.stack(scores))["score"]
    assert found[1] > 0.95, "the full scan shows the disc in its place"
    assert found[0] < found[1], "and a wedge shows less of it"
    np.testing.assert_array_equal(problem.measure(np.zeros_like(problem.truth))["score"], 0.0)


def test_wedges_of_htc2022(htc: Path) -> None:
    some = ct_problems(f"htc2022:{htc}:size=64:degrees=30,60", None, ProblemOptions(limit=1))
    assert [problem.batches[0].y.shape[2] for problem in some] == [61, 121]
    assert [problem.name for problem in some] == ["htc2022-30deg", "htc2022-60deg"]
    with pytest.raises(ValueError, match="leave out --scan"):
        ct_problems(f"htc2022:{htc}", [], ProblemOptions())
    with pytest.raises(ValueError, match="size must divide 512, got 100"):
        ct_problems(f"htc2022:{htc}:size=100", None, ProblemOptions())


def test_htc2022_without_references(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no htc2022_\*_full\.mat"):
        ct_problems(f"htc2022:{tmp_path}", None, ProblemOptions())
    _htc(tmp_path, "htc2022_07b", "limited", np.arange(0, 30.5, 0.5), None)
    with pytest.raises(ValueError, match="no reference segmentation of htc2022_07b"):
        ct_problems(f"htc2022:{tmp_path}", None, ProblemOptions())


def _raw_2detect(folder: Path, number: int, shift_mm: float) -> None:
    """The layout of the raw archive: 1912 elements of 0.0748 mm, 3601 views, counts with dark and flat fields."""
    place = folder / f"slice{number:05d}" / "mode2"
    place.mkdir(parents=True)
    geometry = FanGeometry(
        image_shape=(8, 8), pixel_mm=1.0, angles=np.linspace(0, 2 * np.pi, 3601), detectors=1912, detector_mm=0.0748,
        source_to_center_mm=431.019989, source_to_detector_mm=529.000488, detector_offset_mm=shift_mm,
    )  # fmt: skip
    transmission = np.exp(-DISC.sinogram(geometry)[0].double().numpy())
    dark, flat = np.full((1, 1912), 200, np.uint16), np.full((1, 1912), 40200, np.uint16)
    tifffile.imwrite(place / "sinogram.tif", np.rint(200 + 40000 * transmission).astype(np.uint16))
    tifffile.imwrite(place / "dark.tif", dark)
    tifffile.imwrite(place / "flat1.tif", flat - 100)
    tifffile.imwrite(place / "flat2.tif", flat + 100)


def _reconstruction(folder: Path, number: int) -> None:
    """The reference: 1024 of 2048 pixels from number 511 on, so one pixel beside the centre, attenuation per pixel."""
    place = folder / f"slice{number:05d}" / "mode2"
    place.mkdir(parents=True)
    whole = DISC.image((1026, 1026), PIXEL_MM, oversampling=2)[0].numpy() * PIXEL_MM
    tifffile.imwrite(place / "reconstruction.tif", whole[:1024, :1024].astype(np.float32))


@pytest.fixture(scope="module")
def two_detect(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("2detect")
    _raw_2detect(root / "raw", 7, -0.1496)
    _raw_2detect(root / "raw", 2831, 0.0)
    for number in (7, 2831):
        _reconstruction(root / "recseg", number)
    return root


def test_2detect(two_detect: Path) -> None:
    """Images of the measured counts lie where the references do, with and without the shift of the detector."""
    (problem,) = ct_problems(f"2detect:{two_detect}:views=360:size=256", None, ProblemOptions())
    assert problem.image_ids == ["slice00007", "slice02831"] and [len(b.y) for b in problem.batches] == [1, 1]
    true = DISC.image((256, 256), 4 * PIXEL_MM, oversampling=8)[0].numpy()
    for n, (y, measurement, _) in enumerate(problem.batches):
        assert y.shape == (1, 1, 360, 956)
        scale = measurement.units.affine  # type: ignore[union-attr]
        np.testing.assert_allclose(scale(problem.truth[n]), true, atol=0.2 * MATERIAL)
        assert abs(scale(problem.truth[n]) - true).mean() < 1e-2 * MATERIAL
        image = fbp(y, measurement.operator.geometry)[0, 0].numpy()  # type: ignore[attr-defined]
        shifted = {step: float(abs(np.roll(image, step, (0, 1)) - true).mean()) for step in (-1, 0, 1)}
        assert min(shifted, key=shifted.__getitem__) == 0 and shifted[0] < 0.03 * MATERIAL
    assert problem.measure(problem.truth)["rmse"].tolist() == [0.0, 0.0]


def test_2detect_faults(two_detect: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no slice"):
        ct_problems(f"2detect:{two_detect}:mode=1", None, ProblemOptions())
    with pytest.raises(ValueError, match="views must divide 3600, got 7"):
        ct_problems(f"2detect:{two_detect}:views=7", None, ProblemOptions())
    with pytest.raises(FileNotFoundError, match="archive of their own"):
        ct_problems(f"2detect:{two_detect / 'raw'}", None, ProblemOptions())
    place = tmp_path / "slice00001" / "mode2"
    place.mkdir(parents=True)
    tifffile.imwrite(place / "sinogram.tif", np.zeros((3, 4), np.uint16))
    with pytest.raises(ReadError, match=r"holds \(3, 4\) counts, expected \(3601, 1912\)"):
        TwoDetect(tmp_path).sinogram(1)


def test_geometry_of_2detect_is_that_of_the_views_kept(two_detect: Path) -> None:
    source = TwoDetect(two_detect)
    few, all_views = source.geometry(7, views=9), source.geometry(7)
    np.testing.assert_allclose(few.angle_array, all_views.angle_array[::400])
    assert torch.equal(source.sinogram(7, views=9), source.sinogram(7)[:, ::400])
