"""Iterative solvers on callables, with a separate step size for every sample of a batch."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def conjugate_gradient(
    matvec: Callable[[Tensor], Tensor],
    rhs: Tensor,
    *,
    batch_ndim: int = 1,
    x0: Tensor | None = None,
    iterations: int = 50,
    tolerance: float = 1e-6,
    preconditioner: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, int]:
    """Solve ``M x = rhs`` for a symmetric positive semi-definite ``M`` by conjugate gradients.

    The method of Hestenes and Stiefel 1952. Samples do not influence one another: a sample that has converged is
    frozen while the others continue. So the result of a sample does not depend on the rest of the batch.

    Args:
        matvec: applies ``M`` to a tensor of the shape of ``rhs``.
        rhs: right-hand side; the first ``batch_ndim`` axes number independent problems.
        batch_ndim: how many leading axes are batch axes.
        x0: start; zero when left out.
        iterations: most iterations.
        tolerance: stop a sample when ``|residual| <= tolerance * |rhs|``.
        preconditioner: applies a symmetric positive definite approximation of the inverse of ``M``.

    Returns:
        The solution, and the number of iterations used.
    """
    dims = tuple(range(batch_ndim, rhs.ndim))
    if preconditioner is not None:
        return _preconditioned(matvec, preconditioner, rhs, dims, x0, iterations, tolerance)

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum(dims, keepdim=True) if dims else a * b

    x = torch.zeros_like(rhs) if x0 is None else x0
    r = rhs if x0 is None else rhs - matvec(x0)
    p = r
    rr = dot(r, r)
    limit = tolerance**2 * dot(rhs, rhs)
    used = 0
    for used in range(1, iterations + 1):
        active = rr > limit
        if not bool(active.any()):
            return x, used - 1
        mp = matvec(p)
        curvature = dot(p, mp)
        alpha = torch.where(active & (curvature > 0), rr / curvature.clamp_min(torch.finfo(rr.dtype).tiny), 0.0)
        x = x + alpha * p
        r = r - alpha * mp
        rr_next = dot(r, r)
        beta = torch.where(active, rr_next / rr.clamp_min(torch.finfo(rr.dtype).tiny), 0.0)
        rr = torch.where(active, rr_next, rr)
        p = r + beta * p
    return x, used


def _preconditioned(
    matvec: Callable[[Tensor], Tensor],
    preconditioner: Callable[[Tensor], Tensor],
    rhs: Tensor,
    dims: tuple[int, ...],
    x0: Tensor | None,
    iterations: int,
    tolerance: float,
) -> tuple[Tensor, int]:
    """The same with a preconditioner (Golub and Van Loan, Matrix Computations, algorithm 11.5.1)."""
    tiny = torch.finfo(rhs.dtype).tiny

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum(dims, keepdim=True) if dims else a * b

    x = torch.zeros_like(rhs) if x0 is None else x0
    r = rhs if x0 is None else rhs - matvec(x0)
    limit = tolerance**2 * dot(rhs, rhs)
    p = z = preconditioner(r)
    rz = dot(r, z)
    for used in range(iterations):
        active = dot(r, r) > limit
        if not bool(active.any()):
            return x, used
        mp = matvec(p)
        curvature = dot(p, mp)
        alpha = torch.where(active & (curvature > 0), rz / curvature.clamp_min(tiny), 0.0)
        x = x + alpha * p
        r = r - alpha * mp
        z = preconditioner(r)
        rz_next = dot(r, z)
        p = z + torch.where(active, rz_next / rz.clamp_min(tiny), 0.0) * p
        rz = torch.where(active, rz_next, rz)
    return x, iterations


@torch.no_grad()
def largest_singular_value(
    normal: Callable[[Tensor], Tensor],
    shape: tuple[int, ...],
    device: torch.device,
    *,
    iterations: int = 50,
    tolerance: float = 1e-5,
) -> float:
    """Norm of a linear map ``A`` by the power method, from a fixed random start.

    Args:
        normal: ``A^T A``.
        shape: of what it maps.
        device: where to compute, in float32.
        iterations: most iterations.
        tolerance: stop when the estimate changes by less than this fraction.
    """
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32).to(device)
    estimate = 0.0
    for _ in range(iterations):
        x = normal(x / x.norm())
        previous, estimate = estimate, math.sqrt(float(x.norm()))
        if abs(estimate - previous) <= tolerance * estimate:
            break
    return estimate


def normal_at(function: Callable[[Tensor], Tensor], point: Tensor, x: Tensor) -> Tensor:
    """``J^T J x`` with the Jacobian ``J`` of a differentiable function at a point.

    The forward product is the derivative of ``u -> J^T u``, which is linear: it needs no rule of its own.

    Args:
        function: from images to data.
        point: one image.
        x: of the shape of ``point``.
    """
    with torch.enable_grad():
        place = point.detach().requires_grad_()
        data = function(place)
        u = torch.zeros_like(data).requires_grad_()
        (pulled,) = torch.autograd.grad(data, place, u, create_graph=True)
        (pushed,) = torch.autograd.grad(pulled, u, x)
        (out,) = torch.autograd.grad(data, place, pushed)
    return out
