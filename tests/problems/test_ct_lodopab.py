"""LoDoPaB-CT by name, on files in the published layout; metrics against dival's formulas written out in NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.ct.scan import Scan
from deft_ct.datasets.lodopab import MU_MAX
from deft_ct.problems.by_name import ProblemOptions, ct_problems
from tests.support.lodopab_layout import phantom_sample, write_lodopab_layout

SAMPLES = (0, 1776, 3552)  # the last sample of the part is in the short last file


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lodopab_layout(tmp_path_factory.mktemp("lodopab") / "a:b", "test", SAMPLES)


def test_own_observations(root: Path) -> None:
    (problem,) = ct_problems(f"lodopab:{root}", None, ProblemOptions(every=1776, batch_size=2))
    assert problem.image_ids == ["0", "1776", "3552"] and problem.patients == ["692", "721", "751"]
    assert "n = 3 of 3,553" in problem.conventions() and problem.split == "test"
    assert [tuple(batch.y.shape) for batch in problem.batches] == [(2, 1, 1000, 513), (1, 1, 1000, 513)]
    for n, sample in enumerate(SAMPLES):
        truth, observation = phantom_sample(sample)
        batch = problem.batches[n // 2]
        np.testing.assert_allclose(batch.y[n % 2, 0], observation * MU_MAX, rtol=1e-6)
        assert batch.image_ids[n % 2] == str(sample)
        np.testing.assert_allclose(
            HounsfieldScale().to_attenuation(problem.truth[n]), truth * MU_MAX / 1000, rtol=1e-5, atol=1e-9
        )
    # The measurement explains the data: they were made with exact line integrals of the ellipses.
    y, measurement, _ = problem.batches[1]
    x = HounsfieldScale().to_attenuation(torch.from_numpy(problem.truth[2]))[None, None]
    assert float((measurement.operator(x) - y).norm() / y.norm()) < 0.05


def test_sparse_views_and_other_scans(root: Path) -> None:
    some = ct_problems(f"lodopab:{root}:test:views=50,200", None, ProblemOptions(every=1776))
    assert [tuple(problem.batches[0].y.shape[-2:]) for problem in some] == [(50, 513), (200, 513)]
    assert len({problem.name for problem in some}) == 2
    np.testing.assert_array_equal(some[0].batches[0].y, some[1].batches[0].y[:, :, ::4])
    (simulated,) = ct_problems(f"lodopab:{root}", [Scan(views=3, photons=None)], ProblemOptions(every=1776, limit=2))
    assert simulated.batches[0].y.shape == (2, 1, 3, 513) and simulated.patients == ["692", "721"]
    assert simulated.image_ids == ["test/0", "test/1776"]


def test_metrics_are_those_of_dival(root: Path) -> None:
    (problem,) = ct_problems(f"lodopab:{root}", None, ProblemOptions(every=1776))
    made = problem.truth + np.random.default_rng(0).normal(0, 60, problem.truth.shape).astype(np.float32)
    found = problem.measure(made)
    for n, sample in enumerate(SAMPLES):
        truth = phantom_sample(sample)[0].astype(np.float64)
        image = HounsfieldScale().to_attenuation(made[n].astype(np.float64)) * 1000 / MU_MAX
        mse, span = np.mean((image - truth) ** 2), truth.max() - truth.min()
        assert found["psnr"][n] == pytest.approx(20 * np.log10(span) - 10 * np.log10(mse), abs=1e-6)
        assert found["psnr_fr"][n] == pytest.approx(-10 * np.log10(mse), abs=1e-6)
        for name, data_range in (("ssim", span), ("ssim_fr", 1.0)):
            assert found[name][n] == pytest.approx(structural_similarity(image, truth, data_range=data_range), abs=1e-6)


def test_key_follows_the_content(root: Path) -> None:
    def content(options: ProblemOptions, name: str = "") -> dict[str, object]:
        return ct_problems(f"lodopab:{root}{name}", None, options)[0].content()

    options = ProblemOptions(every=1776)
    before = content(options)
    assert before == content(options)
    assert before != content(options, ":views=50")
    assert before != content(ProblemOptions(every=1776, limit=2))
    import h5py

    with h5py.File(root / "observation_test_027.hdf5", "a") as file:
        file["data"][96, 5, 5] += 1e-3
    assert before != content(options)


def test_bad_names(root: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such folder or file: .*lodopab knows train, validation, test"):
        ct_problems(f"lodopab:{root}:tset", None, ProblemOptions())
    with pytest.raises(ValueError, match="test and train exclude each other"):
        ct_problems(f"lodopab:{root}:test:train", None, ProblemOptions())
    with pytest.raises(ValueError, match="views must be positive integers"):
        ct_problems(f"lodopab:{root}:views=a", None, ProblemOptions())
    with pytest.raises(ValueError, match="names no folder"):
        ct_problems("lodopab:", None, ProblemOptions())
    with pytest.raises(FileNotFoundError, match=r"ground_truth_train_000\.hdf5 is missing.*deft-ct data check"):
        ct_problems(f"lodopab:{root}:train", None, ProblemOptions())


def test_challenge_set_without_truth(tmp_path: Path) -> None:
    root = write_lodopab_layout(tmp_path, "challenge", patients=False)
    for path in root.glob("ground_truth_*"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match="holds no ground truth of the challenge set"):
        ct_problems(f"lodopab:{root}:challenge", None, ProblemOptions())
