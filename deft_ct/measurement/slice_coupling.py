"""Coupling of neighbouring slices, for methods whose prior knows single slices only.

Slices that are denoised one by one flicker along z. DiffusionMBIR (Chung et al. 2023, arXiv 2211.10655, eq. 14) takes
the total variation along z into the data step of each time of the diffusion. Here it is one step of lagged
diffusivity (Vogel and Oman 1996, SIAM J. Sci. Comput. 17, 227): at the present volume ``x`` the absolute value of a
difference ``d`` is replaced by the parabola ``d^2 / (2 |d_x|) + |d_x| / 2`` that touches it there. The data step stays
a linear system, and as the volumes of successive times approach each other, the steps approach those of the total
variation.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SMOOTHING = 5e-3
"""Differences below this, in the range of the prior (5 HU for 1000 HU a unit), are penalised quadratically."""


class SliceCoupling:
    """``C v = D^T (w D v)`` with ``D`` the differences along z and ``w = strength / max(|D x|, epsilon)``.

    Args:
        x: ``(B, C, Z, H, W)``, the volumes at which the total variation is majorised.
        strength: ``(B,)``, weight of the total variation.
        scale: factor of a difference, the smallest spacing of the grid over that of the slices.
    """

    def __init__(self, x: Tensor, strength: Tensor, scale: float) -> None:
        size = scale * x.diff(dim=-3).abs()
        steepness = strength.to(x).reshape(-1, *(1,) * (x.ndim - 1))
        self.weights = scale**2 * steepness / size.clamp_min(_SMOOTHING)
        """``(B, C, Z - 1, H, W)``."""

    def __call__(self, v: Tensor) -> Tensor:
        """``C v``, of the shape of ``v``; the gradient of the total variation (smoothed) for ``v = x``."""
        return self.transpose(self.weights * v.diff(dim=-3))

    def transpose(self, u: Tensor) -> Tensor:
        """``D^T u`` for ``u`` ``(B, C, Z - 1, H, W)``."""
        edge = u.new_zeros((*u.shape[:-3], 1, *u.shape[-2:]))
        return torch.cat([edge, u], -3) - torch.cat([u, edge], -3)

    def noise(self, normal: Tensor) -> Tensor:
        """Gaussian noise of covariance ``C``, of standard normal numbers of the shape of :attr:`weights`."""
        return self.transpose(self.weights.sqrt() * normal)
