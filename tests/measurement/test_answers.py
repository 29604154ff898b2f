"""Whether an answer is plausible, image by image, and which sample is the answer."""

from __future__ import annotations

import warnings

import pytest
import torch

from deft_ct.measurement.answers import answer_of_samples, check_diverged
from deft_ct.measurement.measurement import Measurement
from deft_ct.operators import GaussianNoise, Identity, PhaseRetrieval

PICTURES = Measurement(Identity((3, 4, 4)), GaussianNoise(0.1))


def test_one_wild_pixel_of_any_channel_is_told_by_name() -> None:
    images = torch.zeros(3, 3, 4, 4)
    images[2, 1, 3, 2] = -50.0
    with pytest.warns(UserWarning, match=r"^dps diverged for images \['c'\]: values up to 5.0e\+01; its settings"):
        assert not check_diverged("dps", "abc", [images], PICTURES, limit=10.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_diverged("dps", "abc", [images], PICTURES, limit=50.0), "the limit itself is plausible"


def test_samples_count_as_the_mean_does() -> None:
    mean = torch.zeros(2, 3, 4, 4)
    samples = torch.zeros(2, 5, 3, 4, 4)
    samples[0, 4, 2, 0, 0] = 20.0
    with pytest.warns(UserWarning, match=r"images \['a'\]"):
        assert not check_diverged("dps", "ab", [mean, samples], PICTURES, limit=10.0)
    samples[1, 0, 0, 3, 3] = torch.nan
    with pytest.raises(FloatingPointError, match=r"dps diverged to NaN or infinite values for images \['b'\]"):
        check_diverged("dps", "ab", [mean, samples], PICTURES, limit=10.0)


def test_equivalents_are_chosen_from_and_other_samples_averaged() -> None:
    samples = torch.rand(2, 4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    phases = Measurement(PhaseRetrieval((1, 8, 8)), GaussianNoise(0.01))
    y = phases.operator(samples[torch.arange(2), torch.tensor([2, 1])])
    answer, record = answer_of_samples(y, samples, phases)
    torch.testing.assert_close(answer, torch.stack([samples[0, 2], samples[1, 1]]))
    assert record["selected"]["rule"] == "smallest data residual" and record["selected"]["samples"] == [2, 1]
    assert record["selected"]["data_residuals"][0][2] == pytest.approx(0.0, abs=1e-5)
    plain = Measurement(Identity((1, 8, 8)), GaussianNoise(0.01))
    answer, record = answer_of_samples(samples[:, 0], samples, plain)
    torch.testing.assert_close(answer, samples.mean(1))
    assert record == {}
