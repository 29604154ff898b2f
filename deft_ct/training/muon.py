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
        matrix: ``(M, N)``, finite.
        iterations: of Newton-Schulz, in bfloat16 as in the source.

    Returns:
        ``(M, N)`` in the type of ``matrix``; zero for a zero matrix.
    """
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.mT if tall else matrix).bfloat16()
    x = x / (x.norm() + 1e-7)
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
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                change = self._matrix_change if group["muon"] else self._adam_change
                parameter.sub_(change(parameter, group), alpha=group["lr"])

    def _matrix_change(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(gradient, 1 - group["momentum"])
        ahead = gradient.lerp(state["momentum"], group["momentum"]).flatten(1)
        return (orthogonal(ahead) * (0.2 * math.sqrt(max(ahead.shape)))).view_as(parameter)

    def _adam_change(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        gradient, state, (first, second) = parameter.grad, self.state[parameter], group["betas"]
        assert gradient is not None
        if not state:
            state |= {"step": 0, "mean": torch.zeros_like(parameter), "square": torch.zeros_like(parameter)}
        state["step"] += 1
        state["mean"].lerp_(gradient, 1 - first)
        state["square"].lerp_(gradient.square(), 1 - second)
        mean = state["mean"] / (1 - first ** state["step"])
        square = state["square"] / (1 - second ** state["step"])
        return mean / (square.sqrt() + group["eps"])
