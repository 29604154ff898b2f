"""The closest scan of equal dose inside of a training, from views and photons alone."""

import pytest
from tiny import tiny_scan

from deft_ct.ct.equivalent_scan import equivalent_scan
from deft_ct.measurement.measurement import Measurement
from deft_ct.operators import SuperResolution
from deft_ct.operators.noise import GaussianNoise, NoNoise

CARD = {"scan": {"geometry": ["parallel"], "views": [15, 200], "photons": [1e4, 1e6]}}


@pytest.mark.parametrize("views", [15, 60, 200, 240])
@pytest.mark.parametrize("photons", [6e3, 1e5, 1.9e6])
def test_a_scan_of_the_training_is_told_as_it_is(views, photons):
    assert equivalent_scan(CARD, tiny_scan(views=views, photons=photons)) is None


@pytest.mark.parametrize(
    ("views", "photons", "told_views", "told_photons"),
    [
        (1000, 4096, 200, 20480),  # LoDoPaB
        (500, 4096, 200, 10240),
        (200, 4096, 81.92, 1e4),
        (200, 1e3, 20, 1e4),
        (500, 1e5, 200, 2.5e5),
        (1000, 1e3, 100, 1e4),
        (1000, 1e6, 200, 5e6),  # more photons than in training, but no more views than there are
    ],
)
def test_the_dose_stays_and_views_go_no_further_than_needed(views, photons, told_views, told_photons):
    found = equivalent_scan(CARD, tiny_scan(views=views, photons=photons))
    assert found is not None and not found.too_weak
    assert (found.views, found.photons) == pytest.approx((told_views, told_photons))
    assert found.views * found.photons == pytest.approx(views * photons)
    assert found.grouped == pytest.approx(views / told_views)


def test_too_little_dose_is_said():
    assert equivalent_scan(CARD, tiny_scan(views=100, photons=1e3)) is None
    found = equivalent_scan(CARD, tiny_scan(views=400, photons=100))
    assert found is not None and found.too_weak
    assert (found.views, found.photons) == pytest.approx((200, 200))


def test_few_views_are_told_as_they_are():
    """Gaps between them show in the image, so they are not the same as fewer views with more photons."""
    assert equivalent_scan(CARD, tiny_scan(views=50, photons=4096)) is None
    assert equivalent_scan(CARD, tiny_scan(views=79, photons=1e3)) is None


def test_views_are_never_made_up():
    assert equivalent_scan(CARD, tiny_scan(views=60, photons=1e8)) is None
    assert equivalent_scan(CARD, tiny_scan(views=5, photons=1e5)) is None


@pytest.mark.parametrize("noise", [GaussianNoise(0.1), NoNoise()])
def test_noise_without_photons_counts_views_alone(noise):
    dense = Measurement(tiny_scan(views=400).operator, noise)
    found = equivalent_scan(CARD, dense)
    assert found is not None and found.photons is None and found.grouped == 2
    assert str(found) == "200 views"
    assert equivalent_scan(CARD, Measurement(tiny_scan(views=60).operator, noise)) is None


def test_no_card_and_no_ct_say_nothing():
    assert equivalent_scan({}, tiny_scan(views=1000)) is None
    assert equivalent_scan(CARD, Measurement(SuperResolution((3, 32, 32), 4), GaussianNoise(0.1))) is None
