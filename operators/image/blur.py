"""Blurs by a fixed kernel: Gaussian, motion, or any other, with four boundary rules and exact adjoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from deft_ct.operators.base import RowPick
from deft_ct.operators.image.blur_kernels import gaussian_taps, motion_kernel
from deft_ct.operators.image.separable import Separable
from deft_ct.operators.image.transforms import fast_size, hartley, one_by_one
from deft_ct.operators.linear import LinearOperator
from deft_ct.operators.svd import SingularValueDecomposition

Boundary = Literal["reflect", "circular", "zero", "valid"]


class SeparableBlur(Separable):
    """Convolution of every channel with the same taps along height and width, ``(C, H, W) -> (C, H, W)``.

    Args:
        image_shape: ``(C, H, W)``.
        taps: ``(n,)`` with ``n`` odd and the centre in the middle; ``torch.full((9,), 1 / 9)`` is a uniform blur.
        boundary: how the image is continued outside: ``"reflect"`` without repeating the edge, ``"circular"`` or
            ``"zero"``. ``"valid"`` does not continue it: the data are the pixels that need no pixel outside.

    Raises:
        ValueError: the taps are not one-dimensional of odd length, the boundary rule is unknown, or ``"valid"`` leaves
            no pixel.
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

    With ``boundary="valid"`` the data are smaller, ``(C, H - h + 1, W - w + 1)``.

    Args:
        image_shape: ``(C, H, W)``.
        kernel: ``(h, w)`` with odd sides and its centre in the middle. This is a convolution in the sense of
            mathematics and SciPy: ``y[i] = sum_j kernel[j] x[i - j]``; flip the kernel to compare with ``conv2d``.
            With a batch axis, ``(B, h, w)``, every image of a batch of exactly ``B`` has its own kernel.
        boundary: ``"reflect"`` without repeating the edge, ``"circular"``, ``"zero"``, or ``"valid"``: only the pixels
            that need no pixel outside.

    Raises:
        ValueError: the kernel is not two-dimensional with odd sides, the boundary rule is unknown, or ``"valid"``
            leaves no pixel.
    """

    kernel: Tensor

    def __init__(self, image_shape: tuple[int, int, int], kernel: Tensor, *, boundary: Boundary = "reflect") -> None:
        _check_boundary(boundary)
        if kernel.ndim not in (2, 3) or kernel.shape[-2] % 2 == 0 or kernel.shape[-1] % 2 == 0:
            raise ValueError(f"Blur: kernel must be (h, w) or (B, h, w) with odd sides, got {tuple(kernel.shape)}")
        channels, height, width = image_shape
        margins = kernel.shape[-2] // 2, kernel.shape[-1] // 2
        cut = margins if boundary == "valid" else (0, 0)
        if min(height - 2 * cut[0], width - 2 * cut[1]) < 1:
            raise ValueError(
                f"Blur: no pixel of {height} x {width} is valid for a kernel of {tuple(kernel.shape[-2:])}: take a "
                "smaller kernel, or another boundary"
            )
        super().__init__(image_shape, (channels, height - 2 * cut[0], width - 2 * cut[1]))
        self.image_shape, self.boundary = image_shape, boundary
        self.register_buffer("kernel", kernel.to(torch.float64))
        if boundary == "circular":
            self._margins, self._grid = (0, 0), (height, width)
        else:
            self._margins = margins
            self._grid = fast_size(height + 2 * margins[0]), fast_size(width + 2 * margins[1])
        self._cut = cut

    @property
    def images(self) -> int | None:
        """Number of kernels; None for one kernel for all images."""
        return len(self.kernel) if self.kernel.ndim == 3 else None

    def select_images(self, pick: RowPick) -> Blur:
        """Convolution with the kernels of other images; see :meth:`Operator.select_images`."""
        return self if self.images is None else Blur(self.image_shape, pick(self.kernel), boundary=self.boundary)

    @classmethod
    def joined(cls, operators: Sequence[Blur]) -> Blur:
        """Convolution with the kernel of each image; see :meth:`Operator.joined`."""
        first = operators[0]
        kernels = torch.stack([operator.kernel for operator in operators])
        return Blur(first.image_shape, kernels, boundary=first.boundary)

    def describe(self) -> dict[str, Any]:
        """A blur, wherever its kernel comes from; see :meth:`Operator.describe`."""
        return super().describe() | {"operator": Blur.__name__}

    def transfer_function(self) -> Tensor:
        """Discrete Fourier transform of the kernel on the (padded) image grid, complex128; of each image's."""
        height, width = self._grid
        *batch, h, w = self.kernel.shape
        grid = self.kernel.new_zeros((*batch, height, width))
        rows = (torch.arange(h, device=grid.device) - h // 2) % height
        columns = (torch.arange(w, device=grid.device) - w // 2) % width
        grid.view(-1, height * width).index_add_(
            1, (rows[:, None] * width + columns[None, :]).flatten(), self.kernel.reshape(-1, h * w)
        )
        return torch.fft.fft2(grid)

    def _convolve(self, x: Tensor, *, transpose: bool) -> Tensor:
        """Circular convolution on the grid; ``x`` may be smaller and is filled up with zeros."""
        if self.images not in (None, len(x)):
            raise ValueError(f"Blur: the {self.images} kernels need as many images, got {len(x)}")
        response = self.transfer_function()[..., : self._grid[1] // 2 + 1]
        response = (response.conj() if transpose else response).to(_complex_dtype(x))

        def filtered(sample: Tensor, of: Tensor) -> Tensor:
            return torch.fft.irfft2(torch.fft.rfft2(sample, s=self._grid) * of, s=self._grid)

        if self.images is None:
            return one_by_one(lambda sample: filtered(sample, response), x)
        return torch.stack([filtered(sample, of) for sample, of in zip(x, response, strict=True)])

    def _forward_kernel(self, x: Tensor) -> Tensor:
        top, left = self._margins
        height, width = self.domain_shape[1:]
        x = _extend(_extend(x, -2, top, self.boundary), -1, left, self.boundary)
        out = self._convolve(x, transpose=False)[..., top : top + height, left : left + width]
        return out[..., self._cut[0] : height - self._cut[0], self._cut[1] : width - self._cut[1]]

    def _adjoint_kernel(self, y: Tensor) -> Tensor:
        top, left = self._margins
        height, width = self.domain_shape[1:]
        y = torch.nn.functional.pad(y, (left + self._cut[1],) * 2 + (top + self._cut[0],) * 2)
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
        return _CircularSVD(self.transfer_function(), self.domain_shape[0], per_image=self.images is not None)


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

    def __init__(self, transfer: Tensor, channels: int, *, per_image: bool) -> None:
        magnitude = transfer.abs()
        zero = magnitude <= 1e-14 * magnitude.amax((-2, -1), keepdim=True)
        self._phase = torch.where(zero, 1.0, transfer / magnitude.masked_fill(zero, 1.0))
        values = magnitude.masked_fill(zero, 0.0).unsqueeze(-3)
        super().__init__(values.repeat_interleave(channels, -3), per_image=per_image)

    def _filter(self, x: Tensor, response: Tensor) -> Tensor:
        response = response.to(_complex_dtype(x))
        if self.per_image:
            pairs = zip(x, response, strict=True)
            return torch.stack([torch.fft.ifft2(torch.fft.fft2(sample) * of).real for sample, of in pairs])
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
    outside = boundary in ("zero", "valid")
    if outside or size == 1:
        return np.where((index >= 0) & (index < size), index, -1 if outside else 0)
    index = index % (2 * size - 2)
    return np.where(index < size, index, 2 * size - 2 - index)


def _extend(x: Tensor, axis: int, margin: int, boundary: Boundary) -> Tensor:
    if margin == 0:
        return x
    if boundary in ("zero", "valid"):
        return torch.nn.functional.pad(x, (0, 0, margin, margin) if axis == -2 else (margin, margin))
    index = torch.from_numpy(_source_index(x.shape[axis], margin, boundary)).to(x.device)
    return x.index_select(axis, index)


def _fold(y: Tensor, axis: int, margin: int, boundary: Boundary) -> Tensor:
    """Transpose of :func:`_extend`."""
    if margin == 0:
        return y
    size = y.shape[axis] - 2 * margin
    inside = y.narrow(axis, margin, size)
    if boundary in ("zero", "valid"):
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
    if boundary == "valid":
        if size <= 2 * margin:
            raise ValueError(
                f"no pixel of an axis of {size} is valid for {len(taps)} taps: take fewer, or another boundary"
            )
        matrix = matrix[margin : size - margin]
    return torch.from_numpy(matrix)
