"""LoDoPaB-CT on files made here in exactly the published layout (names, keys, shapes, counts)."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from deft_ct.datasets import lodopab
from deft_ct.datasets.lodopab import LoDoPaB, LoDoPaBSlices, ground_truth_from_hu


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """All 28 file pairs of the validation part; chunks that were never written take no space."""
    for number in range(28):
        # The trap of the real set: the last ground-truth file keeps 128 rows, the last observation file has 66.
        rows = 3522 - 27 * 128 if number == 27 else 128
        for kind, count, shape in (("ground_truth", 128, (362, 362)), ("observation", rows, (1000, 513))):
            with h5py.File(tmp_path / f"{kind}_validation_{number:03d}.hdf5", "w") as file:
                file.create_dataset("data", (count, *shape), np.float32, chunks=(1, *shape))
    with h5py.File(tmp_path / "ground_truth_validation_001.hdf5", "a") as file:
        file["data"][2] = 1.0
    with h5py.File(tmp_path / "observation_validation_001.hdf5", "a") as file:
        file["data"][2] = np.arange(1000, dtype=np.float32)[:, None] / 1000 / 81.35858
    return tmp_path


def test_sample_in_physical_units(root: Path) -> None:
    data = LoDoPaB(root, "validation")
    assert len(data) == 3522
    sample = data[130]  # file 1, row 2
    assert sample.attenuation.shape == (1, 362, 362) and sample.observation.shape == (1, 1000, 513)
    assert float(sample.attenuation[0, 0, 0]) == pytest.approx(0.08135858, rel=1e-6)
    assert float(sample.observation[0, 500, 7]) == pytest.approx(0.5, rel=1e-5)
    assert float(data[0].attenuation.max()) == 0.0
    assert data[-1].index == 3521 and sample.patient is None
    with pytest.raises(IndexError):
        data[3522]


def test_fewer_views_match_the_geometry(root: Path) -> None:
    data = LoDoPaB(root, "validation", views=50)
    sample = data[130]
    assert sample.observation.shape == (1, 50, 513) == (1, *data.geometry.sinogram_shape)
    assert float(sample.observation[0, 1, 0]) == pytest.approx(0.02, rel=1e-5)
    full = LoDoPaB(root, "validation").geometry.angle_array
    np.testing.assert_array_equal(data.geometry.angle_array, full[::20])


def test_patient_lists(root: Path) -> None:
    path = root / "patient_ids_rand_validation.csv"
    path.write_text("\n".join(str(632 + n // 60) for n in range(3522)) + "\n")
    assert LoDoPaB(root, "validation")[61].patient == 633
    path.write_text("1\n2\n")
    with pytest.raises(ValueError, match="lists 2 samples, expected 3522"):
        LoDoPaB(root, "validation")


def test_bad_folders(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'test', 'train', 'validation'"):
        LoDoPaB(root, "val")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="divide 1000"):
        LoDoPaB(root, "validation", views=60)
    with pytest.raises(FileNotFoundError, match=r"ground_truth_test_000\.hdf5 is missing.* 28 files"):
        LoDoPaB(root, "test")
    (root / "observation_validation_013.hdf5").unlink()
    with pytest.raises(FileNotFoundError, match=r"observation_validation_013"):
        LoDoPaB(root, "validation")


def test_wrong_files(root: Path) -> None:
    with h5py.File(root / "ground_truth_validation_000.hdf5", "w") as file:
        file["data"] = np.zeros((1, 4, 4))
    with pytest.raises(ValueError, match="is not of LoDoPaB-CT"):
        LoDoPaB(root, "validation")


def test_ground_truth_formula() -> None:
    """Against the published constants, worked by hand: water is 20 / 81.35858, 3071 HU and above is 1, air is 0.02."""
    hu = np.zeros((512, 512))
    hu[80, 100], hu[81, 100], hu[82, 100] = 3071, -1000, -2000
    truth = ground_truth_from_hu(hu, np.zeros((362, 362)))
    assert truth.shape == (362, 362)
    assert truth[25, 5] == 1.0, "cut by 75 and transposed"
    np.testing.assert_allclose(truth[25, 6], 0.02 / 81.35858, rtol=1e-4)
    assert truth[25, 7] == 0.0
    np.testing.assert_allclose(truth[0, 0], 20 / 81.35858, rtol=1e-6)
    with pytest.raises(ValueError, match=r"\(512, 512\)"):
        ground_truth_from_hu(np.zeros((256, 256)), np.zeros((362, 362)))


def test_rows_and_values_that_are_missing(root: Path) -> None:
    data = LoDoPaB(root, "validation")
    for n in (-3522, -1, 3521):
        assert data[n].index == n % 3522
    for n in (3522, -3523):
        with pytest.raises(IndexError, match=f"sample {n} of 3522"):
            data[n]
    with h5py.File(root / "ground_truth_validation_001.hdf5", "a") as file:
        file["data"][3, 5, 7] = np.nan
    with pytest.raises(ValueError, match="sample 3 holds values that are not finite"):
        data[131]
    with h5py.File(root / "observation_validation_002.hdf5", "w") as file:
        file.create_dataset("data", (4, 1000, 513), np.float32, chunks=(1, 1000, 513))
    assert data[2 * 128 + 3].index == 259
    with pytest.raises(ValueError, match="holds 4 samples; number 4 is missing"):
        data[2 * 128 + 4]
    for views in (0, -1, 3):
        with pytest.raises(ValueError, match=f"views must divide 1000, got {views}"):
            LoDoPaB(root, "validation", views=views)
    assert LoDoPaB(root, "validation", views=1)[0].observation.shape == (1, 1, 513)


def test_patients_follow_their_samples(root: Path) -> None:
    path = root / "patient_ids_rand_validation.csv"
    path.write_text("\n".join(map(str, range(3522))) + "\n")
    data = LoDoPaB(root, "validation")
    assert [data[n].patient for n in (0, 127, 128, 3521, -1)] == [0, 127, 128, 3521, 3521]
    path.write_text("one\n")
    with pytest.raises(ValueError, match="is not a list of patient numbers"):
        LoDoPaB(root, "validation")


def test_the_numbers_of_the_paper() -> None:
    """42,895 samples of 752 patients; a ray without a photon reads ln(4096 / 0.1) = 10.62."""
    with_truth = {part: count for part, count in lodopab.SAMPLES.items() if part != "challenge"}
    assert sum(with_truth.values()) == 42895 and lodopab.SAMPLES["challenge"] == 3678
    assert sum(lodopab.PATIENTS.values()) == 752
    assert lodopab.PATIENTS["validation"] == lodopab.PATIENTS["test"] == 60
    assert np.log(lodopab.PHOTONS / lodopab.MIN_PHOTONS) == pytest.approx(10.62035, abs=1e-5)
    assert lodopab.MU_MAX == pytest.approx(81.35858, abs=1e-5)
    assert (lodopab.IMAGE_SHAPE, lodopab.SINOGRAM_SHAPE, lodopab.SAMPLES_PER_FILE) == ((362, 362), (1000, 513), 128)


def test_true_images_as_slices(root: Path) -> None:
    """Stored is the attenuation over its largest value; water (20 per m) is 0 HU, air (0.02 per m) is -1000 HU."""
    with h5py.File(root / "ground_truth_validation_006.hdf5", "a") as file:
        file["data"][845 - 6 * 128] = 20 / lodopab.MU_MAX
    data = LoDoPaBSlices(LoDoPaB(root, "validation"), every=65, limit=4)
    assert data.positions == [390, 845, 1755, 2665] and len(data) == 4, "spread over the part without patients"
    assert (data.name, data.split, data.image_shape) == ("lodopab:validation", "val", (362, 362))
    assert data.patients == ["390", "845", "1755", "2665"]
    slices = list(data)
    assert [(s.group, s.index, s.position) for s in slices] == [("validation", n, n) for n in data.positions]
    assert slices[2].hu.shape == (1, 362, 362) and np.isnan(slices[2].z_mm)
    vacuum = -1000 * 20 / 19.98
    np.testing.assert_allclose([float(s.hu.mean()) for s in slices], [vacuum, 0, vacuum, vacuum], atol=0.01)
    assert {s.pixel_mm for s in slices} == {data.source.geometry.pixel_rc[0]}
    assert data.content_hash() == LoDoPaBSlices(LoDoPaB(root, "validation"), 65, 4).content_hash()
    assert data.content_hash() != LoDoPaBSlices(LoDoPaB(root, "validation"), 65, 3).content_hash()
    (root / "patient_ids_rand_validation.csv").write_text("\n".join(str(n // 60) for n in range(3522)) + "\n")
    listed = LoDoPaBSlices(LoDoPaB(root, "validation"), every=65, limit=4)
    assert listed.patients == ["0", "1", "2", "3"] and listed.content_hash() != data.content_hash()
    assert len(LoDoPaBSlices(listed.source)) == 3522
    for every, limit in ((0, None), (1, 0)):
        with pytest.raises(ValueError, match=r"(every|limit) must be at least 1, got 0"):
            LoDoPaBSlices(listed.source, every, limit)


def test_the_challenge_without_its_truth(tmp_path: Path) -> None:
    for number in range(29):
        with h5py.File(tmp_path / f"observation_challenge_{number:03d}.hdf5", "w") as file:
            file.create_dataset("data", (128, 1000, 513), np.float32, chunks=(1, 1000, 513))
    data = LoDoPaB(tmp_path, "challenge")
    assert not data.has_truth and len(data) == 3678
    assert data.observation(3677).shape == (1000, 513)
    with pytest.raises(FileNotFoundError, match="holds no ground truth of the part 'challenge'"):
        data.truth(0)
    for number in range(29):
        with h5py.File(tmp_path / f"ground_truth_challenge_{number:03d}.hdf5", "w") as file:
            file.create_dataset("data", (128, 362, 362), np.float32, chunks=(1, 362, 362))
    with_truth = LoDoPaB(tmp_path, "challenge")
    assert with_truth.has_truth and with_truth.truth(3677).shape == (362, 362)
    (tmp_path / "observation_challenge_028.hdf5").unlink()
    with pytest.raises(FileNotFoundError, match=r"challenge_028\.hdf5 is missing: .* has 29 files.*Zenodo 3874937"):
        LoDoPaB(tmp_path, "challenge")
