"""Limited arcs that start anywhere, and networks that are told where."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from tiny import NETWORK, SIZE, tiny_htransform, tiny_prior, tiny_slices
from tiny_pack import write_tiny_pack

from deft_ct.ct.pairs import SlicePairs
from deft_ct.ct.scan import Scan
from deft_ct.ct.scan_range import ScanRange
from deft_ct.ct.trained_range import outside_training
from deft_ct.datasets.packs import CTPack
from deft_ct.measurement.scales import PriorRange
from deft_ct.methods.deft import HTransform, HTransformConfig, condition_for, load_htransform, save_htransform
from deft_ct.methods.deft.conditioning import SPREAD_SLOPES, scan_features
from deft_ct.methods.deft.initial_table import TableConfig, tabulate
from deft_ct.methods.deft.refinement import Refinement, RefinementConfig
from deft_ct.methods.deft.train import start_from_htransform
from deft_ct.methods.deft.train_refinement import Tabulated, train_refinement
from deft_ct.operators.ct.redundancy import missing_direction
from deft_ct.training import TrainingConfig

SHAPE, PIXEL = (SIZE, SIZE), 8.0
ARC = Scan(views=24, degrees=120.0, detectors=48)
TOLD = RefinementConfig(
    network=replace(NETWORK, norm_groups=16), scan_features=True, arc_direction=True, spread_slopes=SPREAD_SLOPES
)


def likelihood(scan, count=2):
    measurement = scan.measurement(SHAPE, PIXEL)
    return measurement.likelihood(measurement.simulate(tiny_slices(count)), PriorRange())


@pytest.mark.parametrize("start", [0.0, 75.0, 150.0, 310.0])
@pytest.mark.parametrize("geometry, degrees", [("parallel", 120.0), ("fan", 120.0), ("fan", 200.0)])
def test_the_missing_lines_lie_across_the_middle_of_the_arc(geometry, degrees, start):
    scan = Scan(views=40, geometry=geometry, degrees=degrees, start=start)
    step = degrees / 40
    expected = (start + degrees / 2 - step / 2 + 90) % 180
    assert math.degrees(missing_direction(scan.measurement(SHAPE, PIXEL).operator.geometry)) == pytest.approx(expected)


def test_the_direction_says_which_edges_a_limited_arc_does_not_see():
    """What is missing of the Fourier plane lies along the normals of the missing lines, the angle of their view."""
    scan = Scan(views=90, photons=None, degrees=120.0, start=75.0, detectors=91)
    operator = scan.measurement((64, 64), 1.0).operator
    impulse = torch.zeros(1, 1, 64, 64)
    impulse[..., 32, 32] = 1.0
    spectrum = torch.fft.fft2(operator.pseudo_inverse(operator(impulse)))[0, 0].abs()
    row = torch.fft.fftfreq(64)[:, None].expand(64, 64)
    column = torch.fft.fftfreq(64)[None].expand(64, 64)
    radius = (row**2 + column**2).sqrt()
    ring = (radius > 0.1) & (radius < 0.3)

    def power(angle):  # in a wedge of 10 degrees around the normal (cos, -sin) of the view: rows run downwards
        along = (column * math.cos(angle) - row * math.sin(angle)).abs() / radius.clamp_min(1e-9)
        return float(spectrum[ring & (along > math.cos(math.radians(10)))].square().mean())

    missing = missing_direction(operator.geometry)
    mirrored = -missing
    others = [power(math.radians(a)) for a in range(0, 180, 30)]
    assert min(power(missing), power(mirrored)) < 0.1 * max(others)
    assert power(missing) < 0.2 * power(mirrored)


def test_a_start_changes_the_name_and_the_angles_alone():
    scan = replace(ARC, start=37.5)
    assert scan.name == "parallel24_1e5_120deg_from37.5_48bins" and Scan.from_name(scan.name) == scan
    assert "start" not in ARC.to_dict() and scan.to_dict()["start"] == 37.5
    for geometry in ("parallel", "fan"):
        here, there = (
            replace(scan, geometry=geometry, start=start).measurement(SHAPE, PIXEL).operator.geometry.angle_array
            for start in (0.0, 37.5)
        )
        torch.testing.assert_close(torch.from_numpy(there - here), torch.full((24,), math.radians(37.5)).double())
    with pytest.raises(ValueError, match="start must lie"):
        replace(ARC, start=360.0)


def test_random_arcs_start_anywhere_only_if_told_to():
    usual, anywhere = ScanRange().draw(40, 0), ScanRange(any_start=True).draw(40, 0)
    assert not any(scan.start for scan in usual)
    starts = [scan.start for scan in anywhere if not scan.full]
    assert len(set(starts)) == len(starts) > 5 and max(starts) > 180
    assert not any(scan.start for scan in anywhere if scan.full)


def test_two_features_tell_the_direction_and_vanish_for_full_scans():
    features = {
        start: scan_features(likelihood(replace(ARC, start=start)), direction=True)[0] for start in (0.0, 50.0, 230.0)
    }
    assert features[0.0].shape == (6,)
    torch.testing.assert_close(features[0.0][:4], scan_features(likelihood(ARC))[0])
    torch.testing.assert_close(features[50.0][:4], features[0.0][:4])
    turned = torch.complex(features[50.0][4], features[50.0][5]) / torch.complex(features[0.0][4], features[0.0][5])
    assert float(turned.angle()) == pytest.approx(math.radians(100.0), abs=1e-4)
    torch.testing.assert_close(features[50.0], features[230.0], rtol=0, atol=1e-5)  # the same lines
    full = scan_features(likelihood(Scan(views=24, detectors=48)), direction=True)[0]
    assert full[4:].abs().max() < 1e-5


def pairs_of(folder, *starts):
    folder.mkdir(exist_ok=True)
    scans = [replace(ARC, start=start).unit_measurement(SHAPE, PIXEL) for start in starts]
    return SlicePairs(CTPack(write_tiny_pack(folder / "train.h5")), scans, PriorRange())


def trained(folder, config, initial=None, steps=2):
    pairs = pairs_of(folder, 0.0, 90.0)
    table = TableConfig(
        batches=2, batch_size=2, tv_iterations=3, scan_features=True, arc_direction=config.arc_direction
    )  # fmt: skip
    training = TrainingConfig(steps=steps, batch_size=2, learning_rate=1e-6, warmup=1)
    return train_refinement(
        Tabulated(pairs=pairs, table=table), folder, config=config, training=training, initial=initial, progress=False
    )


def test_a_refinement_that_is_newly_told_the_direction_starts_where_it_was(tmp_path):
    before = Refinement(replace(TOLD, arc_direction=False))
    torch.nn.init.normal_(before.scan_embedding[2].weight)
    torch.nn.init.normal_(before.network.conv_out.weight, std=0.1)
    after = trained(tmp_path, TOLD, initial=before, steps=1)
    assert after.scan_embedding[0].weight.shape == (128, 6)
    images = torch.randn(1, 1, SIZE, SIZE), torch.randn(1, 1, SIZE, SIZE)
    told = scan_features(likelihood(ARC, 1), direction=True)
    with torch.no_grad():
        torch.testing.assert_close(after(*images, told), before(*images, told[:, :4]), rtol=0, atol=1e-3)
        assert not torch.equal(after(*images, told), before(*images, told[:, :4]))  # one step of training
    with pytest.raises(ValueError, match="another shape"):
        trained(tmp_path / "back", replace(TOLD, arc_direction=False), initial=Refinement(TOLD))


def test_a_head_is_told_the_direction_and_goes_on_from_one_that_is_not(tmp_path):
    prior = tiny_prior()
    config = HTransformConfig(
        network=NETWORK, reference="fbp", scan_features=True, arc_direction=True, spread_slopes=SPREAD_SLOPES
    )
    head = HTransform(config, prior.schedule, prior_hash=prior.content_hash())
    old = tiny_htransform(prior, reference="fbp", scan_features=True, spread_slopes=SPREAD_SLOPES)
    assert start_from_htransform(head, old) == [
        "is not conditioned on the direction of limited arcs: it starts at zero"
    ]
    assert not head.scan_embedding[0].weight[:, 4:].any()
    assert torch.equal(head.scan_embedding[0].weight[:, :4], old.scan_embedding[0].weight)
    with pytest.raises(ValueError, match="other arc_direction"):
        start_from_htransform(old, head)
    save_htransform(head, tmp_path)
    read = load_htransform(tmp_path)
    assert read.config == config and read.content_hash() == head.content_hash()
    assert condition_for(likelihood(ARC), read).features.shape == (2, 6)
    assert "arc_direction" not in old.description()["config"]


def test_what_cannot_be_told_is_refused():
    with pytest.raises(ValueError, match="arc_direction needs"):
        RefinementConfig(arc_direction=True)
    with pytest.raises(ValueError, match="arc_direction needs"):
        HTransformConfig(arc_direction=True)
    with pytest.raises(ValueError, match="see the same features"):
        HTransformConfig(scan_features=True, refinement=TOLD)


def test_a_table_without_directions_is_the_one_of_before(tmp_path):
    config = TableConfig(batches=1, batch_size=1, tv_iterations=1)
    assert "arc_direction" not in config.to_dict()
    assert replace(config, arc_direction=True).to_dict()["arc_direction"] is True
    pairs = pairs_of(tmp_path, 0.0)
    tabulate(pairs, config, tmp_path, progress=False)
    with pytest.raises(ValueError, match="was started with no arc_direction and this run has arc_direction true"):
        tabulate(pairs, replace(config, arc_direction=True), tmp_path, progress=False)


def test_arcs_from_anywhere_get_no_warning_where_the_training_had_them():
    card = {"scan": {"geometry": ["fan", "parallel"], "views": [15, 200], "photons": [1e4, 1e6], "degrees": [90, 180]}}
    scan = replace(ARC, start=75.0).measurement(SHAPE, PIXEL)
    assert [text for text in outside_training(card, scan) if "start" in text]
    card["scan"]["start_degrees"] = [0.0, 30.0]
    (text,) = outside_training(card, scan)
    assert "start at 0 or 30 degrees" in text
    for known in ([0.0, 75.0], "any"):
        card["scan"]["start_degrees"] = known
        assert outside_training(card, scan) == []
