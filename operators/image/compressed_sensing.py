"""Compressed sensing: a random part of the coefficients of a scrambled orthonormal transform."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from deft_ct.operators.image.separable import apply_separable
from deft_ct.operators.image.transforms import dct_matrix, walsh_hadamard
from deft_ct.operators.subset import Subset


class CompressedSensing(Subset):
    """``y = S H D x``: random signs ``D``, orthonormal transform ``H``, random subset ``S``; ``(C, H, W) -> (C, m)``.

    Signs and subset are the same for all channels. All singular values are one or zero, so ``A A^T = I``.

    Args:
        image_shape: ``(C, H, W)``.
        ratio: fraction of the coefficients that is measured, ``m = round(ratio * H * W)``.
        generator: source of signs and subset.
        transform: ``"hadamard"`` (Walsh-Hadamard; ``H * W`` must be a power of two) or ``"dct"``.

    Raises:
        ValueError: a parameter is out of range, or the size does not suit the transform.
    """

    axis = -1
    signs: Tensor
    row_matrix: Tensor
    column_matrix: Tensor

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        ratio: float,
        generator: torch.Generator,
        *,
        transform: Literal["hadamard", "dct"] = "hadamard",
    ) -> None:
        channels, height, width = image_shape
        pixels = height * width
        measured = round(ratio * pixels)
        if not (0 < ratio <= 1 and measured >= 1):
            raise ValueError(f"CompressedSensing: ratio must be in (0, 1] and give a coefficient or more, got {ratio}")
        if transform not in ("hadamard", "dct"):
            raise ValueError(f"CompressedSensing: transform must be 'hadamard' or 'dct', got {transform!r}")
        if transform == "hadamard" and pixels & (pixels - 1):
            raise ValueError(
                f"CompressedSensing: the Hadamard transform needs a power of two of pixels, got {height} x {width}; "
                "use transform='dct'"
            )
        super().__init__(image_shape, (channels, measured))
        self.transform = transform
        device = generator.device
        signs = torch.randint(2, (height, width), generator=generator, device=device).cpu() * 2.0 - 1
        order = torch.randperm(pixels, generator=generator, device=device).cpu()
        self.register_buffer("signs", signs)
        self.register_buffer("indices", order[:measured].sort().values)
        if transform == "dct":
            self.register_buffer("row_matrix", dct_matrix(height))
            self.register_buffer("column_matrix", dct_matrix(width))

    def analyse(self, x: Tensor) -> Tensor:
        """All coefficients ``H D x``: ``(..., C, H, W) -> (..., C, H W)``."""
        x = self.signs.to(x.dtype) * x
        if self.transform == "hadamard":
            return walsh_hadamard(x.flatten(-2))
        return apply_separable(self.row_matrix, self.column_matrix, x).flatten(-2)

    def synthesise(self, coefficients: Tensor) -> Tensor:
        """``D H^T c``, the inverse of :meth:`analyse`."""
        size = self.domain_shape[1:]
        if self.transform == "hadamard":
            image = walsh_hadamard(coefficients).unflatten(-1, size)
        else:
            image = apply_separable(self.row_matrix.T, self.column_matrix.T, coefficients.unflatten(-1, size))
        return self.signs.to(image.dtype) * image

    @property
    def length(self) -> int:
        """Number of coefficients of a channel."""
        return self.domain_shape[1] * self.domain_shape[2]
