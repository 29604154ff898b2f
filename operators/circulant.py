"""A circulant stand-in for ``A^T A`` on images or volumes, fast to invert by FFT."""

from __future__ import annotations

import math
import threading
import weakref
from dataclasses import dataclass

import torch
from torch import Tensor

from deft_ct.operators.differences import add_adjoint_differences, difference_scales, forward_differences
from deft_ct.operators.linear import LinearOperator

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
        multiplier: ``(H, W // 2 + 1)``, for volumes ``(Z, H, W // 2 + 1)``; real.
        gradient: dual step for the finite differences.
        positivity: dual step for the sign constraint.
    """

    multiplier: Tensor
    gradient: float
    positivity: float

    def __call__(self, x: Tensor) -> Tensor:
        """Apply ``T`` to ``(..., H, W)`` or ``(..., Z, H, W)``."""
        dims = tuple(range(-self.multiplier.ndim, 0))
        spectrum = torch.fft.rfftn(x, dim=dims).mul_(self.multiplier)
        return torch.fft.irfftn(spectrum, s=x.shape[-len(dims) :], dim=dims)


_CACHE: weakref.WeakKeyDictionary[LinearOperator, dict[tuple[torch.dtype, torch.device], Circulant]]
_CACHE = weakref.WeakKeyDictionary()
_LOCK = threading.Lock()  # threads with the same operator wait for one of them to build it


def circulant(operator: LinearOperator, like: Tensor) -> Circulant:
    """The preconditioner of an operator on images, computed once for each dtype and device.

    The symbol of ``A^T A`` comes from its response to impulses near the centre, averaged over directions. It is raised
    to cover the directions in which the response peaks. The power method then finds the factor that makes the bound
    hold. In a volume the directions are those within a slice, since scanners turn about the z axis: the symbol is a
    function of the distance from that axis and of the frequency along it.

    Args:
        operator: on images ``(H, W)`` or ``(C, H, W)``, or on volumes ``(Z, H, W)``, see
            :func:`~deft_ct.operators.differences.difference_scales`. All channels get the same stand-in.
        like: a tensor of the dtype and device to compute in.

    Raises:
        ValueError: the domain has other axes.
    """
    with _LOCK:
        kept = _CACHE.setdefault(operator, {})
        key = (like.dtype, like.device)
        if key not in kept:
            kept[key] = _build(operator, like)
        return kept[key]


def _build(operator: LinearOperator, like: Tensor) -> Circulant:
    scales = difference_scales(operator)
    if scales is None:
        raise ValueError(
            f"a circulant preconditioner needs images or volumes, got an operator on {operator.domain_shape}"
        )
    *slices, height, width = operator.domain_shape[-len(scales) :]
    dtype, device = like.dtype, like.device
    channels = [()] if len(operator.domain_shape) == len(scales) else [(c,) for c in range(operator.domain_shape[0])]
    symbol = torch.stack([_impulse_symbol(operator, like, channel) for channel in channels]).amax(0)
    fy = torch.fft.fftfreq(height, dtype=dtype, device=device)[:, None]
    fx = torch.fft.rfftfreq(width, dtype=dtype, device=device)[None, :]
    radius = torch.hypot(fy, fx).expand(symbol.shape)
    ring = (radius * max(height, width)).round().long()
    if slices:  # the rings of each frequency along z by themselves
        ring = ring + (int(ring.max()) + 1) * torch.arange(slices[0], device=device)[:, None, None]
    count = torch.zeros(int(ring.max()) + 1, dtype=dtype, device=device).index_put_(
        (ring,), torch.ones_like(radius), True
    )
    total = torch.zeros_like(count).index_put_((ring,), symbol, True)
    level = _PEAK_MARGIN * float(symbol[radius > 0.1].max()) if bool((radius > 0.1).any()) else float(symbol.max())
    level = level or 1.0  # an operator that sees nothing at the centre
    bound = (_DIRECTION_MARGIN * (total / count))[ring].clamp_min(level)
    gradient, positivity = GRADIENT_STEP * level, POSITIVITY_STEP * level
    differences = 4 * scales[-2] ** 2 * torch.sin(math.pi * fy).square()
    differences = differences + 4 * scales[-1] ** 2 * torch.sin(math.pi * fx).square()
    if slices:
        fz = torch.fft.fftfreq(slices[0], dtype=dtype, device=device)[:, None, None]
        differences = differences + 4 * scales[0] ** 2 * torch.sin(math.pi * fz).square()
    multiplier = 1 / (bound + gradient * differences + positivity)
    rough = Circulant(multiplier, gradient, positivity)
    margin = 1.05 * _largest_eigenvalue(operator, rough, like, scales)
    return Circulant(multiplier / margin, gradient, positivity)


def _impulse_symbol(operator: LinearOperator, like: Tensor, channel: tuple[int, ...]) -> Tensor:
    """Fourier transform of the response of ``A^T A`` to an impulse, averaged over a few positions.

    Args:
        operator: of the stand-in.
        like: gives dtype and device.
        channel: index of the channel of the impulse and of the response; ``()`` where there are no channels.
    """
    *slices, height, width = operator.domain_shape[len(channel) :]
    middle = tuple(n // 2 for n in slices)
    centres = [
        (*middle, height // 2, width // 2),
        (*middle, height // 2 - 1, width // 2),
        (*middle, height // 2, width // 3),
        (*middle, height // 3, width // 2),
    ]
    impulses = torch.zeros(len(centres), *operator.domain_shape, dtype=like.dtype, device=like.device)
    for image, centre in zip(impulses, centres, strict=True):
        image[channel + centre] = 1
    if operator.images is None:
        response = operator.normal(impulses)
    else:  # parameters for one image: one at a time
        response = torch.stack([operator.normal(impulse) for impulse in impulses])
    response = response[:, channel[0]] if channel else response
    dims = tuple(range(response.ndim - 1))
    shifted = [
        torch.roll(image, tuple(-n for n in centre), dims) for image, centre in zip(response, centres, strict=True)
    ]
    spectrum = torch.fft.rfftn(torch.stack(shifted), dim=tuple(range(-len(dims), 0)))
    return spectrum.real.mean(0).clamp_min_(0)


def _largest_eigenvalue(
    operator: LinearOperator, t: Circulant, like: Tensor, scales: tuple[float, ...], iterations: int = 60
) -> float:
    """Of ``T (A^T A + gradient D^T D + positivity I)``, by the power method."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(operator.domain_shape, generator=generator, dtype=like.dtype).to(like.device)
    value = 0.0
    for _ in range(iterations):
        x = x / x.norm()
        out = operator.normal(x) + t.positivity * x
        x = t(add_adjoint_differences(out, t.gradient * forward_differences(x, scales), scales))
        value = float(x.norm())
    return value
