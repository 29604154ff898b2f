"""The scan of equal dose, within the training of a network, that stands in for a scan outside of it.

Neighbouring views of a dense scan measure nearly the same lines. So the noise in an image follows the dose, which is
views times photons: 1000 views of 4096 photons give nearly the noise of 200 views of 20,480 photons. A network that is
conditioned on the scan, and was trained for up to 200 views, is conditioned on the latter. The data stay as they are.
With few views this does not hold, because gaps between the views show in the image. ``docs/results.md`` has the
measured gain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from deft_ct.ct.trained_range import outside_training, photons_of, trained_span, views_of
from deft_ct.measurement.measurement import Measurement

DENSE_VIEWS = 80
"""Fewest views at which views and photons may be exchanged; a scan of fewer views is described as it is."""


@dataclass(frozen=True, kw_only=True)
class EquivalentScan:
    """The scan that a network is conditioned on.

    Attributes:
        grouped: views that count as one, at least 1.
        views: number of views in the input of the network.
        photons: photons in the input of the network; None for noise that has no photon count.
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
    reduce its views only from :data:`DENSE_VIEWS` on, and only where the training has a scan of as little dose. It
    follows from views and photons alone.

    Args:
        card: metadata of the network, see :func:`~deft_ct.ct.trained_range.outside_training`.
        measurement: the given scan.

    Returns:
        The scan; None where the given one is inside of the training, is not of CT, or is best described as it is.
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
