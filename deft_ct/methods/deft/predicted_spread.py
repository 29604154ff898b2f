"""What a spread network says of the means of one request: their standard deviation, and the error to expect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from deft_ct.ct.trained_range import outside_training
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.deft.htransform import Condition
from deft_ct.methods.deft.spread_calibration import SpreadCalibration
from deft_ct.methods.deft.spread_network import LAPLACE_DEVIATION, MAIN_LEVEL, FittedIntervals, SpreadNetwork
from deft_ct.runtime.content_key import content_digest


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """The intervals of a spread network for one request.

    Args:
        network: the spread network.
        fitted: its intervals for images of this size; None if there are none.
        reasons: why they do not hold here, one phrase each.
    """

    network: SpreadNetwork
    fitted: FittedIntervals | None
    reasons: tuple[str, ...] = ()

    @property
    def holding(self) -> FittedIntervals | None:
        """The intervals if they hold for the request."""
        return None if self.reasons else self.fitted

    @property
    def expects_error(self) -> bool:
        """Whether the mean squared error of an image is known, see :meth:`energy`."""
        return self.holding is not None and self.holding.root_mean_square > 0

    def scale(self, means: Tensor, condition: Condition) -> Tensor:
        """Scale of the errors, ``(B, *image_shape)`` in the prior's range; a row does not depend on the batch."""
        rows = [self.network(means[i : i + 1], condition[i : i + 1]) for i in range(len(means))]
        return torch.cat(rows)

    def energy(self, scale: Tensor, condition: Condition) -> Tensor:
        """``(B,)``, the mean squared error that is to be expected of each mean, in the square of the unit of ``scale``.

        Only where :attr:`expects_error`.
        """
        assert self.holding is not None
        error = self.holding.root_mean_square * self.holding.corrected(scale, condition.features)
        return error.square().flatten(1).mean(1)

    def deviation(self, scale: Tensor, condition: Condition, *, calibrated: bool) -> tuple[Tensor, dict[str, Any]]:
        """The standard deviation of each pixel, in the unit of ``scale``, and the record of its intervals.

        Args:
            scale: of :meth:`scale`, in any unit.
            condition: that the means were computed under.
            calibrated: whether the fitted intervals are used.
        """
        record: dict[str, Any] = {"by": "network", "spread_sha256": self.network.content_hash()}
        fitted = self.holding
        if fitted is None or not calibrated:
            reasons = [*([] if calibrated else ["switched off"]), *self.reasons]
            return scale * LAPLACE_DEVIATION, record | {"calibrated": False, "reason": "; ".join(reasons)}
        record |= {"calibrated": True, "half_widths": fitted.in_deviations, "level": MAIN_LEVEL, **fitted.provenance}
        record |= {"patient_half_widths": fitted.of_patients} if fitted.patient_half_widths else {}
        return fitted.corrected(scale, condition.features) * fitted.deviation, record


def intervals_of(
    network: SpreadNetwork, measurement: Measurement, image_shape: Sequence[int], settings: Mapping[str, Any]
) -> Intervals:
    """The intervals of a spread network for one request.

    Args:
        network: beside the h-transform that computes the means.
        measurement: of the request.
        image_shape: of one image.
        settings: of the mean, see ``DEFTConfig.mean_settings``.
    """
    reasons = [f"it was {text}" for text in outside_training(network.card, measurement)]
    fitted = network.intervals_for(image_shape)
    if fitted is None:
        reasons.append("it was fitted for images of another size" if network.intervals else "none was fitted")
    elif fitted.settings != settings:
        reasons.append("it was fitted for a mean of other settings")
    return Intervals(network=network, fitted=fitted, reasons=tuple(reasons))


def fit_digest(network: SpreadNetwork | None, calibrations: Sequence[SpreadCalibration]) -> str | None:
    """SHA-256 of everything that was fitted for the spread, apart from where it comes from; None if nothing was.

    Args:
        network: the spread network, with its intervals.
        calibrations: of the spread of samples.
    """
    intervals = [] if network is None else [asdict(replace(one, provenance={})) for one in network.intervals]
    fits = [*intervals, *(asdict(replace(one, provenance={})) for one in calibrations)]
    if network is None and not fits:
        return None
    return content_digest([network and network.content_hash(), *fits])
