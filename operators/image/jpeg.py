"""JPEG compression as a forward model."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from deft_ct.operators.base import Operator
from deft_ct.operators.image.rounding import round_straight_through
from deft_ct.operators.image.separable import apply_separable
from deft_ct.operators.image.transforms import dct_matrix
from deft_ct.operators.image.value_range import ValueRange, check_range, rescale

# Example quantisation tables of ITU-T T.81 (1992), tables K.1 and K.2, in row order.
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8 for _ in range(4)),
)
# JFIF: full-range BT.601.
_RGB_TO_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def quantisation_tables(quality: int) -> tuple[Tensor, Tensor]:
    """Luminance and chrominance tables, ``(8, 8)`` each, scaled as in the IJG library.

    Raises:
        ValueError: ``quality`` is not an integer in 1..100.
    """
    if quality not in range(1, 101):
        raise ValueError(f"JPEG: quality must be an integer in 1..100, got {quality!r}")
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    luminance, chrominance = (
        ((torch.tensor(table) * scale + 50) // 100).clamp(1, 255).to(torch.float64)
        for table in (_LUMINANCE, _CHROMINANCE)
    )
    return luminance, chrominance


class JPEG(Operator):
    """Compress and decompress, ``(C, H, W) -> (C, H, W)``; three channels are RGB, one is grey.

    The steps that lose information are computed: colour transform, chroma averaging, 8 x 8 cosine transform, rounding
    to the quantisation tables, and clipping. The entropy coding loses nothing and is left out. The result is not
    rounded to 8 bits. The vector-Jacobian product takes the rounding as the identity (straight-through). All other
    steps are differentiated exactly.

    Args:
        image_shape: ``(C, H, W)`` with ``C`` 1 or 3; sides that are no multiple of the block are padded by repetition.
        quality: 1 to 100 (5 and 10 in I2SB).
        subsampling: ``"4:2:0"`` halves the chroma resolution (the usual default), ``"4:4:4"`` keeps it.
        value_range: range of ``x`` and ``y``.

    Raises:
        ValueError: a parameter is out of range.
    """

    tables: Tensor
    dct: Tensor
    colour: Tensor

    has_pseudo_inverse = True

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        quality: int = 10,
        *,
        subsampling: Literal["4:2:0", "4:4:4"] = "4:2:0",
        value_range: ValueRange = (-1.0, 1.0),
    ) -> None:
        if image_shape[0] not in (1, 3):
            raise ValueError(f"JPEG: images must have 1 or 3 channels, got image shape {image_shape}")
        if subsampling not in ("4:2:0", "4:4:4"):
            raise ValueError(f"JPEG subsampling must be '4:2:0' or '4:4:4', got {subsampling!r}")
        super().__init__(image_shape, image_shape)
        self.quality, self.subsampling = quality, subsampling
        self.value_range = check_range("JPEG", value_range)
        self.register_buffer("tables", torch.stack(quantisation_tables(quality)))
        self.register_buffer("dct", dct_matrix(8))
        colour = torch.tensor(_RGB_TO_YCBCR, dtype=torch.float64)
        self.register_buffer("colour", torch.stack((colour, torch.linalg.inv(colour))))

    def _forward_kernel(self, x: Tensor) -> Tensor:
        height, width = self.domain_shape[1:]
        halve = self.domain_shape[0] == 3 and self.subsampling == "4:2:0"
        unit = 16 if halve else 8
        pixels = rescale(x, self.value_range, (-128.0, 127.0))  # level-shifted
        pixels = functional.pad(pixels, (0, -width % unit, 0, -height % unit), mode="replicate")
        if self.domain_shape[0] == 1:
            decoded = self._code(pixels, self.tables[0])
        else:
            # The level shift of grey stays in Y: the chroma rows sum to zero and the luma row to one.
            y, chroma = _mix_channels(self.colour[0], pixels).split((1, 2), dim=1)
            chroma = functional.avg_pool2d(chroma, 2) if halve else chroma
            y, chroma = self._code(y, self.tables[0]), self._code(chroma, self.tables[1])
            chroma = chroma.repeat_interleave(2, -1).repeat_interleave(2, -2) if halve else chroma
            decoded = _mix_channels(self.colour[1], torch.cat((y, chroma), dim=1))
        decoded = decoded[..., :height, :width].clamp(-128, 127)
        return rescale(decoded, (-128.0, 127.0), self.value_range)

    def _code(self, channels: Tensor, table: Tensor) -> Tensor:
        """Transform, quantise and back: ``(N, c, H, W)`` with sides that are multiples of 8."""
        blocks = channels.unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8)).transpose(-3, -2)
        table = table.to(channels.dtype)
        levels = round_straight_through(apply_separable(self.dct, self.dct, blocks) / table)
        blocks = apply_separable(self.dct.T, self.dct.T, levels * table)
        return blocks.transpose(-3, -2).reshape(channels.shape)

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """``y`` itself: the decompressed image."""
        return y


def _mix_channels(matrix: Tensor, x: Tensor) -> Tensor:
    """Colour transform of ``(N, 3, H, W)``, summed in a fixed order."""
    weights = matrix.to(x.dtype)
    rows = [weights[i, 0] * x[:, 0] + weights[i, 1] * x[:, 1] + weights[i, 2] * x[:, 2] for i in range(3)]
    return torch.stack(rows, dim=1)
