"""Blurs by a fixed kernel: Gaussian, motion, or any other, with three boundary rules and exact adjoints."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from deft_ct.operators.base import LinearOperator
from deft_ct.operators.image.blur_kernels import gaussian_taps, motion_kernel
from deft_ct.operators.image.separable import Separable
from deft_ct.operators.image.transforms import fast_size, hartley, one_by_one
from deft_ct.operators.svd import SingularValueDecomposition

Boundary = Literal["reflect", "circular", "zero"]


class SeparableBlur(Separable):
    """Convolution of every channel with the same taps along height and width, ``(C, H, W) -> (C, H, W)``.

    Args:
        image_shape: ``(C, H, W)``.
        taps: ``(n,)`` with ``n`` odd and the centre in the middle; ``torch.full((9,), 1 / 9)`` is a uniform blur.
        boundary: how the image goes on outside: ``"reflect"`` without repeating the edge, ``"circular"`` or ``"zero"``.

    Raises:
        ValueError: the taps are not one-dimensional of odd length, or the boundary rule is unknown.
    """

    def __init__(self, image_shape: tuple[int, int, int], taps: Tensor, *, boundary: Boundary = "reflect") -> None:
        channels, height, width = image_shape
        if taps.ndim != 1 or len(taps) % 2 == 0:
            raise ValueError(f"SeparableBlur: taps must be one-dimensional of odd length, got {tuple(taps.shape)}")
        rows, columns = (_convolution_matrix(taps.double(), size, boundary) for size in (height, width))
        super().__init__(channels, rows, columns)
        self.boundary = boundary


class GaussianBlur(SeparableBlur):
    """Gaussian blur of every channel, ``(C, H, W) -> (C, H, W)``.

    Args:
        image_shape: ``(C, H, W)``.
        kernel_size: odd number of taps (61 in DPS, DAPS and DiffPIR).
        std: standard deviation in pixels (3 in DPS and DAPS).
        boundary: ``"reflect"`` in DPS and DAPS, ``"circular"`` in RED-diff and DiffPIR, ``"zero"`` in DDRM.
        truncate: taps further out than ``truncate * std`` are zero; 4 gives the kernel of DPS, which was made by
            SciPy's Gaussian filter.

    Raises:
        ValueError: a parameter is out of range.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        kernel_size: int = 61,
        std: float = 3.0,
        *,
        boundary: Boundary = "reflect",
        truncate: float = 4.0,
    ) -> None:
        super().__init__(image_shape, gaussian_taps(kernel_size, std, truncate=truncate), boundary=boundary)


