"""What is unusual about the CT numbers of a series: counted, and said where they may be wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from deft_ct.ct.hounsfield import HU_MIN
from deft_ct.io.dicom_pixels import SlicePixels
from deft_ct.operators.findings import Finding

AIR_HU = (-1100.0, -850.0)
LEAST_AIR = 1e-3
"""Least share of pixels near -1000 HU, padding included; slices without air around or inside of the body are rare."""
MOST_HU = 30_000.0
"""No tissue, and hardly any metal, has a CT number beyond this."""
PADDING_HU = (-900.0, 3500.0)
"""Padding between these is as dense as lung, tissue or bone."""


def pixel_notes(slices: Sequence[SlicePixels]) -> tuple[str, ...]:
    """How many pixels were padding, below the scale, or had bits beyond BitsStored."""
    total = sum(one.hu.size for one in slices)
    counts = (
        (sum(one.padded for one in slices), "hold the PixelPaddingValue and were set to -1024 HU"),
        (sum(one.below for one in slices), "lie below -1024 HU and were set to it"),
        (sum(one.foreign for one in slices), "have bits beyond BitsStored (an overlay), which were masked"),
    )
    return tuple(f"{count:,} of {total:,} pixels {what}" for count, what in counts if count)


def pixel_findings(slices: Sequence[SlicePixels], headers: Sequence[Dataset]) -> tuple[Finding, ...]:
    """What speaks against the CT numbers of a series: padding like tissue, a negative slope, and the values."""
    found = []
    tissue = [one for one in slices if PADDING_HU[0] < one.padding_hu <= PADDING_HU[1]]
    if tissue:
        most = max(one.padding_hu for one in tissue)
        found.append(
            Finding(
                "padding like tissue",
                f"PixelPaddingValue is {most:g} HU: {sum(one.padded for one in tissue):,} pixels were set to -1024 HU; "
                "if they are no padding, delete PixelPaddingValue",
            )
        )
    if any(float(header.RescaleSlope) < 0 for header in headers):
        found.append(Finding("negative slope", "RescaleSlope is negative: dense places would be dark. Is it right?"))
    whole = all(not one.padded and not one.below for one in slices)
    return (*found, *value_findings([one.hu for one in slices], unchanged=whole))


def value_findings(hu: Sequence[NDArray[np.float32]], *, unchanged: bool = True) -> tuple[Finding, ...]:
    """What speaks against the values of CT slices.

    Args:
        hu: slices in HU.
        unchanged: whether -1024 HU is a value of the file, and not only padding that was set to it.
    """
    found = []
    low, high = AIR_HU
    total = sum(one.size for one in hu)
    lowest, highest = min(float(one.min()) for one in hu), max(float(one.max()) for one in hu)
    largest = highest if highest > -lowest else lowest
    air = sum(int(((one >= low) & (one <= high)).sum()) for one in hu)
    vacuum = 0 if unchanged else sum(int((one == HU_MIN).sum()) for one in hu)
    if abs(largest) > MOST_HU:
        found.append(
            Finding("values beyond any tissue", f"a CT number is {largest:,.0f} HU; expected at most {MOST_HU:,.0f}")
        )
    if (air - vacuum) / total < LEAST_AIR:
        found.append(
            Finding(
                "no air",
                f"no air near -1000 HU (lowest value {lowest:g} HU): either none is in the field of view, or "
                "RescaleIntercept is wrong",
            )
        )
    return tuple(found)
