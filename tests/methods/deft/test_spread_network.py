"""The spread network: what it sees, storage, training, and its place in DEFT."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import SIZE, tiny_scan, tiny_slices
from tiny_spread import CONFIG, WIDTHS, fitted_with, made_for, tiny_networks

from deft_ct.measurement.scales import PriorRange
from deft_ct.methods.deft import (
    Condition,
    SpreadNetwork,
    condition_for,
    load_htransform,
    load_spread_network,
    save_htransform,
    save_spread_network,
)
from deft_ct.methods.deft.reconstructor import DEFT, DEFTConfig
from deft_ct.methods.deft.spread_network import FittedIntervals
from deft_ct.methods.registry import Networks
from deft_ct.reconstructor import UnsupportedError
from deft_ct.runtime.intervals import normal_factor
from deft_ct.runtime.read_error import ReadError


@pytest.fixture(scope="module")
def networks():
    return tiny_networks()


def test_it_starts_at_the_typical_error_of_the_scan():
    made = SpreadNetwork(CONFIG)
    images = torch.randn(3, 2, 1, SIZE, SIZE)
    features = torch.tensor([[0.0, 0, 0, 0], [1.0, 0, 0, 0]])
    condition = Condition(initial=images[1], residual=images[2], features=features)
    scale = made(images[0], condition)
    assert torch.allclose(scale[0], torch.tensor(0.02)) and torch.allclose(
        scale[1], torch.tensor(0.02 * math.exp(-0.3))
    )


def test_it_sees_the_mean_the_reconstructions_the_residual_and_the_scan(networks):
    made = made_for(*networks)
    images = torch.randn(4, 1, 1, SIZE, SIZE)
    known = Condition(initial=images[1], residual=images[2], unrefined=images[3], features=torch.zeros(1, 4))
    scale = made(images[0], known)
    assert (scale > 0).all()
    changed = {
        "initial": images[1] + 0.1, "residual": 2 * images[2], "unrefined": images[3] + 0.1,
        "features": torch.ones(1, 4),
    }  # fmt: skip
    for name, value in changed.items():
        assert not torch.allclose(made(images[0], replace(known, **{name: value})), scale, rtol=1e-3), name
    assert not torch.allclose(made(images[0] + 0.1, known), scale, rtol=1e-3)
    with pytest.raises(ValueError, match="initial reconstruction"):
        made(images[0], Condition(features=torch.zeros(1, 4)))
    with pytest.raises(ValueError, match="scan features"):
        made(images[0], replace(known, features=None))
    assert torch.allclose(
        made(images[0], replace(known, unrefined=None)), made(images[0], replace(known, unrefined=images[1]))
    )


def test_wild_inputs_give_a_finite_scale(networks):
    made = made_for(*networks)
    with torch.no_grad():
        made.network.conv_out.bias.fill_(1e6)
    images = torch.randn(3, 1, 1, SIZE, SIZE)
    condition = Condition(initial=images[1], residual=images[2], features=torch.zeros(1, 4))
    assert torch.isfinite(made(images[0], condition)).all()


def test_the_reported_deviation_makes_the_main_interval_that_of_a_normal_distribution():
    fitted = FittedIntervals(half_widths=WIDTHS, image_shape=(8, 8))
    assert fitted.deviation * normal_factor(0.9) == pytest.approx(2.2)
    assert fitted.in_deviations["0.9"] == pytest.approx(normal_factor(0.9))
    assert fitted.in_deviations["0.5"] * fitted.deviation == pytest.approx(0.7)
    for wrong in ({"0.9": 0.0}, {"0.9": math.inf}, {"1.0": 1.0, "0.9": 1.0}, {"0.5": 1.0}):
        with pytest.raises(ValueError, match="half_widths must"):
            FittedIntervals(half_widths=wrong, image_shape=(8, 8))


def test_the_intervals_of_the_nearest_size_are_used(networks):
    sizes = [FittedIntervals(half_widths={"0.9": float(side)}, image_shape=(side, side)) for side in (256, 512)]
    made = made_for(*networks, intervals=tuple(sizes))
    found = {side: made.intervals_for((1, side, side)) for side in (180, 320, 400, 700, 100, 1000)}
    assert [found[side] and found[side].image_shape[0] for side in found] == [256, 256, 512, 512, None, None]


@pytest.mark.parametrize(
    "values",
    [{"spread": 0.0}, {"guidance_scale": 0.0}, {"arc_direction": True, "scan_features": False, "spread_slopes": ()},
     {"spread_slopes": (1.0,)}],
)  # fmt: skip
def test_impossible_settings_are_refused(values):
    with pytest.raises(ValueError, match=r"spread|arc_direction"):
        replace(CONFIG, **values)


def test_it_is_stored_beside_the_h_transform(networks, tmp_path: Path):
    prior, htransform = networks
    made, folder = made_for(prior, htransform), tmp_path / "head"
    assert made.card == {}
    save_htransform(htransform, folder, dtype=torch.float32)
    assert load_spread_network(folder) is None
    save_spread_network(made, folder, dtype=torch.float32)
    got = load_spread_network(folder)
    assert got.content_hash() == made.content_hash() and got.intervals == made.intervals
    assert load_htransform(folder).content_hash() == htransform.content_hash()
    save_htransform(htransform, folder, dtype=torch.float32)  # it goes along
    assert load_spread_network(folder).content_hash() == made.content_hash()
    named = Networks(prior=prior, htransform=folder)
    assert named.build("deft", {}).spread_network.content_hash() == made.content_hash()
    assert Networks(prior=prior, htransform=htransform).load_spread_network() is None
    record = json.loads((folder / "spread.json").read_text())
    for damage in ({"sha256": "0"}, {"config": {}}, {"intervals": [{"image_shape": [8, 8]}]}, {"card": None}):
        (folder / "spread.json").write_text(json.dumps(record | damage))
        with pytest.raises(ReadError, match=r"head"):
            load_spread_network(folder)


def test_a_network_of_another_h_transform_is_refused(networks):
    prior, htransform = networks
    with pytest.raises(ValueError, match="another h-transform"):
        DEFT(prior, htransform, None, made_for(prior, htransform, htransform_hash="0"))
    scan = tiny_scan()
    bare = DEFT(prior, htransform, DEFTConfig(spread="network"))
    with pytest.raises(UnsupportedError, match="train spread"):
        bare.reconstruct(scan.simulate(tiny_slices(1)), scan)
    with pytest.raises(ValueError, match='spread="network" judges the mean'):
        DEFTConfig(spread="network", estimate="samples")


def reconstruct(networks, count: int = 1, **options):
    prior, htransform = networks
    method = DEFT(prior, htransform, DEFTConfig(steps=3, **options), made_for(prior, htransform))
    scan = tiny_scan()
    y = scan.simulate(tiny_slices(2))
    return method, y, scan, method.reconstruct(y, scan, num_samples=count)


def test_a_mean_has_a_spread_without_samples(networks):
    method, y, scan, got = reconstruct(networks, 0)
    assert got.samples is None and got.std is not None and (got.std > 0).all()
    spread = got.provenance["spread"]
    assert spread["by"] == "network" and spread["calibrated"] and spread["level"] == 0.9
    likelihood = scan.likelihood(y, PriorRange())
    condition = condition_for(likelihood, method.htransform)
    mean = method.mean(likelihood, condition, range(2))
    scale = method.spread_network(mean, condition) * likelihood.to_physical.scale
    assert torch.allclose(got.std, scale * 2.2 / normal_factor(0.9), rtol=1e-4)
    assert torch.equal(got.mean, likelihood.to_physical(mean))
    assert spread["half_widths"]["0.95"] == pytest.approx(3.0 / 2.2 * normal_factor(0.9))
    _, _, _, one = reconstruct(networks, 1)
    assert torch.equal(one.std, got.std) and one.samples is None


def test_samples_are_for_looking_at_and_change_neither_mean_nor_spread(networks):
    _, _, _, bare = reconstruct(networks, 0)
    _, _, _, drawn = reconstruct(networks, 3)
    assert drawn.samples.shape[1] == 3
    assert torch.equal(drawn.std, bare.std) and torch.equal(drawn.mean, bare.mean)
    _, _, _, own = reconstruct(networks, 3, spread="samples")
    assert torch.allclose(own.std, own.samples.std(1)) and "by" not in own.provenance["spread"]  # nothing is fitted


def test_the_spread_of_an_image_does_not_depend_on_the_batch(networks):
    method, y, scan, both = reconstruct(networks, 0)
    second = method.reconstruct(y[1:], scan, num_samples=0, image_ids=[1])
    assert torch.equal(second.std, both.std[1:])


def test_the_description_of_the_method_follows_what_was_fitted_for_the_spread(networks):
    prior, htransform = networks

    def described(network) -> str | None:
        return DEFT(prior, htransform, None, network).describe().get("spread_fit_sha256")

    first = described(made_for(prior, htransform))
    assert described(None) is None and first is not None
    assert described(made_for(prior, htransform, intervals=(fitted_with(provenance={"created": "later"}),))) == first
    assert described(made_for(prior, htransform, intervals=(fitted_with(root_mean_square=1.0),))) != first
    other = made_for(prior, htransform)
    with torch.no_grad():
        other.network.conv_out.weight.mul_(2)
    assert described(other) != first


def test_the_scale_is_corrected_by_the_scan_within_the_factors_of_the_fit():
    scale, features = torch.ones(3, 1, 2, 2), torch.tensor([[0.0, 0, 0, 0], [1.0, 0, 0, 0], [9.0, 0, 0, 0]])
    one = fitted_with(scan_slopes=(0.2, 0.0, 0.0, 0.0), scan_factors=(0.9, 1.5))
    assert torch.allclose(one.corrected(scale, features)[:, 0, 0, 0], torch.tensor([1.0, math.exp(0.2), 1.5]))
    assert torch.equal(fitted_with().corrected(scale, None), scale)
    with pytest.raises(ValueError, match="features"):
        one.corrected(scale, None)
    for wrong in ({"scan_factors": (1.5, 0.9)}, {"scan_factors": (0.0, 1.0)}, {"scan_slopes": (1.0,)},
                  {"scan_slopes": (math.nan, 0, 0, 0)}, {"root_mean_square": -1.0},
                  {"patient_half_widths": {"0.9": 0.0}}):  # fmt: skip
        with pytest.raises(ValueError, match=r"scan_factors|spread_slopes|patient_half_widths"):
            fitted_with(**wrong)


def test_the_reported_spread_is_corrected_and_names_the_widths_for_patients(networks):
    prior, htransform = networks
    scan = tiny_scan()
    y = scan.simulate(tiny_slices(1))
    slopes = (0.0, 0.0, 0.5, 0.0)
    plain = made_for(prior, htransform)
    told = made_for(
        prior, htransform,
        intervals=(fitted_with(scan_slopes=slopes, scan_factors=(0.1, 10.0), patient_half_widths={"0.9": 4.4}),),
    )  # fmt: skip
    first, second = (DEFT(prior, htransform, None, one).reconstruct(y, scan, num_samples=0) for one in (plain, told))
    features = condition_for(scan.likelihood(y, PriorRange()), htransform).features
    assert torch.allclose(second.std, first.std * math.exp(0.5 * float(features[0, 2])), rtol=1e-4)
    record = second.provenance["spread"]
    assert record["patient_half_widths"]["0.9"] == pytest.approx(2 * normal_factor(0.9))
    assert "patient_half_widths" not in first.provenance["spread"]


@pytest.mark.parametrize(
    ("options", "changes", "reason"),
    [
        ({"calibrated": False}, {}, "switched off"),
        ({"draws": 2}, {}, "other settings"),
        ({}, {"intervals": ()}, "none was fitted"),
        ({}, {"intervals": (FittedIntervals(half_widths=WIDTHS, image_shape=(999, 999)),)}, "another size"),
        ({}, {"card": {"scan": {"geometry": "parallel", "views": 500, "photons": 1e5, "degrees": 180.0}}}, "views"),
    ],
)
def test_intervals_that_do_not_hold_are_not_used(networks, options, changes, reason):
    prior, htransform = networks
    method = DEFT(prior, htransform, DEFTConfig(steps=3, **options), made_for(prior, htransform, **changes))
    scan = tiny_scan()
    got = method.reconstruct(scan.simulate(tiny_slices(1)), scan, num_samples=0)
    spread = got.provenance["spread"]
    assert not spread["calibrated"] and reason in spread["reason"] and "half_widths" not in spread
    assert got.std is not None


def test_only_a_mean_can_do_without_samples(networks):
    prior, htransform = networks
    scan = tiny_scan()
    sampler = DEFT(prior, htransform, DEFTConfig(steps=3, estimate="samples"), made_for(prior, htransform))
    with pytest.raises(ValueError, match="at least 1 for deft"):
        sampler.reconstruct(scan.simulate(tiny_slices(1)), scan, num_samples=0)
