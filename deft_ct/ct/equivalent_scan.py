"""A scan outside of the training of a network, in words that the network knows: fewer views with more photons each.

Neighbouring views of a dense scan measure nearly the same lines, so the noise in an image follows the dose, views times
photons, and 1000 views of 4096 photons are to an image what 200 views of 20,480 photons are. A network that is
conditioned on the scan, and has never heard of 1000 views, can be told the latter. The data stay as they are. With few
views this does not hold, because gaps between the views show in the image: 50 views of 4096 photons are better told as
they are than as 20 views of 10,000 (31.99 and 31.72 dB), while 200 are better told as 82 (34.15 and 33.81 dB), and 200
of 1000 photons as 20 (31.33 and 30.69 dB).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from deft_ct.ct.trained_range import outside_training, photons_of, trained_span, views_of
from deft_ct.measurement.measurement import Measurement

DENSE_VIEWS = 80
"""A scan of fewer views is not told as fewer still; from here on, views and photons may be exchanged."""


@dataclass(frozen=True, kw_only=True)
class EquivalentScan:
    """What a network is told of a scan.

    Attributes:
        grouped: views that count as one, at least 1.
        views: views that the network is told of.
        photons: photons that it is told of; None for noise that has no photon count.
        too_weak: whether these are still fewer photons than in its training.
    """

    grouped: float
    views: float
    photons: float | None
    too_weak: bool

    def __str__(self) -> str:
        photons = "" if self.photons is None else f" with {self.photons:.3g} photons"
        return f"{self.views:.3g} views{photons}"


def equivalent_scan(card: dict[str, Any], measurement: Measurement) -> EquivalentScan | None:
    """The scan of equal dose that is closest to a given one and inside of the training of a network.

    It never has more views than the given one, because views that were not measured cannot be made up. Too few photons
    make it less only from :data:`DENSE_VIEWS` on, and only where the training has a scan of as little dose: 100 views
    of 1000 photons told as 15 of 6,667 lose 0.18 dB. It follows from views and photons alone.

    Args:
        card: metadata of the network, see :func:`~deft_ct.ct.trained_range.outside_training`.
        measurement: the given scan.

    Returns:
        The scan; None where the given one is inside of the training, is not of CT, or is best told as it is.
    """
    if not outside_training(card, measurement):
        return None
    views, photons = views_of(measurement), photons_of(measurement)
    if views is None:
        return None
    fewest, most = trained_span(card, "views")
    for_photons = 1.0 if photons is None else trained_span(card, "photons")[0] / photons
    exchangeable = views >= DENSE_VIEWS and for_photons <= views / fewest
    grouped = max(1.0, views / most, for_photons if exchangeable else 1.0)
    if grouped == 1.0:
        return None
    told = None if photons is None else photons * grouped
    too_weak = for_photons > grouped and not math.isclose(for_photons, grouped)
    return EquivalentScan(grouped=grouped, views=views / grouped, photons=told, too_weak=too_weak)
