"""The problem whose posterior is known, and importance fine-tuning in it, on a few made slices."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

from deft_ct.methods.deft import HTransformConfig
from deft_ct.methods.registry import load_reconstructor
from deft_ct.networks import UNetConfig
from deft_ct.reconstructor import Reconstructor
from deft_ct.workflows.experiments import importance
from deft_ct.workflows.experiments.importance import (
    ImportanceConfig,
    costed_paths,
    importance_finetuning,
    path_statistics,
    untrained,
)
from deft_ct.workflows.experiments.known_posterior import (
    SIDE,
    KnownPosterior,
    KnownPosteriorSettings,
    range_psnr,
    small_htransform,
)


def _slices(count: int, seed: int) -> np.ndarray:
    """Discs of water of random size and place, in HU, 256 x 256."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:256, :256] - 127.5
    made = []
    for _ in range(count):
        shift, radius = random.uniform(-20, 20, 2), random.uniform(50, 80)
        made.append(np.where(np.hypot(rows - shift[0], columns - shift[1]) < radius, random.uniform(-50, 90), -1000))
    return np.rint(made).astype(np.int16)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> KnownPosterior:
    root = tmp_path_factory.mktemp("data")
    folder = root / "ct256"
    folder.mkdir()
    for name, seed in (("train", 0), ("val", 1)):
        with h5py.File(folder / f"{name}.h5", "w") as file:
            for series in range(4):
                group = file.create_group(f"series{series}")
                group["hu"] = _slices(12, 10 * seed + series)
                group["z_mm"] = np.arange(12, dtype=np.float32)
                group.attrs["pixel_mm"] = 1.25
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEFT_CT_DATA", str(root))
        return KnownPosterior(KnownPosteriorSettings(views=4, tests=4))


def test_the_problem_keeps_training_and_test_series_apart(world: KnownPosterior) -> None:
    assert world.training.shape == (24, 1, SIDE, SIDE) and world.truth.shape == (4, 1, SIDE, SIDE)
    assert not any((world.training == image).all(dim=(1, 2, 3)).any() for image in world.truth)
    assert all((world.training == image).all(dim=(1, 2, 3)).any() for image in world.tuning)


def test_data_depend_on_the_seed_and_the_label_alone(world: KnownPosterior) -> None:
    images = world.training
    one, other = world.data(images, "test"), world.data(images, "other")
    assert torch.equal(one, world.data(images, "test")) and not torch.equal(one, other)
    clean = world.with_noise(1e-6).data(images, "test")
    assert float((one - clean).std()) == pytest.approx(world.sigma, rel=0.1)  # 1536 values: 5 standard errors
    torch.testing.assert_close(clean, world.measurement.operator(world.scale(images)), rtol=1e-4, atol=1e-4)
    assert world.sigma == 0.05  # the first problem is as it was


def test_the_exact_mean_is_nearer_to_the_truth_than_any_other_estimate(world: KnownPosterior) -> None:
    """It is nearer than the mean of the prior, and it explains less noisy data better."""
    exact = world.exact(world.data(world.truth, "test"))
    prior_mean = (world.mixture.weights[:, None] * world.mixture.means).sum(0).reshape(1, 1, SIDE, SIDE)
    assert exact.shape == world.truth.shape
    assert float((exact - world.truth).square().mean()) < 0.5 * float((prior_mean - world.truth).square().mean())
    quiet = world.with_noise(0.005)
    better = quiet.exact(quiet.data(world.truth, "test"))
    assert float((better - world.truth).square().mean()) < float((exact - world.truth).square().mean())


def test_a_method_is_scored_against_truth_and_exact_mean(world: KnownPosterior) -> None:
    y = world.data(world.truth, "test")
    method: Reconstructor = load_reconstructor("unconditional", prior=world.prior, steps=3)
    result = method.reconstruct(y, world.measurement, num_samples=2, seed=0)
    found = world.score(result, world.exact(y))
    mean = world.scale.inverse(result.mean)
    expected = 20 * np.log10(2 / (mean - world.truth).square().flatten(1).mean(1).sqrt().numpy())
    np.testing.assert_allclose(found["psnr_db"], expected, rtol=1e-4)
    assert found["psnr_mean_db"] == pytest.approx(float(np.mean(expected)), rel=1e-4)
    assert found["distance_to_exact_mean"] > 0 and found["evaluations_per_image"] > 0
    assert float(range_psnr(world.truth + 0.2, world.truth).mean()) == pytest.approx(20.0, abs=1e-3)


def _config() -> HTransformConfig:
    network = UNetConfig(patch=4, channels=(8,), attention=(False,), head_channels=8, norm_groups=2)
    return replace(small_htransform(), network=network)


def test_an_untrained_network_depends_on_the_seed_of_the_problem(world: KnownPosterior) -> None:
    torch.manual_seed(5)
    one = untrained(world, _config())
    torch.manual_seed(6)
    assert one.content_hash() == untrained(world, _config()).content_hash()


def test_paths_end_in_images_and_costs_of_each_measurement(world: KnownPosterior) -> None:
    likelihood = world.likelihood(world.data(world.tuning[:2], "tuning"))
    x0, costs = costed_paths(world, untrained(world, _config()), likelihood, 3, torch.Generator().manual_seed(0))
    assert x0.shape == (6, 1, SIDE, SIDE) and costs.shape == (2, 3)
    assert torch.isfinite(costs).all() and costs.std(1).min() > 0


def test_the_statistics_of_paths_are_within_their_limits(world: KnownPosterior) -> None:
    found = path_statistics(world, untrained(world, _config()), world.data(world.tuning[:2], "tuning"), 4)
    assert found["paths"] == 4 and 1 <= found["effective_paths"] <= 4 + 1e-4
    assert found["cost_std"] > 0 and 0 < found["exponent_half"] <= 1


@pytest.mark.parametrize("share", [0.5, None])
def test_a_round_of_fine_tuning_changes_the_averaged_network(
    world: KnownPosterior, share: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(100))
    monkeypatch.setattr(importance.time, "process_time", lambda: next(clock))  # one unit for each look
    initial = untrained(world, _config())
    before = initial.content_hash()
    settings = ImportanceConfig(paths=2, share=share, updates=2, batch_size=4)
    trained = importance_finetuning(world, initial, settings, seconds=1.5)
    assert initial.content_hash() == before and trained.content_hash() != before
    assert not trained.training and all(torch.isfinite(value).all() for value in trained.state_dict().values())
    assert trained.content_hash() == importance_finetuning(world, initial, settings, seconds=1.5).content_hash()
