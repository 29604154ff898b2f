import math

import pytest
from tiny import tiny_htransform, tiny_prior, tiny_scan, tiny_slices

from deft_ct.ct.scan import Scan
from deft_ct.ct.scan_range import ScanRange
from deft_ct.ct.trained_range import outside_training, training_finding
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.deft.reconstructor import DEFT, DEFTConfig
from deft_ct.operators.ct import ConeGeometry, FanGeometry, RayTransform
from deft_ct.operators.noise import GaussianNoise, NoNoise, PoissonNoise

SCAN = {"geometry": "parallel", "views": 12, "photons": 1e5}


def test_the_scan_of_the_training_passes():
    assert outside_training({"scan": SCAN}, tiny_scan(views=12, photons=1e5)) == []
    assert outside_training({"scan": SCAN}, tiny_scan(views=14, photons=6e4)) == []
    assert outside_training({}, tiny_scan(views=99)) == []


@pytest.mark.parametrize(
    ("scan", "sentence"),
    [
        (tiny_scan(views=30), "trained for 12 views, the scan has 30"),
        (tiny_scan(views=12, photons=1e4), "trained for 100000 photons, the scan has 10000"),
        (Measurement(tiny_scan(views=12).operator, GaussianNoise(0.1)), "the scan has GaussianNoise"),
    ],
)
def test_differences_are_named(scan, sentence):
    assert [text for text in outside_training({"scan": SCAN}, scan) if sentence in text]


def test_ranges_hold_what_lies_between():
    card = {"scan": {"geometry": ["parallel", "fan"], "views": [10, 40], "photons": [1e4, 1e6]}}
    assert outside_training(card, tiny_scan(views=30)) == []
    assert outside_training(card, tiny_scan(views=80)) == ["trained for 10 to 40 views, the scan has 80"]


def test_the_angular_range_counts():
    card = {"scan": {"geometry": ["fan", "parallel"], "views": [10, 40], "photons": [1e4, 1e6], "degrees": [120, 180]}}

    def limited(degrees):
        full = tiny_scan(views=20)
        geometry = full.operator.geometry.replace(views=20, angles=None, angular_range=math.radians(degrees))
        return Measurement(RayTransform(geometry), full.noise, units=full.units)

    def fan(degrees):
        geometry = FanGeometry.for_image((32, 32), 8.0, 20)
        geometry = geometry.replace(views=20, angles=None, angular_range=math.radians(degrees))
        return Measurement(RayTransform(geometry), tiny_scan().noise, units=tiny_scan().units)

    assert outside_training(card, limited(180)) == []
    assert outside_training(card, limited(115)) == []
    assert outside_training(card, limited(90)) == ["trained for 120 to 180 degrees, the scan has 90"]
    assert outside_training(card, fan(360)) == []
    assert outside_training(card, fan(220)) == ["trained for full turns of a fan beam, the scan covers 220 degrees"]
    short = {"scan": card["scan"] | {"fan_degrees": [180, 360]}}
    assert outside_training(short, fan(360)) == outside_training(short, fan(220)) == []
    assert outside_training(short, limited(170)) == []
    wanted = "trained for 180 to 360 degrees of a fan beam, the scan covers 120 degrees"
    assert outside_training(short, fan(120)) == [wanted]


@pytest.mark.parametrize(("fitted", "others"), [("fan20_1e5_220deg", [360, 180]), ("fan20_1e5", [220])])
def test_the_dictionary_of_a_fan_scan_says_its_arc(fitted, others):
    scan = Scan.from_name(fitted)
    here = scan.measurement((32, 32), 8.0)
    assert outside_training({"scan": scan.to_dict()}, here) == []
    for degrees in others:
        other = Scan(views=20, geometry="fan", degrees=degrees).measurement((32, 32), 8.0)
        assert len(outside_training({"scan": scan.to_dict()}, other)) == 1


