"""A scan outside of the training of a network, in words that the network knows: fewer views with more photons each.

Neighbouring views of a dense scan measure nearly the same lines, so the noise in an image follows the dose, views times
photons, and 1000 views of 4096 photons are to an image what 200 views of 20,480 photons are. A network that is
conditioned on the scan, and has never heard of 1000 views, can be told the latter. The data stay as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from deft_ct.ct.trained_range import outside_training, photons_of, trained_span, views_of
from deft_ct.measurement.measurement import Measurement


@dataclass(frozen=True, kw_only=True)
class EquivalentScan:
    """What a network is told of a scan.

    Attributes:
        grouped: views that count as one, at least 1.
        views: views that the network is told of.
        photons: photons that it is told of; None for noise that has no photon count.
        too_weak: whether no scan of its training has as little dose.
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

    It never has more views than the given one, because views that were not measured cannot be made up. It follows from
    views and photons alone.

    Args:
        card: metadata of the network, see :func:`~deft_ct.ct.trained_range.outside_training`.
        measurement: the given scan.

    Returns:
        The scan; None where the given one is inside of the training, is not of CT, or where no number of views helps.
    """
    if not outside_training(card, measurement):
        return None
    views, photons = views_of(measurement), photons_of(measurement)
    if views is None:
        return None
    fewest, most = trained_span(card, "views")
    least = 0.0 if photons is None else trained_span(card, "photons")[0] / photons
    wanted = max(1.0, views / most, least)
    grouped = min(wanted, max(1.0, views / fewest))
    told = None if photons is None else photons * grouped
    too_weak = not math.isclose(grouped, wanted) and grouped < wanted
    if grouped == 1.0 and not too_weak:
        return None
    return EquivalentScan(grouped=grouped, views=views / grouped, photons=told, too_weak=too_weak)
