"""Scans outside of the training: what the networks are told, and how the user learns of it."""

import warnings

import pytest
import torch
from tiny import tiny_htransform, tiny_prior, tiny_scan, tiny_slices

from deft_ct.methods.deft import condition_for
from deft_ct.methods.deft.fallback import plan_for
from deft_ct.methods.deft.reconstructor import DEFT, DEFTConfig
from deft_ct.operators.findings import DataWarning
from deft_ct.reconstruction import Reconstruction

CARD = {"scan": {"geometry": ["parallel"], "views": [5, 12], "photons": [1e4, 1e6]}}


def deft(scan_features: bool = True, **config: object) -> DEFT:
    prior = tiny_prior()
    head = tiny_htransform(prior, scan_features=scan_features, tv_iterations=3)
    head.card = CARD
    if head.scan_embedding is not None:
        torch.nn.init.normal_(head.scan_embedding[-1].weight, std=0.3)
    return DEFT(prior, head, DEFTConfig(steps=2, **config))


def run(method: DEFT, views: int, photons: float) -> tuple[Reconstruction, list[str]]:
    scan = tiny_scan(views=views, photons=photons)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        result = method.reconstruct(scan.simulate(tiny_slices(1), seed=1), scan, seed=3)
    return result, [str(w.message) for w in seen if issubclass(w.category, DataWarning)]


def test_a_scan_of_the_training_is_left_alone():
    with_it, warned = run(deft(), 12, 1e5)
    without, _ = run(deft(fallback=False), 12, 1e5)
    torch.testing.assert_close(with_it.mean, without.mean, rtol=0, atol=0)
    assert "note" not in with_it.provenance
    assert not [text for text in warned if text.startswith("outside")]


def test_more_views_are_told_as_fewer_with_more_photons_each():
    scan, method = tiny_scan(views=48, photons=4096), deft()
    y = scan.simulate(tiny_slices(1), seed=1)
    likelihood = scan.likelihood(y, method.prior.value_range)
    plain = condition_for(likelihood, method.htransform).features
    told = condition_for(likelihood.told(4), method.htransform).features
    reference = tiny_scan(views=12, photons=4 * 4096)
    expected = reference.operator.features(y[..., ::4, :], reference.noise.weights(y[..., ::4, :]))
    assert plain is not None and told is not None
    assert float(told[0, 0] - expected[0, 0]) == pytest.approx(0, abs=1e-5)
    assert float(told[0, 2] - expected[0, 2]) == pytest.approx(0, abs=0.01)  # the mean of the rays that are left
    torch.testing.assert_close(told[0, [1, 3]], plain[0, [1, 3]], rtol=0, atol=0)
    torch.testing.assert_close(likelihood.told(4).weights, likelihood.weights, rtol=0, atol=0)


def test_the_image_is_that_of_the_told_scan():
    result, _ = run(deft(), 48, 4096)
    plain, _ = run(deft(fallback=False), 48, 4096)
    assert float((result.mean - plain.mean).abs().max()) > 1e-6


def test_record_and_warning_say_so_once():
    result, warned = run(deft(), 48, 4096)
    assert result.provenance["note"] == "networks conditioned on 12 views with 1.64e+04 photons"
    assert result.provenance["views_counted_as_one"] == 4
    outside = [text for text in warned if text.startswith("outside the training range")]
    assert outside == [
        "outside the training range: the h-transform was trained for 5 to 12 views, the scan has 48; trained for 10000 "
        "to 1e+06 photons, the scan has 4096; they are conditioned on 12 views with 1.64e+04 photons, of the same "
        "dose, and all data are used"
    ]
    assert len([w for w in result.provenance["warnings"] if w["name"] == "outside the training range"]) == 1


def test_samples_are_told_the_same_scan():
    options = {"estimate": "samples"}
    told, _ = run(deft(**options), 48, 4096)
    plain, _ = run(deft(fallback=False, **options), 48, 4096)
    assert told.samples is not None and plain.samples is not None
    assert float((told.samples - plain.samples).abs().max()) > 1e-6
    assert told.provenance["note"]


def test_networks_that_are_told_nothing_are_left_alone():
    plan = plan_for(CARD, tiny_scan(views=48, photons=4096), told_scan=False)
    assert plan.grouped == 1 and not plan.note and not plan.record
    assert plan.findings[0].text.endswith("quality will be lower than reported")
    result, _ = run(deft(scan_features=False), 48, 4096)
    assert "note" not in result.provenance
