"""The Hounsfield scale from numbers, and from places in an image."""

from __future__ import annotations

import numpy as np
import pytest

from deft_ct.ct.calibration import Disc, WaterAndAir
from deft_ct.ct.hounsfield import HounsfieldScale

IMAGE = np.full((1, 40, 60), 0.001, np.float32)
IMAGE[0, 5:15, 40:55] = 0.019
"""Water above the middle on the right, 2 mm pixels: x from 21 to 49 mm, y from 11 to 29 mm."""


def test_numbers() -> None:
    scale, record = WaterAndAir(water=0.019, air=0.001).scale(IMAGE, 2.0)
    assert scale == HounsfieldScale(mu_water=0.019, mu_air=0.001)
    assert record == {"water": {"per_mm": 0.019}, "air": {"per_mm": 0.001}}
    assert not WaterAndAir().wanted and not WaterAndAir(water=0.02).needs_image


def test_places() -> None:
    how = WaterAndAir(water=Disc(35.0, 20.0, 6.0), air=Disc(-20.0, -10.0, 8.0))
    scale, record = how.scale(IMAGE, 2.0)
    assert how.needs_image and record["water"]["std_per_mm"] < 1e-8 and record["air"]["pixels"] > 40
    assert scale.to_hu(0.019) == pytest.approx(0, abs=1e-3) and scale.to_hu(0.001) == pytest.approx(-1000, abs=1e-3)
    with pytest.raises(ValueError, match="choose the place of water anew"):
        WaterAndAir(water=Disc(-20.0, -10.0, 8.0), air=0.0010001).scale(IMAGE, 2.0)


def test_what_most_of_the_object_has() -> None:
    scale, _ = WaterAndAir(water="auto").scale(IMAGE, 2.0)
    assert scale.mu_water == pytest.approx(0.019) and scale.mu_air == 0


def test_faults() -> None:
    with pytest.raises(ValueError, match="air alone"):
        WaterAndAir(air=0.001)
    with pytest.raises(ValueError, match="expected 0 <= mu_air < mu_water"):
        WaterAndAir(water=0.01, air=0.02)
    with pytest.raises(ValueError, match=">= 0 in 1/mm"):
        WaterAndAir(water=-1.0)
    with pytest.raises(ValueError, match="radius positive"):
        Disc(0.0, 0.0, 0.0)
    for place in (Disc(58.0, 0.0, 5.0), Disc(0.0, 0.0, 0.5)):
        with pytest.raises(ValueError, match="choose one inside of it"):
            WaterAndAir(water=place).scale(IMAGE, 2.0)