def test_a_card_without_arcs_of_a_fan_means_full_turns():
    card = {"scan": {"geometry": ["fan", "parallel"], "views": [15, 200], "photons": [1e4, 1e6], "degrees": [90, 180]}}
    assert outside_training(card, Scan(geometry="fan").measurement((32, 32), 8.0)) == []
    short = Scan(geometry="fan", degrees=240).measurement((32, 32), 8.0)
    assert outside_training(card, short) == ["trained for full turns of a fan beam, the scan covers 240 degrees"]


def test_reconstructing_another_scan_warns():
    prior = tiny_prior()
    head = tiny_htransform(prior)
    head.card["scan"] = SCAN
    scan = tiny_scan(views=40)
    y = scan.simulate(tiny_slices(1))
    wanted = "outside the training range: .* was trained for 12 views, the scan"
    with pytest.warns(UserWarning, match=wanted):
        DEFT(prior, head, DEFTConfig(steps=1)).reconstruct(y, scan)


@pytest.mark.parametrize(
    ("first", "last", "warned"),
    [(0, 120, None), (120, 0, None), (3, 123, None), (180, 300, None), (75, 195, 75), (-60, 60, 120), (75, 254, None)],
)
def test_a_limited_arc_is_known_by_where_it_lies(first, last, warned):
    """The artefacts of a limited arc point somewhere, and the networks have seen one direction only."""
    card = {"scan": {"geometry": "parallel", "views": 20, "photons": 1e5, "degrees": [90, 180]}}
    full = tiny_scan(views=20, photons=1e5)
    angles = [math.radians(first + (last - first) * n / 20) for n in range(20)]
    geometry = full.operator.geometry.replace(angles=angles)
    found = outside_training(card, Measurement(RayTransform(geometry), full.noise, units=full.units))
    if warned is None:
        assert found == []
    else:
        assert found == [f"trained for limited arcs that start at 0 degrees, the scan's starts at {warned}"]


def test_a_network_without_differences_has_no_warning():
    assert training_finding("it", {"scan": SCAN}, tiny_scan(views=12, photons=1e5)) is None
    found = training_finding("fbp_unet", {"scan": SCAN}, tiny_scan(views=30, photons=1e4))
    assert str(found) == (
        "outside the training range: fbp_unet was trained for 12 views, the scan has 30; trained for 100000 photons, "
        "the scan has 10000; quality will be lower than reported"
    )


def test_every_scan_of_the_family_of_a_training_passes():
    family = ScanRange(any_start=True)
    card = {
        "geometry": ["fan", "parallel"], "views": list(family.views), "photons": list(family.photons),
        "degrees": list(family.degrees), "fan_degrees": list(family.fan_degrees), "start_degrees": "any",
    }  # fmt: skip
    for scan in family.draw(40, seed=0):
        assert outside_training({"scan": card}, scan.measurement((32, 32), 8.0)) == []
    for other in (Scan(views=400), Scan(photons=1e8), Scan(degrees=60), Scan(geometry="fan", degrees=45)):
        assert len(outside_training({"scan": card}, other.measurement((32, 32), 8.0))) == 1


def test_a_cone_beam_is_not_a_parallel_one():
    cone = RayTransform(ConeGeometry.for_image((4, 16, 16), 8.0, 12))
    found = outside_training({"scan": SCAN}, Measurement(cone, PoissonNoise(photons=1e5)))
    assert found == ["trained for parallel beams, the scan is cone"]


def test_noise_free_data_are_compared_as_such():
    clean, noisy = Measurement(tiny_scan(views=12).operator, NoNoise()), tiny_scan(views=12, photons=1e5)
    card = {"scan": SCAN | {"photons": 0.0}}
    assert outside_training(card, clean) == []
    assert outside_training(card, noisy) == ["trained for noise-free data, the scan has 100000 photons"]
    assert outside_training({"scan": SCAN}, clean) == ["trained for 100000 photons, the scan is noise-free"]
