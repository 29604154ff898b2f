"""Inpainting: some pixels are observed, the others are set to zero."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from deft_ct.operators.base import RowPick
from deft_ct.operators.feature_images import FeatureImage
from deft_ct.operators.linear import LinearOperator
from deft_ct.operators.svd import DiagonalSVD


class Inpainting(LinearOperator):
    """``y = mask * x``, of the shape of ``x``.

    Noise, where there is some, falls on all pixels, masked ones too, as in DPS and DEFT.

    Args:
        image_shape: ``(C, H, W)``.
        mask: one for an observed pixel, zero for a missing one; broadcastable to ``image_shape``, e.g. ``(1, H, W)``
            from :mod:`deft_ct.operators.image.masks`. With a batch axis, ``(B, ..., H, W)``, every image of a batch of
            exactly ``B`` has its own mask, and ``A[i:j]`` has the masks of some images.

    Raises:
        ValueError: the mask has another shape, or entries other than zero and one.
    """

    mask: Tensor

    def __init__(self, image_shape: tuple[int, int, int], mask: Tensor) -> None:
        super().__init__(image_shape, image_shape)
        self.image_shape = image_shape
        mask = torch.as_tensor(mask)
        if not bool(((mask == 0) | (mask == 1)).all()):
            raise ValueError("Inpainting: mask must hold only 0 (missing) and 1 (observed)")
        batch = mask.shape[:-3] if mask.ndim > 3 else ()
        try:
            full = mask.expand(*batch, *self.domain_shape)
        except RuntimeError as error:
            raise ValueError(
                f"Inpainting: mask must be broadcastable to image shape {self.domain_shape} with at most one batch "
                f"axis before it, got {tuple(mask.shape)}"
            ) from error
        if len(batch) > 1:
            raise ValueError(f"Inpainting: mask may have one batch axis, got shape {tuple(mask.shape)}")
        self.register_buffer("mask", full.to(torch.float32).clone())

    @property
    def images(self) -> int | None:
        """Number of masks; None for one mask for all images."""
        return len(self.mask) if self.mask.ndim == 4 else None

    def select_images(self, pick: RowPick) -> Inpainting:
        """Inpainting with the masks of other images; see :meth:`Operator.select_images`."""
        return self if self.images is None else Inpainting(self.image_shape, pick(self.mask))

    @classmethod
    def joined(cls, operators: Sequence[Inpainting]) -> Inpainting:
        """Inpainting with the mask of each image; see :meth:`Operator.joined`."""
        return Inpainting(operators[0].image_shape, torch.stack([operator.mask for operator in operators]))

    def _forward_kernel(self, x: Tensor) -> Tensor:
        if self.images not in (None, len(x)):
            raise ValueError(f"Inpainting: the {self.images} masks need as many images, got {len(x)}")
        return self.mask.to(x.dtype) * x

    def _adjoint_kernel(self, y: Tensor) -> Tensor:
        return self._forward_kernel(y)

    def normal(self, x: Tensor) -> Tensor:
        """``A^T A = A``: a mask is a projection."""
        return self(x)

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """The observed pixels, zero elsewhere."""
        return self.adjoint(y)

    @property
    def feature_images(self) -> tuple[FeatureImage, ...]:
        """The masked data, and the mask."""
        return FeatureImage(name="data"), FeatureImage(name="mask", dimensionless=True, absent=1.0)

    def data_images(self, y: Tensor) -> Tensor:
        """See :attr:`feature_images`."""
        return torch.stack([self.adjoint(y), self.mask.to(y).expand_as(y)], 1)

    def svd(self) -> DiagonalSVD:
        """Both bases are the identity, the singular values are the mask, or the masks of all images."""
        return DiagonalSVD(self.mask, per_image=self.images is not None)
