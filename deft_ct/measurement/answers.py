"""What becomes of the samples of a method, and whether its answer is one."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from deft_ct.measurement.measurement import Measurement
from deft_ct.measurement.selection import best_by_residual
from deft_ct.runtime.seeds import Key

_ADVICE = "its settings do not suit this measurement; tuned ones are in the presets (`deft-ct tune`)"


def answer_of_samples(y: Tensor, samples: Tensor, measurement: Measurement) -> tuple[Tensor, dict[str, Any]]:
    """The mean, or where samples may be equivalents of each other the one that explains the data best; a record.

    Args:
        y: ``(B, C, *)`` data.
        samples: ``(B, S, *image_shape)`` in physical units.
        measurement: physics and noise.
    """
    if samples.shape[1] == 1 or not measurement.operator.has_equivalents:
        return samples.mean(1), {}
    best, residuals = best_by_residual(y, samples, measurement)
    record = {"rule": "smallest data residual", "samples": best.tolist(), "data_residuals": residuals.tolist()}
    return samples[torch.arange(len(y)), best.to(samples.device)], {"selected": record}


def check_diverged(
    name: str, image_ids: Sequence[Key], images: Sequence[Tensor], measurement: Measurement, limit: float
) -> bool:
    """Refuse images that are not finite, and warn of implausible ones, image by image.

    Args:
        name: of the method.
        image_ids: a name for each image.
        images: ``(B, *)`` in physical units: the mean, and samples if there are any.
        measurement: gives the unit of its scale.
        limit: largest plausible magnitude, in the unit of the scale.

    Returns:
        Whether all are plausible.

    Raises:
        FloatingPointError: some are NaN or infinite.
    """
    units = measurement.units
    physical = [values if units is None else units.affine.inverse(values) for values in images]
    largest = torch.stack([values.flatten(1).abs().amax(1) for values in physical]).amax(0)
    broken = [key for key, fine in zip(image_ids, torch.isfinite(largest).tolist(), strict=True) if not fine]
    if broken:
        raise FloatingPointError(f"{name} diverged to NaN or infinite values for images {broken}: {_ADVICE}")
    wild = [key for key, fine in zip(image_ids, (largest <= limit).tolist(), strict=True) if not fine]
    if wild:
        unit = "" if units is None else f" {units.unit}"
        warnings.warn(
            f"{name} diverged for images {wild}: values up to {float(largest.max()):.1e}{unit}; {_ADVICE}",
            UserWarning,
            stacklevel=4,
        )
    return not wild
