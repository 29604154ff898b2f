"""Blur kernels: Gaussian taps and random camera shakes."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def gaussian_taps(size: int, std: float, *, truncate: float = 4.0) -> Tensor:
    """Normalised samples of a Gaussian, ``(size,)`` in float64.

    Args:
        size: odd number of taps.
        std: standard deviation in pixels.
        truncate: taps further out than ``round(truncate * std)`` are zero (SciPy's convention).

    Raises:
        ValueError: a parameter is out of range.
    """
    _check_size(size)
    if not (math.isfinite(std) and std > 0 and truncate > 0):
        raise ValueError(f"std and truncate must be positive, got {std} and {truncate}")
    position = torch.arange(size, dtype=torch.float64) - size // 2
    taps = torch.exp(-0.5 * (position / std).square())
    if math.isfinite(truncate):
        taps[position.abs() > int(truncate * std + 0.5)] = 0
    return taps / taps.sum()


def motion_kernel(size: int, intensity: float, generator: torch.Generator, *, steps: int = 2000) -> Tensor:
    """Exposure of a point under a random camera shake.

    The model is that of Boracchi and Foi (Modeling the performance of image restoration from motion blur, IEEE TIP
    2012), with other constants. A point moves with inertia and is drawn back towards its start. Gaussian jitter pushes
    it, and sometimes an abrupt shake. The path is scaled to fill three quarters of the kernel, centred at its centre of
    mass, and drawn with bilinear weights. The kernels of DPS and DAPS come from a global random state, so only their
    size and intensity can be matched.

    Args:
        size: odd side of the kernel in pixels.
        intensity: 0 for a straight line, 1 for a violent shake.
        generator: source of the path.
        steps: number of points of the path.

    Returns:
        ``(size, size)`` in float64, non-negative, of sum one.

    Raises:
        ValueError: a parameter is out of range.
    """
    _check_size(size)
    if not 0 <= intensity <= 1:
        raise ValueError(f"intensity must be in [0, 1], got {intensity}")
    draws = torch.randn(steps, 2, generator=generator, dtype=torch.float64, device=generator.device).cpu()
    shakes = torch.rand(steps, 2, generator=generator, dtype=torch.float64, device=generator.device).cpu()
    jitter, chance, angle = draws.numpy(), shakes[:, 0].numpy(), 2 * math.pi * shakes[:, 1].numpy()
    heading = float(angle[0])
    velocity, position, path = complex(math.cos(heading), math.sin(heading)), 0j, []
    for step in range(steps):
        path.append(position)
        if step and chance[step] < 5 * intensity / steps:  # five abrupt shakes at full intensity
            velocity += 2 * complex(math.cos(angle[step]), math.sin(angle[step]))
        push = complex(jitter[step, 0], jitter[step, 1]) / math.sqrt(steps)
        velocity += intensity * (4 * push - 6 * position / steps**2)
        velocity /= max(abs(velocity), 1e-12)
        position += velocity
    points = torch.tensor([[p.imag, p.real] for p in path], dtype=torch.float64)
    points = points - points.mean(0)
    half = size // 2
    extent = float(points.abs().max())
    points = points * (0.75 * half / extent) + half
    return _lay_down(points, size)


def _lay_down(points: Tensor, size: int) -> Tensor:
    """Histogram of points ``(n, 2)`` inside ``[0, size - 1]`` with bilinear weights, normalised to sum one."""
    corner = points.floor().clamp(0, max(size - 2, 0)).long()
    fraction = points - corner
    kernel = torch.zeros(size * size, dtype=torch.float64)
    for row in (0, 1):
        for column in (0, 1):
            weight = (fraction[:, 0] if row else 1 - fraction[:, 0]) * (
                fraction[:, 1] if column else 1 - fraction[:, 1]
            )
            index = (corner[:, 0] + row).clamp_max(size - 1) * size + (corner[:, 1] + column).clamp_max(size - 1)
            kernel.index_add_(0, index, weight)
    return (kernel / kernel.sum()).reshape(size, size)


def _check_size(size: int) -> None:
    if size < 1 or size % 2 == 0:
        raise ValueError(f"the kernel size must be odd and positive, got {size}")
