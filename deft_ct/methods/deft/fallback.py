"""What DEFT does with a scan that its networks were not trained for.

More data must not make an image worse, and no image of DEFT should be worse than that of TV. The networks are
conditioned on the numbers of views and photons, and they extrapolate badly: with 1000 views of 4096 photons as their
input they lose what the additional views bring. So their input is the closest scan of equal dose within their training
(:mod:`deft_ct.ct.equivalent_scan`), 200 views of 20,480 photons. All data are used as they are, by the initial TV
reconstruction and by its residual.

The plan follows from the scan and the card of the h-transform alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deft_ct.ct.equivalent_scan import equivalent_scan
from deft_ct.ct.trained_range import LOWER_QUALITY, training_finding
from deft_ct.measurement.measurement import Measurement
from deft_ct.operators.findings import Finding


@dataclass(frozen=True, kw_only=True)
class ScanPlan:
    """How a scan is reconstructed.

    Attributes:
        grouped: views that count as one in the input of the networks; 1 for the scan as it is.
        note: what is done instead of the usual, in a few words for a table; empty for nothing.
        findings: for the user, before the reconstruction.
    """

    grouped: float = 1.0
    note: str = ""
    findings: tuple[Finding, ...] = ()

    @property
    def record(self) -> dict[str, Any]:
        """For the provenance; nothing where nothing is done."""
        return {"note": self.note, "views_counted_as_one": self.grouped} if self.note else {}


def plan_for(card: dict[str, Any], measurement: Measurement, *, told_scan: bool) -> ScanPlan:
    """The plan for a scan.

    Args:
        card: of the h-transform, see :func:`~deft_ct.ct.trained_range.outside_training`.
        measurement: the given scan.
        told_scan: whether the networks are conditioned on the scan; for others there is nothing to change.
    """
    found = equivalent_scan(card, measurement) if told_scan else None
    if found is None:
        return ScanPlan(findings=_finding(card, measurement, LOWER_QUALITY))
    note = f"networks conditioned on {found}"
    consequence = f"they are conditioned on {found}, of the same dose, and all data are used"
    if found.too_weak:
        consequence += f"; still too noisy for their training, so {LOWER_QUALITY}"
    return ScanPlan(grouped=found.grouped, note=note, findings=_finding(card, measurement, consequence))


def _finding(card: dict[str, Any], measurement: Measurement, consequence: str) -> tuple[Finding, ...]:
    found = training_finding("the h-transform", card, measurement, consequence=consequence)
    return () if found is None else (found,)
