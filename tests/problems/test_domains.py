"""Comparison, tuning and uncertainty work for photographs and points as for CT."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from terminal_tables import terminal_text
from torch import Tensor

from deft_ct.evaluation.comparison import Comparison
from deft_ct.evaluation.problem import Problem
from deft_ct.evaluation.runner import run_benchmark
from deft_ct.evaluation.score import score
from deft_ct.evaluation.spread import Draws, spread_report
from deft_ct.evaluation.worker import Benchmark
from deft_ct.measurement.measurement import Measurement
from deft_ct.operators import GaussianNoise, Inpainting
from deft_ct.operators.linear import LinearOperator
from deft_ct.problems.natural import ImageSource, NaturalProblem
from deft_ct.problems.points import PointProblem
from deft_ct.reconstruction import Estimate, Request
from deft_ct.reconstructor import Reconstructor
from deft_ct.runtime.search_space import Range, SearchSpace


@dataclass(frozen=True, kw_only=True)
class ScaledConfig:
    """How the data are scaled."""

    gain: float = 0.5


class Scaled(Reconstructor):
    """Data of a square operator times a number: enough of a method for any domain."""

    name = "scaled"
    config_type: ClassVar[type] = ScaledConfig
    search_space: ClassVar[SearchSpace] = {"gain": Range(0.5, 1.5)}

    def _estimate(self, request: Request) -> Estimate:
        image = self.config.gain * request.measurement.operator.adjoint(request.y)
        noise = (
            torch.arange(request.num_samples).reshape(1, -1, *[1] * (image.ndim - 1)) - (request.num_samples - 1) / 2
        )
        return Estimate(samples=image[:, None] + 0.05 * noise)


class Every(LinearOperator):
    """All points, as they are; `(N, 3)`."""

    def __init__(self, count: int) -> None:
        super().__init__((count, 3), (count, 3))

    def _forward_kernel(self, x: Tensor) -> Tensor:
        return x.clone()

    def _adjoint_kernel(self, y: Tensor) -> Tensor:
        return y.clone()


def photographs() -> NaturalProblem:
    images = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mask = torch.ones(3, 16, 16)
    mask[:, 4:8] = 0
    measurement = Measurement(Inpainting((3, 16, 16), mask), GaussianNoise(0.05))
    source = ImageSource(name="drawn", images=list(images), split="val", every=2)  # type: ignore[arg-type]
    return NaturalProblem(source, "stripe", measurement, batch_size=2)


def points() -> PointProblem:
    coordinates = torch.randn(3, 7, 3, generator=torch.Generator().manual_seed(0))
    return PointProblem(coordinates, "noisy", Measurement(Every(7), GaussianNoise(0.1)), batch_size=2)


MADE: dict[str, Callable[[], Problem]] = {"photographs": photographs, "points": points}


def compared(problem: Problem, methods: dict[str, Reconstructor], folder: Path) -> Comparison:
    benchmark = Benchmark([problem], [methods], samples=1)
    return Comparison(benchmark, run_benchmark(benchmark, folder))


@pytest.mark.parametrize("domain", MADE)
def test_a_comparison_of_any_domain(domain: str, tmp_path: Path) -> None:
    problem = MADE[domain]()
    assert len(problem.truth) == len(problem) == len(problem.image_ids) == len(problem.patients) == 3
    methods = {"half": Scaled(ScaledConfig()), "full": Scaled(ScaledConfig(gain=1.0))}
    comparison = compared(problem, methods, tmp_path)
    half, full = comparison.cells
    key = problem.metrics[0].key
    better = np.mean(full.values[key]) - np.mean(half.values[key])
    assert better * (1 if problem.metrics[0].best == "highest" else -1) > 0
    text = terminal_text(comparison)
    assert all(metric.heading in text for metric in problem.metrics) and "HU" not in text and "slice" not in text
    assert json.loads((tmp_path / "plan.json").read_text())["problems"][0]["data"] == problem.data
    assert compared(problem, methods, tmp_path).cells == [half, full]


def _changed(problem: Problem, what: str) -> Problem:
    """The problem with other images or another measurement under the same names."""
    if isinstance(problem, PointProblem):
        if what == "data":
            return replace(problem, points=problem.points + 0.1)
        return replace(problem, measurement=Measurement(problem.measurement.operator, GaussianNoise(0.2)))
    assert isinstance(problem, NaturalProblem)
    if what == "data":
        images = [image * 0.5 for image in problem.source.images]  # type: ignore[attr-defined]
        return replace(problem, source=replace(problem.source, images=images))
    mask = torch.ones(3, 16, 16)
    mask[:, 5:9] = 0
    return replace(problem, measurement=Measurement(Inpainting((3, 16, 16), mask), GaussianNoise(0.05)))


@pytest.mark.parametrize("what", ["data", "measurement", "batches"])
@pytest.mark.parametrize("domain", MADE)
def test_a_comparison_is_of_its_data_and_measurement_and_not_of_their_names(
    domain: str, what: str, tmp_path: Path
) -> None:
    problem = MADE[domain]()
    methods: dict[str, Reconstructor] = {"full": Scaled(ScaledConfig(gain=1.0))}
    before = compared(problem, methods, tmp_path / "run").cells
    if what == "batches":
        other = problem.with_batches([batch._replace(y=batch.y * 0.5) for batch in problem.batches])
    else:
        other = _changed(problem, what)
    assert (other.name, other.data) == (problem.name, problem.data)
    found = compared(other, methods, tmp_path / "run").cells
    fresh = compared(other, methods, tmp_path / "fresh").cells
    key = problem.metrics[0].key
    assert found[0].values[key] == fresh[0].values[key] != before[0].values[key]
    of_the_images = domain == "photographs" and what == "data"  # their content is in the rows, not in the key
    assert (found[0].key == before[0].key) == of_the_images
    assert compared(other, methods, tmp_path / "run").cells == found
    assert compared(problem, methods, tmp_path / "run").cells == before


class Weighted(Scaled):
    """Multiplies the pseudo-inverse by a weight that it does not describe."""

    name = "weighted"

    def __init__(self, weight: float) -> None:
        super().__init__(ScaledConfig(gain=1.0))
        self.weight = torch.nn.Parameter(torch.tensor(weight))

    def _estimate(self, request: Request) -> Estimate:
        found = super()._estimate(request)
        return replace(found, samples=None if found.samples is None else found.samples * self.weight)


def test_a_cell_is_of_the_weights_to_the_last_bit(tmp_path: Path) -> None:
    """Hashes of networks are of float16 values; two weights that differ by less are still two."""
    problem = points()
    key = problem.metrics[0].key
    for weight in (1.0, 1.0 + 1e-6, 1.5):
        methods: dict[str, Reconstructor] = {"net": Weighted(weight)}
        found = compared(problem, methods, tmp_path / "run").cells[0]
        fresh = compared(problem, methods, tmp_path / str(weight)).cells[0]
        assert found.values[key] == fresh.values[key]


def test_given_data_survive_a_release() -> None:
    problem = photographs()
    given = problem.with_batches([batch._replace(y=batch.y * 0.5) for batch in problem.batches])
    given.release()
    torch.testing.assert_close(given.batches[0].y, 0.5 * problem.batches[0].y)
    assert given.content() != problem.content()


@pytest.mark.parametrize("domain", MADE)
def test_posterior_samples_of_any_domain(domain: str) -> None:
    problem = MADE[domain]()
    results = [
        Scaled(ScaledConfig(gain=1.0)).reconstruct(y, measurement, num_samples=4)
        for y, measurement, _ in problem.batches
    ]
    samples = np.concatenate([result.samples.numpy() for result in results if result.samples is not None])
    draws = Draws(
        truth=problem.truth, centre=samples.mean(1), samples=samples, mask=problem.mask, regions=problem.regions()
    )
    report = spread_report(draws)
    assert report["rms_spread"] == pytest.approx(0.05 * np.arange(4).std(ddof=1), rel=1e-5)
    assert set(report["coverage"]) == {"all"} and report["images"] == 3


@pytest.mark.filterwarnings("ignore:data not explained")  # half of the data is no reconstruction
def test_metrics_of_photographs_are_those_of_scikit_image() -> None:
    problem = photographs()
    found = score("x", Scaled(ScaledConfig()), problem, samples=1)
    for k, (image, truth) in enumerate(zip(found.estimate, problem.truth, strict=True)):
        assert image.shape == (3, 16, 16)
        assert found.values["psnr"][k] == pytest.approx(peak_signal_noise_ratio(truth, image, data_range=2.0), rel=1e-5)
        expected = structural_similarity(truth, image, data_range=2.0, channel_axis=0)
        assert found.values["ssim"][k] == pytest.approx(expected, rel=1e-5)


def test_rmsd_is_the_distance_of_points() -> None:
    problem = points()
    moved = problem.truth + np.array([3.0, 4.0, 0.0], np.float32)
    np.testing.assert_allclose(problem.measure(moved)["rmsd"], 5.0, rtol=1e-6)
    with pytest.raises(ValueError, match=r"points must be \(B, N, 3\)"):
        PointProblem(torch.zeros(7, 3), "x", Measurement(Every(7)))


def test_data_do_not_depend_on_the_batch_and_published_problems_have_names() -> None:
    problem = photographs()
    alone = replace(problem, batch_size=1)
    first, second = (torch.cat([batch.y for batch in p.batches]) for p in (problem, alone))
    torch.testing.assert_close(first, second)
    published = NaturalProblem.of_convention(problem.source, "ddrm", "sr4")
    assert published.name == "ddrm-sr4" and published.batches[0].y.shape[-2:] == (4, 4)
    masked = [NaturalProblem.of_convention(problem.source, "ddrm", "inpainting-random") for _ in range(2)]
    torch.testing.assert_close(masked[0].batches[0].y, masked[1].batches[0].y)
    with pytest.raises(ValueError, match="every must be at least 1"):
        ImageSource(name="x", images=problem.source.images, every=0)


@pytest.mark.filterwarnings("ignore:data not explained")  # half of the data is no reconstruction
def test_tuning_photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optuna", reason="the extra 'tune' is not installed")
    from deft_ct.evaluation import tuning

    monkeypatch.setattr(tuning, "method_class", lambda name: Scaled)

    def build(method: str, options: dict[str, Any]) -> Reconstructor:
        return Scaled(ScaledConfig(**options))

    budget = tuning.Budget(trials=6, objective="rmse")
    preset = tuning.tune(tuning.Search(method="scaled"), build, photographs(), tmp_path, budget)
    assert preset.scan == "stripe" and preset.provenance["split"] == "val"
    assert preset.provenance["best_value"] < preset.provenance["default_value"]
    assert abs(preset.options["gain"] - 1.0) < 0.4
