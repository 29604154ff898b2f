"""A circulant stand-in for ``A^T A``, fast to invert by FFT."""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass

import torch
from torch import Tensor

from deft_ct.operators.base import LinearOperator

# A^T A of a scan with few views is concentrated on the views' lines in the Fourier plane, and no scan is quite
# shift-invariant; twice to three times the mean over all directions covers what the mean misses.
_DIRECTION_MARGIN = 3.0
_PEAK_MARGIN = 1.2
# Step sizes of gradient and positivity relative to that of the data term, in units of the high-frequency level of
# A^T A. Broad optimum for 60-view CT; convergence holds for any positive value.
GRADIENT_STEP = 0.9
POSITIVITY_STEP = 0.45


@dataclass(frozen=True)
class Circulant:
    """``T = (c(w) + gradient |D(w)|^2 + positivity)^-1 / margin``, diagonal in the Fourier basis.

    It satisfies ``T^-1 >= A^T A + gradient D^T D + positivity I``, the step-size condition of the primal-dual method
    (Pock and Chambolle, ICCV 2011, with a non-diagonal T; He and Yuan, SIAM J. Imaging Sci. 2012).

    Attributes:
        multiplier: ``(H, W // 2 + 1)``, real.
        gradient: dual step for the finite differences.
        positivity: dual step for the sign constraint.
    """

    multiplier: Tensor
    gradient: float
    positivity: float

    def __call__(self, x: Tensor) -> Tensor:
        """Apply ``T`` to ``(..., H, W)``."""
        return torch.fft.irfft2(torch.fft.rfft2(x).mul_(self.multiplier), s=x.shape[-2:])


_CACHE: weakref.WeakKeyDictionary[LinearOperator, dict[tuple[torch.dtype, torch.device], Circulant]]
_CACHE = weakref.WeakKeyDictionary()


def circulant(operator: LinearOperator, like: Tensor) -> Circulant:
    """The preconditioner of an operator on images, computed once for each dtype and device.

    The symbol of ``A^T A`` comes from its response to impulses near the centre, averaged over directions. It is raised
    to cover the directions in which the response peaks. The power method then finds the factor that makes the bound
    hold.

    Args:
        operator: with a two-dimensional domain.
        like: a tensor of the dtype and device to compute in.
    """
    kept = _CACHE.setdefault(operator, {})
    key = (like.dtype, like.device)
    if key not in kept:
        kept[key] = _build(operator, like)
    return kept[key]


def _build(operator: LinearOperator, like: Tensor) -> Circulant:
    height, width = operator.domain_shape
    dtype, device = like.dtype, like.device
    symbol = _impulse_symbol(operator, like)
    fy = torch.fft.fftfreq(height, dtype=dtype, device=device)[:, None]
    fx = torch.fft.rfftfreq(width, dtype=dtype, device=device)[None, :]
    radius = torch.hypot(fy, fx)
    ring = (radius * max(height, width)).round().long()
    count = torch.zeros(int(ring.max()) + 1, dtype=dtype, device=device).index_put_(
        (ring,), torch.ones_like(radius), True
    )
    total = torch.zeros_like(count).index_put_((ring,), symbol, True)
    level = _PEAK_MARGIN * float(symbol[radius > 0.1].max()) if bool((radius > 0.1).any()) else float(symbol.max())
    level = level or 1.0  # an operator that sees nothing at the centre
    bound = (_DIRECTION_MARGIN * (total / count))[ring].clamp_min(level)
    gradient, positivity = GRADIENT_STEP * level, POSITIVITY_STEP * level
    differences = 4 * torch.sin(math.pi * fy).square() + 4 * torch.sin(math.pi * fx).square()
    multiplier = 1 / (bound + gradient * differences + positivity)
    rough = Circulant(multiplier, gradient, positivity)
    return Circulant(multiplier / (1.05 * _largest_eigenvalue(operator, rough, like)), gradient, positivity)


def _impulse_symbol(operator: LinearOperator, like: Tensor) -> Tensor:
    """Fourier transform of the response of ``A^T A`` to an impulse, averaged over a few positions."""
    height, width = operator.domain_shape
    centres = [
        (height // 2, width // 2),
        (height // 2 - 1, width // 2),
        (height // 2, width // 3),
        (height // 3, width // 2),
    ]
    impulses = torch.zeros(len(centres), height, width, dtype=like.dtype, device=like.device)
    for image, (row, column) in zip(impulses, centres, strict=True):
        image[row, column] = 1
    response = operator.normal(impulses)
    shifted = [
        torch.roll(image, (-row, -column), (0, 1)) for image, (row, column) in zip(response, centres, strict=True)
    ]
    return torch.fft.rfft2(torch.stack(shifted)).real.mean(0).clamp_min_(0)


def _largest_eigenvalue(operator: LinearOperator, t: Circulant, like: Tensor, iterations: int = 60) -> float:
    """Of ``T (A^T A + gradient D^T D + positivity I)``, by the power method."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(operator.domain_shape, generator=generator, dtype=like.dtype).to(like.device)
    value = 0.0
    for _ in range(iterations):
        x = x / x.norm()
        dy, dx = x.diff(dim=0), x.diff(dim=1)
        out = operator.normal(x) + t.positivity * x
        out[:-1] -= t.gradient * dy
        out[1:] += t.gradient * dy
        out[:, :-1] -= t.gradient * dx
        out[:, 1:] += t.gradient * dx
        x = t(out)
        value = float(x.norm())
    return value