class Blur(LinearOperator):
    """Convolution of every channel with one kernel, ``(C, H, W) -> (C, H, W)``, by fast Fourier transforms.

    Args:
        image_shape: ``(C, H, W)``.
        kernel: ``(h, w)`` with odd sides and its centre in the middle. This is a convolution in the sense of
            mathematics and SciPy: ``y[i] = sum_j kernel[j] x[i - j]``; flip the kernel to compare with ``conv2d``.
        boundary: ``"reflect"`` without repeating the edge, ``"circular"``, or ``"zero"``.

    Raises:
        ValueError: the kernel is not two-dimensional with odd sides, or the boundary rule is unknown.
    """

    kernel: Tensor

    def __init__(self, image_shape: tuple[int, int, int], kernel: Tensor, *, boundary: Boundary = "reflect") -> None:
        super().__init__(image_shape, image_shape)
        _check_boundary(boundary)
        if kernel.ndim != 2 or kernel.shape[0] % 2 == 0 or kernel.shape[1] % 2 == 0:
            raise ValueError(f"Blur: kernel must be (h, w) with odd sides, got shape {tuple(kernel.shape)}")
        self.boundary = boundary
        self.register_buffer("kernel", kernel.to(torch.float64))
        height, width = self.domain_shape[1:]
        if boundary == "circular":
            self._margins, self._grid = (0, 0), (height, width)
        else:
            self._margins = (kernel.shape[0] // 2, kernel.shape[1] // 2)
            self._grid = fast_size(height + 2 * self._margins[0]), fast_size(width + 2 * self._margins[1])

    def transfer_function(self) -> Tensor:
        """Discrete Fourier transform of the kernel on the (padded) image grid, complex128."""
        height, width = self._grid
        (h, w), grid = self.kernel.shape, self.kernel.new_zeros(height, width)
        rows = (torch.arange(h, device=grid.device) - h // 2) % height
        columns = (torch.arange(w, device=grid.device) - w // 2) % width
        grid.index_put_((rows[:, None], columns[None, :]), self.kernel, accumulate=True)
        return torch.fft.fft2(grid)

    def _convolve(self, x: Tensor, *, transpose: bool) -> Tensor:
        """Circular convolution on the grid; ``x`` may be smaller and is filled up with zeros."""
        response = self.transfer_function()[:, : self._grid[1] // 2 + 1]
        response = (response.conj() if transpose else response).to(_complex_dtype(x))
        return one_by_one(
            lambda sample: torch.fft.irfft2(torch.fft.rfft2(sample, s=self._grid) * response, s=self._grid), x
        )

    def _forward_kernel(self, x: Tensor) -> Tensor:
        top, left = self._margins
        height, width = self.domain_shape[1:]
        x = _extend(_extend(x, -2, top, self.boundary), -1, left, self.boundary)
        return self._convolve(x, transpose=False)[..., top : top + height, left : left + width]

    def _adjoint_kernel(self, y: Tensor) -> Tensor:
        top, left = self._margins
        height, width = self.domain_shape[1:]
        y = torch.nn.functional.pad(y, (left, left, top, top))
        y = self._convolve(y, transpose=True)[..., : height + 2 * top, : width + 2 * left]
        return _fold(_fold(y, -1, left, self.boundary), -2, top, self.boundary)

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """Truncated inverse in Fourier space for the circular rule, conjugate gradients for the others."""
        return self.svd().pseudo_inverse(y) if self.boundary == "circular" else super().pseudo_inverse(y)

    def svd(self) -> SingularValueDecomposition:
        """Decomposition in the Hartley basis, for the circular rule.

        Raises:
            ValueError: the boundary rule is another one.
        """
        if self.boundary != "circular":
            raise ValueError(
                f"{type(self).__name__}: only boundary='circular' has a cheap decomposition; it is not "
                f"{self.boundary!r}. Use it, or a method that solves by conjugate gradients"
            )
        return _CircularSVD(self.transfer_function(), self.domain_shape[0])


class MotionBlur(Blur):
    """Blur by a random camera shake; see :func:`deft_ct.operators.image.blur_kernels.motion_kernel`.

    Args:
        image_shape: ``(C, H, W)``.
        generator: source of the kernel, which is drawn once.
        kernel_size: odd side of the kernel (61 in DPS and DAPS).
        intensity: 0 for a straight line, 1 for a violent shake (0.5 in DPS and DAPS).
        boundary: as in :class:`Blur`.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        generator: torch.Generator,
        kernel_size: int = 61,
        intensity: float = 0.5,
        *,
        boundary: Boundary = "reflect",
    ) -> None:
        super().__init__(image_shape, motion_kernel(kernel_size, intensity, generator), boundary=boundary)


class _CircularSVD(SingularValueDecomposition):
    """Circular convolution as a phase filter times an even filter; the Hartley transform diagonalises the latter.

    With the transfer function ``h = |h| e^{i phi}``, the filter ``|h|`` is symmetric (``h(-k) = conj h(k)``), so it is
    diagonal in the real orthonormal Hartley basis ``V``; the filter ``e^{i phi}`` is an orthogonal matrix ``P``, and
    ``A = (P V) diag(|h|) V^T``.
    """

    def __init__(self, transfer: Tensor, channels: int) -> None:
        magnitude = transfer.abs()
        zero = magnitude <= 1e-14 * magnitude.max()
        self._phase = torch.where(zero, 1.0, transfer / magnitude.masked_fill(zero, 1.0))
        super().__init__(magnitude.masked_fill(zero, 0.0).expand(channels, -1, -1).clone())

    def _filter(self, x: Tensor, response: Tensor) -> Tensor:
        response = response.to(_complex_dtype(x))
        return one_by_one(lambda sample: torch.fft.ifft2(torch.fft.fft2(sample) * response).real, x)

    def to_spectral(self, x: Tensor) -> Tensor:
        """Orthonormal Hartley transform."""
        return hartley(x)

    def from_spectral(self, coefficients: Tensor) -> Tensor:
        """Orthonormal Hartley transform, its own inverse."""
        return hartley(coefficients)

    def data_to_spectral(self, y: Tensor) -> Tensor:
        """Hartley transform after the inverse phase filter."""
        return hartley(self._filter(y, self._phase.conj())) * (self.singular_values > 0).to(y.dtype)

    def data_from_spectral(self, coefficients: Tensor) -> Tensor:
        """Phase filter after the Hartley transform."""
        observed = coefficients * (self.singular_values > 0).to(coefficients.dtype)
        return self._filter(hartley(observed), self._phase)


def _complex_dtype(x: Tensor) -> torch.dtype:
    return torch.complex128 if x.dtype == torch.float64 else torch.complex64


def _check_boundary(boundary: str) -> None:
    if boundary not in get_args(Boundary):
        raise ValueError(f"boundary must be one of {get_args(Boundary)}, got {boundary!r}")


def _source_index(size: int, margin: int, boundary: str) -> np.ndarray:
    """Index of the pixel that stands at each position of an axis extended by ``margin``; -1 for zero."""
    index = np.arange(-margin, size + margin)
    if boundary == "circular":
        return index % size
    if boundary == "zero" or size == 1:
        return np.where((index >= 0) & (index < size), index, -1 if boundary == "zero" else 0)
    index = index % (2 * size - 2)
    return np.where(index < size, index, 2 * size - 2 - index)


def _extend(x: Tensor, axis: int, margin: int, boundary: Boundary) -> Tensor:
    if margin == 0:
        return x
    if boundary == "zero":
        return torch.nn.functional.pad(x, (0, 0, margin, margin) if axis == -2 else (margin, margin))
    index = torch.from_numpy(_source_index(x.shape[axis], margin, boundary)).to(x.device)
    return x.index_select(axis, index)


def _fold(y: Tensor, axis: int, margin: int, boundary: Boundary) -> Tensor:
    """Transpose of :func:`_extend`."""
    if margin == 0:
        return y
    size = y.shape[axis] - 2 * margin
    inside = y.narrow(axis, margin, size)
    if boundary == "zero":
        return inside
    source = torch.from_numpy(_source_index(size, margin, boundary)).to(y.device)
    out = inside.clone()
    for start in (0, margin + size):
        out.index_add_(axis, source[start : start + margin], y.narrow(axis, start, margin))
    return out


def _convolution_matrix(taps: Tensor, size: int, boundary: Boundary) -> Tensor:
    """Matrix of the convolution with odd ``taps`` along an axis of ``size`` pixels."""
    _check_boundary(boundary)
    margin = len(taps) // 2
    source = _source_index(size, margin, boundary)
    matrix = np.zeros((size, size))
    for offset, weight in zip(range(-margin, margin + 1), taps.tolist(), strict=True):
        columns = source[np.arange(size) - offset + margin]
        kept = columns >= 0
        np.add.at(matrix, (np.arange(size)[kept], columns[kept]), weight)
    return torch.from_numpy(matrix)
