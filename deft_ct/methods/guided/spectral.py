"""Linear data in the basis of the operator's singular vectors, for the methods that work there."""

from __future__ import annotations

import torch
from torch import Tensor

from deft_ct.measurement.data_term import DataTerm, per_sample
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.operators.svd import Decomposable


class SpectralData:
    """What the data say of each spectral coefficient of an image in the prior's range.

    Args:
        likelihood: of a linear operator with a singular value decomposition. The noise is taken as white.
        cutoff: singular values at or below this fraction of the largest are treated as zero.
    """

    def __init__(self, likelihood: Likelihood, *, cutoff: float = 1e-3) -> None:
        assert isinstance(likelihood.operator, Decomposable)
        y, scale = likelihood.y, likelihood.to_physical.scale
        steepness = scale.flatten() if isinstance(scale, Tensor) else y.new_full((len(y),), scale)
        term = DataTerm(likelihood)
        self.svd = likelihood.operator.svd()
        inverse = self.svd.inverse_values(y, cutoff=cutoff)
        zero = y.new_zeros((len(y), *likelihood.operator.domain_shape))
        linear_part = self.svd.data_to_spectral(likelihood.residual(zero))
        self.target = inverse * linear_part / per_sample(steepness, linear_part)
        """``(B, *spectral_shape)``: the coefficients that the data imply, zero where they say nothing."""
        sigma = torch.zeros_like(term.sigma) if term.exact else term.sigma / steepness.abs()
        level = per_sample(sigma, self.target) * inverse
        self.level = torch.where(inverse > 0, level, torch.inf)
        """``(B, *spectral_shape)``: their standard deviation, infinite where the data say nothing."""

    def to_spectral(self, x: Tensor) -> Tensor:
        """Coefficients of images ``(B, C, H, W)``."""
        return self.svd.to_spectral(x)

    def from_spectral(self, coefficients: Tensor) -> Tensor:
        """Images of coefficients."""
        return self.svd.from_spectral(coefficients)
