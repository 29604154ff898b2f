"""Walnuts on files in the published layout with exact line integrals of ellipsoids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from deft_ct.datasets.check import check_data
from deft_ct.datasets.walnuts import Walnuts, WalnutScanOptions, projection_file, read_vectors, walnut_orbits
from deft_ct.io.errors import ReadError
from deft_ct.operators.ct import RayTransform
from tests.support.walnut_layout import (
    COLUMNS,
    ROWS,
    line_integrals,
    nut_volume,
    orbit_vectors,
    write_two_walnuts,
    write_walnut,
)

VIEWS = 24


@pytest.fixture(scope="module")
def walnuts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_two_walnuts(tmp_path_factory.mktemp("walnuts"), VIEWS)


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
    found, true = Walnuts(walnuts).reference(3, side=17), nut_volume(17, 50.1 / 17, oversampling=5)
    np.testing.assert_allclose(found, true, atol=0.004)
    assert abs(found - true).mean() < 3e-4


def test_bins_add_counts_and_widen_the_elements(walnuts: Path) -> None:
    """Line integrals of bins are those of the mean transmission, weighted by the open beam."""
    fine, coarse = (Walnuts(walnuts).scan(11, WalnutScanOptions(views=6, bins=bins, side=9)) for bins in (1, 3))
    assert coarse.sinogram.shape == (1, 6, ROWS // 3, COLUMNS // 3)
    means = np.exp(-fine.sinogram[0].numpy()).reshape(6, ROWS // 3, 3, COLUMNS // 3, 3).mean((2, 4))
    np.testing.assert_allclose(coarse.sinogram[0], -np.log(means), atol=0.02)
    for name in ("row_step_mm", "column_step_mm"):
        np.testing.assert_allclose(getattr(coarse.geometry, name), 3 * np.asarray(getattr(fine.geometry, name)))
    for name in ("source_mm", "detector_mm"):
        np.testing.assert_array_equal(getattr(coarse.geometry, name), getattr(fine.geometry, name))


def test_which_walnuts_there_are(walnuts: Path, tmp_path: Path) -> None:
    found = Walnuts(walnuts)
    assert found.numbers((2,)) == [3, 11] and found.numbers((1, 2)) == [3] and found.numbers((3,)) == []
    assert found.referenced() == [3, 11]
    assert walnut_orbits(walnuts)[3, 1] == walnuts / "a" / "Walnut3" / "Projections" / "tubeV1"
    for name in ("Walnut5/Other/tubeV1", "Nut6/Projections/tubeV1", "Walnut7/Projections/tubeV4"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "Walnut8" / "Projections").mkdir(parents=True)
    (tmp_path / "Walnut8" / "Projections" / "tubeV1").touch()
    assert walnut_orbits(tmp_path) == {}
    with pytest.raises(FileNotFoundError, match=r"holds no Walnut\*/Projections"):
        Walnuts(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        Walnuts(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"holds no Walnut4/Reconstructions"):
        found.reference(4, side=8)


def test_lines_count_against_the_files() -> None:
    assert [projection_file(n) for n in (0, 1, 1200)] == ["scan_001200.tif", "scan_001199.tif", "scan_000000.tif"]


def test_options_of_a_scan() -> None:
    assert WalnutScanOptions(side=100).voxel_mm == pytest.approx(0.501)
    assert (WalnutScanOptions().views, WalnutScanOptions().bins, WalnutScanOptions().orbits) == (120, 6, (2,))
    assert WalnutScanOptions(views=1, bins=1, side=1, orbits=(3, 1)).views == 1
    for wrong, match in (
        ({"orbits": ()}, "each once"), ({"orbits": (1, 1)}, "each once"), ({"orbits": (0,)}, "of 1, 2 and 3"),
        ({"views": 0}, "views must divide 1200, got 0"), ({"views": 7}, "got 7"), ({"views": -3}, "got -3"),
        ({"bins": 0}, "at least 1, got 0 and 128"), ({"side": 0}, "at least 1, got 6 and 0"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=match):
            WalnutScanOptions(**wrong)


@pytest.mark.parametrize("change", ["words", "inf", "columns"])
def test_a_geometry_of_something_else(tmp_path: Path, change: str) -> None:
    lines = [" ".join(["1"] * 12)] * 1201
    path = tmp_path / "x.geom"
    path.write_text("\n".join([*lines, "", ""]))
    assert read_vectors(path).shape == (1201, 12)
    lines[7] = {"words": "a" + lines[7][1:], "inf": "inf" + lines[7][1:], "columns": lines[7] + " 1"}[change]
    path.write_text("\n".join(lines))
    with pytest.raises(ReadError, match="not a list of numbers" if change == "words" else "expected 1201 of 12 finite"):
        read_vectors(path)
    with pytest.raises(FileNotFoundError):
        read_vectors(tmp_path / "none.geom")


@pytest.mark.parametrize("change", ["shape", "nan"])
def test_a_slice_of_the_reference_that_is_none(tmp_path: Path, change: str) -> None:
    place = write_walnut(tmp_path, 1, (2,), 1) / "Walnut1" / "Reconstructions"
    image = np.zeros((51, 50 if change == "shape" else 51), np.float32)
    image[3, 4] = np.nan if change == "nan" else 0
    tifffile.imwrite(place / "full_AGD_50_000002.tiff", image)
    with pytest.raises(ReadError, match=r"000002.*expected a finite image of 51 x 51"):
        Walnuts(tmp_path).reference(1, side=8)


def test_elements_without_a_count_read_the_least_transmission(tmp_path: Path) -> None:
    root = write_walnut(tmp_path, 1, (2,), 3)
    place = root / "Walnut1" / "Projections" / "tubeV2"
    tifffile.imwrite(place / "scan_001200.tif", np.zeros((COLUMNS, ROWS), np.uint16))
    scan = Walnuts(root).scan(1, WalnutScanOptions(views=3, bins=1, side=8))
    np.testing.assert_allclose(scan.sinogram[0, 0], -np.log(1e-6), rtol=1e-6)
    tifffile.imwrite(place / "scan_001200.tif", np.zeros((COLUMNS, ROWS, 3), np.uint8), photometric="rgb")
    with pytest.raises(ReadError, match="expected one of two axes"):
        Walnuts(root).scan(1, WalnutScanOptions(views=3, bins=1, side=8))


def test_a_complete_walnut_is_called_so(tmp_path: Path) -> None:
    root = write_walnut(tmp_path, 4, (1,), 3)
    place = root / "Walnut4" / "Projections" / "tubeV1"
    for n in range(1201):
        (place / projection_file(n)).touch()
    found = check_data(root)
    assert found.complete
    assert {file.what for file in found.files} == {"60 x 48", "1201 views", "1201 of 1201 projections"}
    assert found.notes[:2] == [
        "1 walnuts, 1 orbits", "1 with a reference reconstruction (Reconstructions/full_AGD_50_*.tiff)",
    ]  # fmt: skip
    assert found.commands == [f"deft-ct compare --data walnut:{root} --method cgls --method tv --out OUT"]
    (place / projection_file(0)).unlink()
    assert "1200 of 1201 projections" in {file.what for file in check_data(root).files}


def test_walnut_faults(walnuts: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bins must divide the 60 x 48 elements of the detector, got 7"):
        Walnuts(walnuts).scan(3, WalnutScanOptions(views=VIEWS, bins=7))
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
