"""Single-coil magnetic resonance imaging: some samples of the Fourier transform of the image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from deft_ct.operators.base import RowPick
from deft_ct.operators.image.transforms import hartley, one_by_one
from deft_ct.operators.linear import LinearOperator
from deft_ct.operators.svd import SingularValueDecomposition


class MaskedFourier(LinearOperator):
    """``y = M F x`` with the centred orthonormal discrete Fourier transform ``F`` of every channel.

    The data hold real and imaginary parts, ``(2 C, H, W)`` in the order of the channels, zero where nothing is
    measured. As for :class:`~deft_ct.operators.image.inpainting.Inpainting`, noise falls on all of them.

    Args:
        image_shape: ``(C, H, W)``, real channels. With ``complex_valued``, ``(2 C, H, W)``: real and imaginary part of
            complex channels, and the data have the shape of the image.
        mask: one where a frequency is measured, zero elsewhere, ``(H, W)`` with the frequency zero at ``(H // 2,
            W // 2)``; see :func:`cartesian_mask`. With a batch axis, ``(B, H, W)``, every image of a batch of exactly
            ``B`` has its own mask.
        complex_valued: whether the image is complex, as that of a coil is.

    Raises:
        ValueError: the mask has another shape, or entries other than zero and one, or there is an odd number of parts.
    """

    mask: Tensor

    def __init__(self, image_shape: tuple[int, int, int], mask: Tensor, *, complex_valued: bool = False) -> None:
        channels, height, width = image_shape
        if complex_valued and channels % 2:
            raise ValueError(
                f"MaskedFourier: complex images have an even number of parts, got image shape {image_shape}"
            )
        mask = torch.as_tensor(mask)
        if mask.ndim not in (2, 3) or tuple(mask.shape[-2:]) != (height, width):
            raise ValueError(
                f"MaskedFourier: mask must be (H, W) = {(height, width)}, or (B, H, W) with one for each image, got "
                f"{tuple(mask.shape)}"
            )
        if not bool(((mask == 0) | (mask == 1)).all()):
            raise ValueError("MaskedFourier: mask must hold only 0 (missing) and 1 (measured)")
        super().__init__(image_shape, (channels if complex_valued else 2 * channels, height, width))
        self.image_shape, self.complex_valued = image_shape, complex_valued
        self.register_buffer("mask", mask.to(torch.float32))

    @property
    def images(self) -> int | None:
        """Number of masks; None for one mask for all images."""
        return len(self.mask) if self.mask.ndim == 3 else None

    def select_images(self, pick: RowPick) -> MaskedFourier:
        """The operator with the masks of other images; see :meth:`Operator.select_images`."""
        if self.images is None:
            return self
        return MaskedFourier(self.image_shape, pick(self.mask), complex_valued=self.complex_valued)

    @classmethod
    def joined(cls, operators: Sequence[MaskedFourier]) -> MaskedFourier:
        """The operator with the mask of each image; see :meth:`Operator.joined`."""
        first = operators[0]
        masks = torch.stack([operator.mask for operator in operators])
        return MaskedFourier(first.image_shape, masks, complex_valued=first.complex_valued)

    def transform(self, x: Tensor) -> Tensor:
        """Real and imaginary parts of the whole spectrum of ``(N, *domain_shape)``."""
        image = _complex(x) if self.complex_valued else x
        spectrum = one_by_one(lambda sample: torch.fft.fft2(sample, norm="ortho"), torch.fft.ifftshift(image, (-2, -1)))
        return _parts(torch.fft.fftshift(spectrum, (-2, -1)))

    def inverse_transform(self, y: Tensor) -> Tensor:
        """The transpose of :meth:`transform`, and for complex images its inverse."""
        spectrum = torch.fft.ifftshift(_complex(y), (-2, -1))
        image = one_by_one(lambda sample: torch.fft.ifft2(sample, norm="ortho"), spectrum)
        image = torch.fft.fftshift(image, (-2, -1))
        return _parts(image) if self.complex_valued else image.real

    def _masked(self, y: Tensor) -> Tensor:
        if self.images not in (None, len(y)):
            raise ValueError(f"MaskedFourier: the {self.images} masks need as many images, got {len(y)}")
        return self.mask.to(y.dtype).unsqueeze(-3) * y

    def _forward_kernel(self, x: Tensor) -> Tensor:
        return self._masked(self.transform(x))

    def _adjoint_kernel(self, y: Tensor) -> Tensor:
        return self.inverse_transform(self._masked(y))

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """Zero-filled reconstruction of complex images; of real ones each frequency counts as often as it is there."""
        return self.svd().pseudo_inverse(y)

    def svd(self) -> SingularValueDecomposition:
        """In the Fourier basis of complex images, and in the Hartley basis of real ones.

        ``F^H M F`` of real images is the circular convolution by the even part of the mask, which the Hartley transform
        diagonalises.
        """
        return _ComplexSVD(self) if self.complex_valued else _RealSVD(self)


class _ComplexSVD(SingularValueDecomposition):
    def __init__(self, operator: MaskedFourier) -> None:
        values = operator.mask.unsqueeze(-3).repeat_interleave(operator.domain_shape[0], -3)
        super().__init__(values, per_image=operator.images is not None)
        self._operator = operator

    def to_spectral(self, x: Tensor) -> Tensor:
        """The whole spectrum."""
        return self._operator.transform(x)

    def from_spectral(self, coefficients: Tensor) -> Tensor:
        """The inverse transform."""
        return self._operator.inverse_transform(coefficients)

    def data_to_spectral(self, y: Tensor) -> Tensor:
        """The measured entries."""
        return y * self.singular_values.to(y)

    def data_from_spectral(self, coefficients: Tensor) -> Tensor:
        """The measured entries."""
        return coefficients * self.singular_values.to(coefficients)


class _RealSVD(SingularValueDecomposition):
    def __init__(self, operator: MaskedFourier) -> None:
        mask = torch.fft.ifftshift(operator.mask, (-2, -1))  # frequency zero first, as that of the Hartley transform
        opposite = mask.flip((-2, -1)).roll((1, 1), (-2, -1))
        values = ((mask + opposite) / 2).sqrt().unsqueeze(-3).repeat_interleave(operator.domain_shape[0], -3)
        super().__init__(values, per_image=operator.images is not None)
        self._operator = operator
        self._inverse = torch.where(values > 0, 1 / values.clamp_min(1e-3), 0.0)

    def to_spectral(self, x: Tensor) -> Tensor:
        """Hartley transform."""
        return hartley(x)

    def from_spectral(self, coefficients: Tensor) -> Tensor:
        """Hartley transform, its own inverse."""
        return hartley(coefficients)

    def data_to_spectral(self, y: Tensor) -> Tensor:
        """``s^-1 V^T A^T y``."""
        return self._inverse.to(y) * hartley(self._operator.adjoint(y))

    def data_from_spectral(self, coefficients: Tensor) -> Tensor:
        """``A V s^-1 c``."""
        return self._operator(hartley(self._inverse.to(coefficients) * coefficients))


def cartesian_mask(
    image_size: tuple[int, int], acceleration: float, generator: torch.Generator, *, centre: float = 0.08
) -> Tensor:
    """Whole columns of frequencies: all of the lowest, and others at random, as in fastMRI (Zbontar et al. 2018).

    Args:
        image_size: ``(H, W)``.
        acceleration: width over the number of measured columns, at least 1 (fastMRI: 4 and 8).
        generator: source of the choice.
        centre: share of the columns around frequency zero that is always measured (fastMRI: 0.08 and 0.04).

    Returns:
        ``(H, W)``.

    Raises:
        ValueError: a parameter is out of range, or the centre alone has more columns than the acceleration allows.
    """
    height, width = image_size
    if not (acceleration >= 1 and 0 <= centre <= 1):
        raise ValueError(
            f"cartesian_mask: expected an acceleration >= 1 and a centre in [0, 1], got {acceleration} and {centre}"
        )
    total, low = max(1, round(width / acceleration)), round(centre * width)
    if low > total:
        raise ValueError(f"cartesian_mask: the centre has {low} columns, all {acceleration}-fold has {total}")
    columns = torch.zeros(width)
    first = width // 2 - low // 2
    columns[first : first + low] = 1
    rest = (columns == 0).nonzero().flatten()
    order = torch.randperm(len(rest), generator=generator, device=generator.device).cpu()
    columns[rest[order[: total - low]]] = 1
    return columns.expand(height, width).clone()


def _complex(parts: Tensor) -> Tensor:
    """``(..., 2 C, H, W)`` as ``(..., C, H, W)``."""
    pairs = parts.unflatten(-3, (-1, 2)).movedim(-3, -1).contiguous()
    return torch.view_as_complex(pairs)


def _parts(values: Tensor) -> Tensor:
    """``(..., C, H, W)`` as ``(..., 2 C, H, W)``."""
    return torch.view_as_real(values.resolve_conj()).movedim(-1, -3).flatten(-4, -3)
