"""Walnuts by name, on files in the published layout with exact line integrals of ellipsoids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from deft_ct.datasets.walnuts import Walnuts, WalnutScanOptions
from deft_ct.evaluation.measuring import measure_part
from deft_ct.evaluation.problem import Problem
from deft_ct.io.errors import ReadError
from deft_ct.methods.registry import Networks
from deft_ct.operators.ct import RayTransform
from deft_ct.problems.by_name import ProblemOptions, ct_problems
from tests.support.walnut_layout import COLUMNS, ROWS, line_integrals, nut_volume, orbit_vectors, write_walnut

VIEWS = 24


@pytest.fixture(scope="module")
def walnuts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("walnuts")
    write_walnut(root / "a", 3, (1, 2), VIEWS)
    return write_walnut(root, 11, (2,), VIEWS)


def _problem(root: Path, more: str = "") -> Problem:
    (problem,) = ct_problems(f"walnut:{root}:views={VIEWS}:bins=2:size=25{more}", None, ProblemOptions())
    return problem


def test_counts_become_the_line_integrals_of_their_own_view(walnuts: Path) -> None:
    scan = Walnuts(walnuts).scan(3, WalnutScanOptions(orbits=(1, 2), views=12, bins=1, side=9))
    assert scan.sinogram.shape == (1, 24, ROWS, COLUMNS) and scan.geometry.sinogram_shape == (24, ROWS, COLUMNS)
    vectors = np.concatenate([orbit_vectors(orbit)[:1200:100] for orbit in (1, 2)])
    for n in (0, 5, 12, 23):
        np.testing.assert_allclose(scan.sinogram[0, n], line_integrals(vectors[n]), atol=2e-3)
    assert scan.geometry.pixel_mm == pytest.approx((50.1 / 9,) * 3)


def test_the_geometry_is_that_of_the_reference(walnuts: Path) -> None:
    """The reference, projected, gives the data; mirrored or turned round it does not."""
    source, how = Walnuts(walnuts), WalnutScanOptions(orbits=(1, 2), views=VIEWS, bins=2, side=50)
    scan = source.scan(3, how)
    operator, volume = RayTransform(scan.geometry), source.reference(3, side=50)

    def left(image: np.ndarray) -> float:
        predicted = operator(torch.from_numpy(np.ascontiguousarray(image))[None])
        return float((predicted - scan.sinogram).norm() / scan.sinogram.norm())

    right = left(volume)
    assert right < 0.03
    assert min(left(np.flip(volume, axis)) for axis in (0, 1, 2)) > 4 * right
    assert left(volume.transpose(0, 2, 1)) > 4 * right


def test_the_reference_is_averaged_over_the_new_voxels(walnuts: Path) -> None:
    found = Walnuts(walnuts).reference(3, side=17)
    np.testing.assert_allclose(found, nut_volume(17, 50.1 / 17, oversampling=6), atol=0.004)
    assert abs(found - nut_volume(17, 50.1 / 17, oversampling=6)).mean() < 3e-4


def test_walnut_by_name(walnuts: Path) -> None:
    problem = _problem(walnuts)
    assert problem.image_ids == ["Walnut3", "Walnut11"] == problem.patients and problem.split is None
    assert problem.truth.shape == (2, 25, 25, 25) and [len(b.y) for b in problem.batches] == [1, 1]
    best = problem.measure(problem.truth)
    assert best["rmse"].tolist() == [0.0, 0.0] and np.allclose(best["ssim"], 1)
    (walnut,) = measure_part(problem.one_batch(0), Networks().build("cgls", {}), samples=1)
    assert walnut.reason == "" and walnut.values["psnr"] > 25
    both = _problem(walnuts, ":orbits=1,2")
    assert both.image_ids == ["Walnut3"] and both.batches[0].y.shape == (1, 1, 48, 30, 24)
    assert problem.content() != both.content()


def test_walnut_faults(walnuts: Path, tmp_path: Path) -> None:
    for more, message in (
        (":orbits=3", "holds no walnut with tubeV3 and"), (":orbits=4", "must be of 1, 2 and 3"),
        (":orbits=2,2", "each once"),
    ):  # fmt: skip
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            _problem(walnuts, more)
    with pytest.raises(ValueError, match="views must divide 1200, got 7"):
        ct_problems(f"walnut:{walnuts}:views=7", None, ProblemOptions())
    with pytest.raises(ValueError, match="size must be one positive integer, got '8,9'"):
        ct_problems(f"walnut:{walnuts}:size=8,9", None, ProblemOptions())
    with pytest.raises(ValueError, match="bins must divide the 60 x 48 elements of the detector, got 7"):
        Walnuts(walnuts).scan(3, WalnutScanOptions(views=VIEWS, bins=7))
    with pytest.raises(FileNotFoundError, match=r"holds no Walnut\*/Projections"):
        ct_problems(f"walnut:{tmp_path}", None, ProblemOptions())
    root = write_walnut(tmp_path, 1, (2,), 3)
    place = root / "Walnut1" / "Projections" / "tubeV2"
    how = WalnutScanOptions(views=3, bins=1, side=8)
    tifffile.imwrite(place / "scan_000800.tif", np.zeros((4, 5), np.uint16))
    with pytest.raises(ReadError, match=r"scan_000800\.tif.*unlike the dark field"):
        Walnuts(root).scan(1, how)
    (place / "scan_000800.tif").unlink()
    with pytest.raises(FileNotFoundError, match=r"scan_000800\.tif"):
        Walnuts(root).scan(1, how)
    (place / "io000001.tif").write_bytes((place / "di000000.tif").read_bytes())
    (place / "io000000.tif").write_bytes((place / "di000000.tif").read_bytes())
    with pytest.raises(ReadError, match="2880 elements are no brighter than the dark"):
        Walnuts(root).scan(1, how)
    (place / "scan_geom_corrected.geom").write_text("1 2 nan\n")
    with pytest.raises(ReadError, match="holds 1 lines, expected 1201"):
        Walnuts(root).scan(1, how)
    (root / "Walnut1" / "Reconstructions" / "full_AGD_50_000010.tiff").unlink()
    with pytest.raises(ReadError, match="lacks the slice full_AGD_50_000010"):
        Walnuts(root).reference(1, side=8)
