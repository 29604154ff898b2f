"""Colorization: the data are a grey image."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from deft_ct.operators.linear import LinearOperator
from deft_ct.operators.svd import SingularValueDecomposition

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in JPEG


class Colorization(LinearOperator):
    """Weighted mean of the channels, ``(C, H, W) -> (1, H, W)``.

    Args:
        image_shape: ``(C, H, W)``.
        weights: one number for each channel; or ``"mean"``, 1/C each, as in DDRM and RED-diff; or ``"luma"``, the
            weights of BT.601 for three channels.

    Raises:
        ValueError: the weights do not fit the channels or are all zero.
    """

    channel_weights: Tensor

    def __init__(
        self, image_shape: tuple[int, int, int], weights: Literal["mean", "luma"] | tuple[float, ...] = "mean"
    ) -> None:
        channels, height, width = image_shape
        super().__init__(image_shape, (1, height, width))
        if isinstance(weights, str) and weights not in ("mean", "luma"):
            raise ValueError(f"Colorization: weights must be 'mean', 'luma' or numbers, got {weights!r}")
        values = (1 / channels,) * channels if weights == "mean" else _LUMA if weights == "luma" else tuple(weights)
        if len(values) != channels or not any(values):
            raise ValueError(f"Colorization: weights must be {channels} numbers, one a channel, got {values}")
        self.register_buffer("channel_weights", torch.tensor(values, dtype=torch.float64))

    def _weights(self, like: Tensor) -> Tensor:
        return self.channel_weights.to(like.dtype)[:, None, None]

    def _forward_kernel(self, x: Tensor) -> Tensor:
        return (self._weights(x) * x).sum(-3, keepdim=True)

    def _adjoint_kernel(self, y: Tensor) -> Tensor:
        return self._weights(y) * y

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """``A^T y / |w|^2``."""
        return self.adjoint(y) / self.channel_weights.square().sum().to(y.dtype)

    def svd(self) -> SingularValueDecomposition:
        """One singular value ``|w|`` for every pixel, zero for the other colour directions."""
        return _ChannelSVD(self.channel_weights, self.domain_shape)


class _ChannelSVD(SingularValueDecomposition):
    """An orthogonal change of colour axes whose first axis is the weight vector."""

    def __init__(self, weights: Tensor, image_shape: tuple[int, ...]) -> None:
        u, values, vt = torch.linalg.svd(weights[None], full_matrices=True)
        self._axes = torch.cat([u[0, 0] * vt[:1], vt[1:]])  # first row is +w/|w|, so that U is the identity
        singular_values = weights.new_zeros(image_shape)
        singular_values[0] = values[0]
        super().__init__(singular_values)

    def to_spectral(self, x: Tensor) -> Tensor:
        """Colour coordinates of every pixel."""
        return torch.einsum("kc,...chw->...khw", self._axes.to(x.dtype), x)

    def from_spectral(self, coefficients: Tensor) -> Tensor:
        """Back to channels."""
        return torch.einsum("kc,...khw->...chw", self._axes.to(coefficients.dtype), coefficients)

    def data_to_spectral(self, y: Tensor) -> Tensor:
        """The grey image as the first coordinate, zero for the others."""
        return torch.nn.functional.pad(y, (0, 0, 0, 0, 0, self.singular_values.shape[0] - 1))

    def data_from_spectral(self, coefficients: Tensor) -> Tensor:
        """The first coordinate."""
        return coefficients[..., :1, :, :]
