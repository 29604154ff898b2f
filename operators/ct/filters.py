"""Ramp filters of filtered back-projection."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from deft_ct.operators.ct import _checks
from deft_ct.operators.ct.rays import Array

_WINDOWS: dict[str, Callable[[Array], Array]] = {
    "ram-lak": np.ones_like,
    "shepp-logan": lambda f: np.sinc(f / 2),
    "cosine": lambda f: np.cos(math.pi * f / 2),
    "hamming": lambda f: 0.54 + 0.46 * np.cos(math.pi * f),
    "hann": lambda f: 0.5 + 0.5 * np.cos(math.pi * f),
}


def filter_names() -> list[str]:
    """Names of the known filters."""
    return sorted(_WINDOWS)


def check_filter(name: str, cutoff: float) -> None:
    """Raise ValueError for an unknown filter or a cut-off outside (0, 1]."""
    if name not in _WINDOWS:
        raise ValueError(f"unknown filter {name!r}; choose one of {', '.join(filter_names())}")
    if not 0 < _checks.finite("cutoff", cutoff) <= 1:
        raise ValueError(f"cutoff must be in (0, 1], a fraction of the Nyquist frequency, got {cutoff}")


def ramp_response(detectors: int, spacing: float, name: str, cutoff: float, *, equiangular: bool = False) -> Array:
    """Frequency response of the windowed ramp, for real FFTs of the padded detector rows.

    The ramp is sampled in space (Kak and Slaney 1988, eq. 3.61; for an equiangular detector eq. 3.97 up to the factor
    1/2), which keeps the right mean value that sampling ``|f|`` loses.

    Args:
        detectors: number of samples of a row.
        spacing: their distance, mm, or radians for an equiangular detector.
        name: one of :func:`filter_names`.
        cutoff: fraction of the Nyquist frequency where the window ends.
        equiangular: whether the samples are angles at the source.

    Returns:
        ``(length // 2 + 1,)`` for rows padded to ``length``, the power of two >= 2 * detectors; it includes the
        integration step ``spacing``.
    """
    check_filter(name, cutoff)
    length = padded_length(detectors)
    n = np.fft.fftfreq(length, 1 / length)
    odd = n % 2 != 0
    kernel = np.zeros(length)
    kernel[0] = 1 / (4 * spacing**2)
    kernel[odd] = -1 / (math.pi * n[odd] * spacing) ** 2
    if equiangular:
        angle = n * spacing
        used = odd & (np.abs(n) < detectors)
        kernel[used] *= (angle[used] / np.sin(angle[used])) ** 2
    response: Array = np.fft.rfft(kernel).real * spacing
    frequency = np.fft.rfftfreq(length) * 2 / cutoff
    return response * np.where(frequency <= 1, _WINDOWS[name](np.minimum(frequency, 1)), 0.0)


def padded_length(detectors: int) -> int:
    """Length to which rows are zero-padded, so that the filter does not wrap around."""
    return max(64, 1 << (2 * detectors - 1).bit_length())


def apply_filter(rows: Tensor, response: Tensor) -> Tensor:
    """Filter ``(..., detectors)`` with a response of :func:`ramp_response`; self-adjoint."""
    if not rows.numel():  # MKL refuses an empty batch
        return rows
    detectors = rows.shape[-1]
    length = 2 * (response.shape[-1] - 1)
    spectrum = torch.fft.rfft(rows, n=length) * response
    filtered: Tensor = torch.fft.irfft(spectrum, n=length)[..., :detectors]
    return filtered
