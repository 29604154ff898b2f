"""Coverage is a column of every score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from deft_ct.evaluation.problem import COVERAGE, Batch
from deft_ct.evaluation.score import score, score_json
from deft_ct.measurement.measurement import Measurement
from deft_ct.operators import GaussianNoise, Identity
from deft_ct.problems.natural import ImageSource, NaturalProblem
from deft_ct.reconstruction import Estimate, Request
from deft_ct.reconstructor import Reconstructor


@dataclass(frozen=True)
class Nothing:
    """No parameters."""


def test_a_score_has_the_coverage_of_exact_samples_image_by_image() -> None:
    """Samples and truth from one posterior: 90 % intervals of any number of samples cover 90 %."""
    generator = torch.Generator().manual_seed(0)

    class Exact(Reconstructor):
        name = "exact"
        config_type = Nothing

        def _estimate(self, request: Request) -> Estimate:
            draws = torch.randn(len(request.y), request.num_samples, 1, 48, 48, generator=generator)
            return Estimate(samples=0.1 * draws + request.y[:, None])

    class Blank(Exact):
        name = "blank"

        def _estimate(self, request: Request) -> Estimate:
            return Estimate(mean=request.y)

    images = torch.zeros(3, 1, 48, 48)  # the data
    truth = 0.1 * torch.randn(3, 1, 48, 48, generator=generator)
    source = ImageSource(name="flat", images=list(truth))
    measurement = Measurement(Identity((48, 48)), GaussianNoise(0.1))
    # Data at the mean of the posterior that the truth and the samples are draws of.
    problem = NaturalProblem(source, "identity", measurement).with_batches([Batch(images, measurement, list("012"))])
    for count in (2, 4, 16):
        found = score("exact", Exact(Nothing()), problem, samples=count)
        assert found.metrics[-1] is COVERAGE and found.values[COVERAGE.name].shape == (3,)
        np.testing.assert_allclose(found.values[COVERAGE.name], 0.9, atol=0.03)
        assert len(score_json(found)[COVERAGE.key]) == 3
    without = score("blank", Blank(Nothing()), problem, samples=4)
    assert np.isnan(without.values[COVERAGE.name]).all() and score_json(without)[COVERAGE.key] == [None] * 3
