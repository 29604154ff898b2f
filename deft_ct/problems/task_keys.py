"""The parameters of tasks as text: numbers, choices, and the noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from deft_ct.operators.base import Operator
from deft_ct.operators.image_noise import PhotonNoise, UnknownGaussianNoise
from deft_ct.operators.noise import GaussianNoise, NoiseModel, NoNoise

NOISE = 0.05
"""Standard deviation of the Gaussian noise where none is given, on images in [-1, 1]: that of DPS and DAPS."""


@dataclass(frozen=True, kw_only=True)
class TaskKey:
    """A parameter of a task.

    Args:
        read: its value from text; raises ``ValueError`` for text that is none.
        default: its value where none is given.
        expects: what is expected, for error messages and help.
    """

    read: Callable[[str], Any]
    default: Any
    expects: str


def number(default: float, *, low: float = 0.0, high: float = float("inf"), above: bool = False) -> TaskKey:
    """A number from ``low`` (or ``above`` it) to ``high``."""

    def read(text: str) -> float:
        value = float(text)
        if not low <= value <= high or (above and value == low):  # also NaN
            raise ValueError(text)
        return value

    words = f"a number {'above' if above else 'from'} {low:g}" + (f" to {high:g}" if high < float("inf") else "")
    return TaskKey(read=read, default=default, expects=f"({words})")


def whole(default: int, low: int, high: int) -> TaskKey:
    """A whole number from ``low`` to ``high``."""

    def read(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return TaskKey(read=read, default=default, expects=f"(a whole number from {low} to {high})")


def odd(default: int) -> TaskKey:
    """An odd number up to 511: the size of a kernel."""

    def read(text: str) -> int:
        value = int(text)
        if not 1 <= value <= 511 or value % 2 == 0:
            raise ValueError(text)
        return value

    return TaskKey(read=read, default=default, expects="(an odd number from 1 to 511)")


def choice(default: str, *allowed: str) -> TaskKey:
    """One of several words."""

    def read(text: str) -> str:
        if text not in allowed:
            raise ValueError(text)
        return text

    return TaskKey(read=read, default=default, expects=f"({' | '.join(allowed)})")


def gaussian_noise(sigma: float) -> NoiseModel:
    """White Gaussian noise, or none for a standard deviation of 0."""
    return GaussianNoise(sigma) if sigma else NoNoise()


def _read_noise(text: str) -> NoiseModel:
    """``SIGMA`` or ``LOW..HIGH``."""
    low, dots, high = text.partition("..")
    if dots:
        return UnknownGaussianNoise(float(low), _LEVEL.read(high))
    return gaussian_noise(_LEVEL.read(text))


_ROUNDING = 1e-3
_LEVEL = number(NOISE, high=10.0)
_PHOTONS = number(100.0, low=0.1, high=1e9)
NOISE_KEYS: Mapping[str, TaskKey] = {
    "noise": TaskKey(
        read=_read_noise, default=NOISE, expects="(a number from 0 to 10, or LOW..HIGH for a level that is not told)"
    ),
    "photons": TaskKey(read=lambda text: PhotonNoise(_PHOTONS.read(text)), default=None, expects=_PHOTONS.expects),
}
"""Keys of the noise, of which a task has one at most."""


def check_noise(operator: Operator, noise: NoiseModel | None) -> None:
    """Refuse photons where the data are not brightness, and an unknown level where the data are no whole picture.

    Raises:
        ValueError: the noise does not suit the operator.
    """
    if not isinstance(noise, PhotonNoise | UnknownGaussianNoise):
        return
    black, white = (operator(torch.full((1, *operator.domain_shape), value)) for value in (-1.0, 1.0))
    if max(float(black.abs().max()), float(white.abs().max())) > 1 + _ROUNDING:
        raise ValueError("its data are not a picture: give the noise as noise=SIGMA")
    complete = max(float((black + 1).abs().max()), float((white - 1).abs().max())) < _ROUNDING
    if isinstance(noise, UnknownGaussianNoise) and not complete:
        raise ValueError(
            "an unknown level cannot be estimated from a picture with holes: give the noise as noise=SIGMA"
        )
