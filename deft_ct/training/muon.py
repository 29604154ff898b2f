"""Muon: momentum whose direction is made orthogonal, for the matrices and convolutions of a network.

A network learns from far fewer steps with it than with AdamW, which is what a training on a CPU is short of. PyTorch's
own ``torch.optim.Muon`` takes matrices only. Here a convolution is treated as the matrix ``(out, in k k)``. Other
parameters (biases, normalisations, thin layers) follow AdamW in the same optimiser.

Sources: K. Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks" (momentum, Nesterov step,
coefficients of the quintic Newton-Schulz iteration); J. Liu et al. 2025, arXiv:2502.16982, section 2.2 (the factor
``0.2 sqrt(max(m, n))``, with which a step is as long as one of AdamW and shares its learning rate).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
THIN = 16
"""Matrices with a side below this follow AdamW: first and last layers, with little to make orthogonal."""


@torch.no_grad()
def orthogonal(matrix: Tensor, iterations: int = 5) -> Tensor:
    """About the nearest matrix with orthonormal rows or columns; singular values end between 0.7 and 1.2.

    Args:
        matrix: ``(..., M, N)``, finite; a stack of matrices takes a fraction of the time of one after the other.
        iterations: of Newton-Schulz, in bfloat16 as in the source.

    Returns:
        Of the shape and type of ``matrix``; zero for a zero matrix.
    """
    a, b, c = COEFFICIENTS
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = (matrix.mT if tall else matrix).bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(iterations):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return (x.mT if tall else x).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """Muon for matrices and convolutions, AdamW for the other parameters.

    Args:
        parameters: to train.
        lr: learning rate, of the size that AdamW takes, or up to three times that.
        weight_decay: decoupled, as in AdamW.
        momentum: of the matrices.
        betas: of AdamW.
        eps: of AdamW.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        *,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        every = list(parameters)
        matrices = [p for p in every if p.ndim >= 2 and min(p.flatten(1).shape) >= THIN]
        known = {id(p) for p in matrices}
        others = [p for p in every if id(p) not in known]
        groups: list[dict[str, Any]] = [{"params": matrices, "muon": True}, {"params": others, "muon": False}]
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "betas": betas, "eps": eps}
        super().__init__([group for group in groups if group["params"]], defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step from the gradients; a closure is not supported."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            if group["weight_decay"]:
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            changes = (self._matrix_changes if group["muon"] else self._adam_changes)(parameters, group)
            torch._foreach_add_(parameters, changes, alpha=-group["lr"])

    def _matrix_changes(self, parameters: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        gradients = [_gradient(p) for p in parameters]
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        momenta = [self.state[p]["momentum"] for p in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, momenta, group["momentum"])
        by_shape: dict[torch.Size, list[int]] = {}
        for number, value in enumerate(ahead):
            by_shape.setdefault(value.flatten(1).shape, []).append(number)
        changes = list(ahead)
        for shape, numbers in by_shape.items():
            stacked = orthogonal(torch.stack([ahead[n].flatten(1) for n in numbers]))
            scaled = stacked * (0.2 * math.sqrt(max(shape)))
            for number, change in zip(numbers, scaled.unbind(0), strict=True):
                changes[number] = change.reshape(ahead[number].shape)
        return changes

    def _adam_changes(self, parameters: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        gradients, (first, second) = [_gradient(p) for p in parameters], group["betas"]
        for parameter in parameters:
            if not self.state[parameter]:
                start = {"step": 0, "mean": torch.zeros_like(parameter), "square": torch.zeros_like(parameter)}
                self.state[parameter] |= start
            self.state[parameter]["step"] += 1
        states = [self.state[p] for p in parameters]
        means, squares = [s["mean"] for s in states], [s["square"] for s in states]
        torch._foreach_lerp_(means, gradients, 1 - first)
        torch._foreach_lerp_(squares, torch._foreach_mul(gradients, gradients), 1 - second)
        roots = torch._foreach_sqrt(torch._foreach_div(squares, [1 - second ** s["step"] for s in states]))
        torch._foreach_add_(roots, group["eps"])
        return list(torch._foreach_div(torch._foreach_div(means, [1 - first ** s["step"] for s in states]), roots))


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
