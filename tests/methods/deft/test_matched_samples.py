"""Samples that are scaled around the mean to the predicted error."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_scan, tiny_slices
from tiny_spread import fitted_with, made_for, tiny_networks

from deft_ct.evaluation.spread import half_width
from deft_ct.methods.deft.matched_samples import MOST, matched
from deft_ct.methods.deft.reconstructor import DEFT, DEFTConfig
from deft_ct.runtime.intervals import interval_factor, normal_factor


@pytest.fixture(scope="module")
def networks():
    return tiny_networks()


def test_the_distance_of_samples_from_the_mean_is_that_of_the_predicted_error(networks):
    prior, htransform = networks
    scan = tiny_scan()
    y = scan.simulate(tiny_slices(2))
    network = made_for(prior, htransform, intervals=(fitted_with(root_mean_square=1.3),))

    def drawn(count: int, **options):
        method = DEFT(prior, htransform, DEFTConfig(steps=3, **options), network)
        return method.reconstruct(y, scan, num_samples=count)

    got, raw = drawn(3), drawn(3, matched=False)
    assert torch.equal(got.mean, raw.mean) and torch.equal(got.std, raw.std)
    expected = (1.3 * got.std / (2.2 / normal_factor(0.9))).square().flatten(1).mean(1)
    away = (got.samples - got.mean[:, None]).square().flatten(2).mean(2)
    assert torch.allclose(away, expected[:, None].expand(2, 3), rtol=1e-3)
    own = (raw.samples - raw.mean[:, None]).square().flatten(2).mean(2)
    assert not torch.allclose(own, away, rtol=0.05)
    low, high = got.provenance["sample_factors"]
    assert low == pytest.approx(float((away / own).sqrt().min()), rel=1e-3) and high >= low
    assert "sample_factors" not in raw.provenance
    one = drawn(1, estimate="samples")  # a sample depends on no other
    assert torch.allclose(one.mean, drawn(3, estimate="samples").samples[:, 0], rtol=1e-4, atol=1e-6)
    assert torch.allclose(one.mean, got.samples[:, 0], rtol=1e-4, atol=1e-6)
    unknown = DEFT(prior, htransform, DEFTConfig(steps=3), made_for(prior, htransform))
    assert "sample_factors" not in unknown.reconstruct(y, scan, num_samples=2).provenance


@pytest.mark.parametrize("estimate", ["mean", "samples"])
def test_the_spread_of_matched_samples_has_the_intervals_of_few_samples(networks, estimate):
    prior, htransform = networks
    scan = tiny_scan()
    y = scan.simulate(tiny_slices(1))
    network = made_for(prior, htransform, intervals=(fitted_with(root_mean_square=1.3),))

    def spread_of(**options):
        method = DEFT(prior, htransform, DEFTConfig(steps=3, spread="samples", estimate=estimate, **options), network)
        return method.reconstruct(y, scan, num_samples=4)

    got = spread_of()
    record = got.provenance["spread"]
    assert record["calibrated"] and record["by"] == "matched samples"
    for level in (0.5, 0.9, 0.95):
        expected = interval_factor(level, 4, around_samples=estimate == "samples") * got.samples.std(1)
        assert torch.allclose(got.std * half_width(got, level), expected, rtol=1e-4)
    assert half_width(got, 0.9) == pytest.approx(normal_factor(0.9))
    for raw in (spread_of(matched=False), spread_of(calibrated=False)):
        assert torch.allclose(raw.std, raw.samples.std(1)) and not raw.provenance["spread"]["calibrated"]


def test_matched_samples_are_judged_by_their_mean(networks, monkeypatch):
    prior, htransform = networks
    scan = tiny_scan()
    y, seen = scan.simulate(tiny_slices(1)), []
    monkeypatch.setattr(DEFT, "_judged", lambda self, request, mean: seen.append(mean) or ({}, ()))
    network = made_for(prior, htransform, intervals=(fitted_with(root_mean_square=1.3),))
    mean = DEFT(prior, htransform, DEFTConfig(steps=3), network).reconstruct(y, scan, num_samples=0).mean
    for options in ({}, {"matched": False}):
        method = DEFT(prior, htransform, DEFTConfig(steps=3, estimate="samples", **options), network)
        got = method.reconstruct(y, scan, num_samples=1)
        assert torch.equal(seen[-1], got.mean if options else mean)


def test_a_sample_that_is_the_mean_or_far_away_is_scaled_within_limits():
    mean = torch.zeros(1, 1, 4, 4)
    samples = torch.stack([torch.zeros(1, 4, 4), torch.ones(1, 4, 4), 1000 * torch.ones(1, 4, 4)])[None]
    scaled, factors = matched(samples, mean, torch.tensor([4.0]))
    assert torch.allclose(factors, torch.tensor([[MOST, 2.0, 1 / MOST]]))
    assert torch.isfinite(scaled).all() and torch.allclose(scaled[0, 1], torch.full((1, 4, 4), 2.0))
