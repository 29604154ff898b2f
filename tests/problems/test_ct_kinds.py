"""AAPM, LDCT and folders by name, on DICOM files in the published folder layouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from skimage.metrics import structural_similarity

from deft_ct.ct.scan import Scan
from deft_ct.io import sample_series_path
from deft_ct.problems.by_name import ProblemOptions, ct_problems
from deft_ct.problems.ct_dm4ct import DM4CTProblem

SIDE = 24
SCAN = [Scan(views=6, photons=1e5)]


def _disc(value: float) -> np.ndarray:
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    return np.where(x**2 + y**2 < 81, 1024 + value + 3 * x, 24.0).astype(np.uint16)


def _series(folder: Path, uid: int, value: float, slices: int = 3, noise: float = 0.0) -> None:
    folder.mkdir(parents=True)
    template = pydicom.dcmread(sample_series_path() / "006.dcm")
    rng = np.random.default_rng(uid)
    for n in range(slices):
        template.Rows = template.Columns = SIDE
        image = _disc(value + n) + rng.normal(0, noise, (SIDE, SIDE)).round().clip(-20, 20)
        template.PixelData = image.astype(np.uint16).tobytes()
        template.SOPInstanceUID = template.file_meta.MediaStorageSOPInstanceUID = f"1.2.{uid}.{n}"
        template.SeriesInstanceUID = f"1.2.{uid}"
        template.ImagePositionPatient = [0, 0, float(n)]
        template.PixelSpacing, template.RescaleIntercept = [10.0, 10.0], -1024
        template.save_as(folder / f"{n}.IMA")


@pytest.fixture(scope="module")
def aapm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("aapm")
    for k, patient in enumerate(("L067", "L506")):
        _series(root / patient / "full_1mm", 10 * k + 1, 40.0 + k)
        _series(root / patient / "quarter_1mm", 10 * k + 2, 40.0 + k, noise=9.0)
        _series(root / patient / "full_1mm_sharp", 10 * k + 3, 90.0, slices=2)
    return root


def test_splits_and_kinds(aapm: Path) -> None:
    (test,) = ct_problems(f"aapm:{aapm}", SCAN, ProblemOptions())
    assert test.image_ids == ["L506/0", "L506/1", "L506/2"] and test.patients == ["L506"] * 3 and test.split == "test"
    assert test.data == "aapm:full_1mm_B30"
    (train,) = ct_problems(f"aapm:{aapm}:train:1mm:B30", SCAN, ProblemOptions(every=2))
    assert train.image_ids == ["L067/0", "L067/2"] and train.split == "train"
    (both,) = ct_problems(f"aapm:{aapm}:all:D45", SCAN, ProblemOptions(limit=3))
    assert both.image_ids == ["L067/0", "L067/1", "L506/1"] and both.split is None
    assert float(both.truth.max()) > float(test.truth.max())
    with pytest.raises(FileNotFoundError, match=r"no such images of L506; it has them of nobody.*data check"):
        ct_problems(f"aapm:{aapm}:3mm", SCAN, ProblemOptions())
    with pytest.raises(ValueError, match="1mm and 3mm exclude each other"):
        ct_problems(f"aapm:{aapm}:1mm:3mm", SCAN, ProblemOptions())


def test_pairs_of_doses(aapm: Path) -> None:
    """The quarter-dose image is scanned, the full-dose image is the truth."""
    scan = [Scan(views=6, photons=None)]
    (full,) = ct_problems(f"aapm:{aapm}", scan, ProblemOptions())
    (pair,) = ct_problems(f"aapm:{aapm}:dose=quarter", scan, ProblemOptions())
    np.testing.assert_array_equal(pair.truth, full.truth)
    assert not torch.equal(pair.batches[0].y, full.batches[0].y)
    assert pair.content() != full.content() and "scanned: aapm:quarter_1mm_B30" in pair.conventions()


def test_dm4ct_as_published(aapm: Path) -> None:
    """Against the protocol written out in NumPy: scaling to [0, 1], a mean transmittance of one half, data range 2."""
    clean, noisy = ct_problems(f"aapm:{aapm}:dm4ct=i,iv", None, ProblemOptions())
    assert (clean.name, noisy.name) == ("dm4ct-i", "dm4ct-iv")
    assert isinstance(clean, DM4CTProblem)
    low, high = clean.limits
    assert low == -1000.0 and len(clean.batches) == 3
    y, measurement, _ = clean.batches[0]
    angles = measurement.operator.geometry.angle_array  # type: ignore[attr-defined]
    assert y.shape == (1, 1, 40, SIDE) and abs(angles[-1] - angles[0] - np.pi) < 1e-9
    assert float((-y).exp().mean()) == pytest.approx(0.5, abs=1e-4)
    scaled = (clean.truth[0] - low) / (high - low)
    direct = measurement.operator(torch.from_numpy(scaled)[None, None])
    np.testing.assert_allclose(y / y.max(), direct / direct.max(), atol=1e-5)
    made = clean.truth + np.random.default_rng(0).normal(0, 30, clean.truth.shape).astype(np.float32)
    found = clean.measure(made)
    a, b = (2 * (values[0].astype(np.float64) - low) / (high - low) - 1 for values in (made, clean.truth))
    assert found["psnr"][0] == pytest.approx(10 * np.log10(4 / np.mean((a - b) ** 2)), abs=1e-9)
    assert found["ssim"][0] == pytest.approx(structural_similarity(a, b, data_range=2.0), abs=1e-9)
    # Rings: the same error in every view, in a quarter of the elements; noise of 1e4 photons on top.
    error = noisy.batches[0].y - noisy.batches[0].measurement.operator(
        noisy.batches[0].measurement.units.affine(torch.from_numpy(noisy.truth[0])[None, None])  # type: ignore[union-attr]
    )
    assert float(error.mean(2).std()) > 3 * float(error.std(2).mean()) / np.sqrt(80)


def test_dm4ct_corrected_is_named_apart(aapm: Path) -> None:
    published, corrected = ct_problems(f"aapm:{aapm}:dm4ct=iv:dm4ct-corrected=iv", None, ProblemOptions())
    assert (published.name, corrected.name) == ("dm4ct-iv", "dm4ct-corrected-iv")
    y, measurement, _ = corrected.batches[0]
    geometry = measurement.operator.geometry  # type: ignore[attr-defined]
    assert len({round(float(a) % np.pi, 9) for a in geometry.angle_array}) == 80 and y.shape[-1] > SIDE
    assert "fault" in corrected.describe_measurement() and corrected.content() != published.content()
    with pytest.raises(ValueError, match="leave out --scan"):
        ct_problems(f"aapm:{aapm}:dm4ct=i", SCAN, ProblemOptions())
    with pytest.raises(ValueError, match="must be of i, ii, iii, iv, v, got 'vi'"):
        ct_problems(f"aapm:{aapm}:dm4ct=vi", None, ProblemOptions())


def test_ldct_images(tmp_path: Path) -> None:
    for n, patient in enumerate(("C012", "L004")):
        _series(tmp_path / "LDCT" / patient / "08-21-2018-84608" / "1.000000-Full Dose Images-1", 50 + n, 30.0)
    _series(tmp_path / "LDCT" / "L004" / "08-21-2018-84608" / "2.000000-Low dose images-2", 60, 30.0, noise=9.0)
    (full,) = ct_problems(f"ldct:{tmp_path}", SCAN, ProblemOptions(every=2))
    assert full.image_ids == ["C012/0", "C012/2", "L004/1"] and full.patients == ["C012", "C012", "L004"]
    (pair,) = ct_problems(f"ldct:{tmp_path}:dose=low", SCAN, ProblemOptions())
    assert pair.patients == ["L004"] * 3
    with pytest.raises(FileNotFoundError, match="no such images of L999"):
        ct_problems(f"ldct:{tmp_path}:patients=L999", SCAN, ProblemOptions())


def test_folders(aapm: Path) -> None:
    (problem,) = ct_problems(f"folder:{aapm / 'L506' / 'full_1mm'}:size=12", SCAN, ProblemOptions(limit=2))
    assert len(problem) == 2 and problem.truth.shape == (2, 12, 12) and len(set(problem.patients)) == 1
