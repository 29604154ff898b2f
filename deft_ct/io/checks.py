"""What a volume from a file must satisfy before it is called a CT volume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.ct.volume import Volume
from deft_ct.io.errors import ReadError
from deft_ct.io.limits import current_limits


def checked_volume(path: Path, hu: Any, affine: Any, units: HounsfieldScale | None) -> Volume:
    """A volume of what a file says.

    Args:
        path: the file, for messages.
        hu: (Z, H, W) CT numbers.
        affine: (4, 4) to LPS millimetres, as an array or nested lists.
        units: attenuation scale; the default one when None.

    Raises:
        ReadError: it is not a CT volume: shape, affine, values that are not finite or beyond ``Limits.hu``, pixels or
            slices beyond ``Limits.pixel_mm``.
    """
    limits = current_limits()
    try:
        matrix = np.asarray(affine, np.float64)
        with np.errstate(all="ignore"):
            volume = Volume(hu, matrix, units or HounsfieldScale())
    except (ValueError, TypeError, OverflowError, np.linalg.LinAlgError) as error:
        raise ReadError(path, f"is not a CT volume: {error}") from error
    for spacing in volume.spacing_mm:
        limits.check_spacing(path, spacing)
    limits.check_spacing(path, volume.z_mm, what="the distance of its slices")
    largest = max(abs(float(volume.hu.min())), abs(float(volume.hu.max())))
    if largest > limits.hu:
        raise ReadError(path, f"holds a value of {largest:g} HU; CT numbers lie within +-{limits.hu:g}. Is it in HU?")
    return volume
