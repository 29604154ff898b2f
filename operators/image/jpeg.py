"""JPEG compression as a forward model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from deft_ct.operators.base import Operator, RowPick
from deft_ct.operators.image.rounding import round_half_away
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
# JFIF: full-range BT.601, both directions, rounded to 16 binary digits as in libjpeg; the ties below depend on them.
_RGB_TO_YCBCR = tuple(
    tuple(entry / 65536 for entry in row)
    for row in ((19595, 38470, 7471), (-11059, -21709, 32768), (32768, -27439, -5329))
)
_YCBCR_TO_RGB = tuple(
    tuple(entry / 65536 for entry in row) for row in ((65536, 0, 91881), (65536, -22554, -46802), (65536, 116130, 0))
)
_CENTRE = (((0.0,),), ((128.0,),), ((128.0,),))


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

    The steps that lose information follow libjpeg (version 6b and libjpeg-turbo, accurate integer DCT), with its
    roundings to 8 bits. The encoder transforms the colours, averages the chroma, takes the 8 x 8 cosine transform and
    rounds to the quantisation tables. The decoder interpolates the chroma smoothly ("fancy upsampling", weights 3/4 and
    1/4) and clips. The entropy coding loses nothing and is left out.

    The vector-Jacobian product takes every rounding as the identity (straight-through). All other steps are
    differentiated exactly.

    The result differs from libjpeg's by 0.3 of 255 grey levels or less (root mean square; 12 crops of Kodak
    photographs, qualities 5 to 95, both samplings). What is left comes from the fixed-point arithmetic of its cosine
    transform, which flips a coefficient now and then.

    Args:
        image_shape: ``(C, H, W)`` with ``C`` 1 or 3; sides that are no multiple of the block are padded by repetition.
        quality: 1 to 100 (5 and 10 in I2SB). A sequence has one for each image of a batch of its length.
        subsampling: ``"4:2:0"`` halves the chroma resolution (the usual default), ``"4:4:4"`` keeps it.
        value_range: range of ``x`` and ``y``; its ends are the grey levels 0 and 255.

    Raises:
        ValueError: a parameter is out of range.
    """

    tables: Tensor
    dct: Tensor

    has_pseudo_inverse = True

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        quality: int | Sequence[int] = 10,
        *,
        subsampling: Literal["4:2:0", "4:4:4"] = "4:2:0",
        value_range: ValueRange = (-1.0, 1.0),
    ) -> None:
        if image_shape[0] not in (1, 3):
            raise ValueError(f"JPEG: images must have 1 or 3 channels, got image shape {image_shape}")
        if subsampling not in ("4:2:0", "4:4:4"):
            raise ValueError(f"JPEG subsampling must be '4:2:0' or '4:4:4', got {subsampling!r}")
        super().__init__(image_shape, image_shape)
        self.image_shape = image_shape
        self.subsampling: Literal["4:2:0", "4:4:4"] = subsampling
        self.quality = tuple(quality) if isinstance(quality, Sequence) else quality
        self.value_range = check_range("JPEG", value_range)
        qualities = self.quality if isinstance(self.quality, tuple) else (self.quality,)
        if not qualities:
            raise ValueError("JPEG: quality is an empty sequence; give one for each image")
        tables = torch.stack([torch.stack(quantisation_tables(one)) for one in qualities])
        self.register_buffer("tables", tables)
        self.register_buffer("dct", dct_matrix(8))

    @property
    def images(self) -> int | None:
        """Number of qualities; None for one quality for all images."""
        return len(self.quality) if isinstance(self.quality, tuple) else None

    def select_images(self, pick: RowPick) -> JPEG:
        """Compression with the qualities of other images; see :meth:`Operator.select_images`."""
        if not isinstance(self.quality, tuple):
            return self
        chosen = [int(one) for one in pick(torch.tensor(self.quality))]
        out = JPEG(self.image_shape, chosen, subsampling=self.subsampling, value_range=self.value_range)
        return out.to(self.tables.device)

    def _forward_kernel(self, x: Tensor) -> Tensor:
        if self.images not in (None, len(x)):
            raise ValueError(f"JPEG: the {self.images} qualities need as many images, got {len(x)}")
        height, width = self.domain_shape[1:]
        halve = self.domain_shape[0] == 3 and self.subsampling == "4:2:0"
        pixels = rescale(x, self.value_range, (0.0, 255.0))
        if self.domain_shape[0] == 1:
            decoded = self._coded(_rounded(pixels), 0)
        else:
            luma, chroma = mix_channels(_RGB_TO_YCBCR, pixels).split((1, 2), dim=1)
            # libjpeg rounds halves of luma up, of chroma down: with R = G every odd difference to B is one.
            luma, chroma = self._coded(_rounded(luma), 0), -_rounded(-chroma) + 128.0
            chroma = upsampled(self._coded(halved(chroma), 1), (height, width)) if halve else self._coded(chroma, 1)
            centred = torch.cat((luma, chroma), dim=1) - pixels.new_tensor(_CENTRE)
            decoded = _rounded(mix_channels(_YCBCR_TO_RGB, centred)).clamp(0, 255)
        return rescale(decoded, (0.0, 255.0), self.value_range)

    def _coded(self, channels: Tensor, kind: int) -> Tensor:
        """Pad, transform, quantise and back: ``(N, c, h, w)`` of grey levels, rounded and clipped.

        Args:
            channels: grey levels.
            kind: 0 for luma, 1 for chroma.
        """
        height, width = channels.shape[-2:]
        shifted = functional.pad(channels - 128.0, (0, -width % 8, 0, -height % 8), mode="replicate")
        blocks = shifted.unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8)).transpose(-3, -2)
        table = self.tables[:, kind].to(channels.dtype)[:, None, None, None]
        # libjpeg's integers: quarters after the first pass, eighths (grey levels on the way back) after the second,
        # each pass being sqrt(8) times the orthonormal transform.
        identity, root = torch.eye(8, dtype=self.dct.dtype, device=self.dct.device), 8**0.5
        rows = _rounded(4 * root * apply_separable(identity, self.dct, blocks))
        coefficients = _rounded(root / 4 * apply_separable(self.dct, identity, rows)) / 8
        levels = round_half_away(coefficients / table)
        columns = _rounded(4 * root * apply_separable(self.dct.T, identity, levels * table))
        blocks = _rounded(root / 32 * apply_separable(identity, self.dct.T, columns))
        decoded = (blocks.transpose(-3, -2).reshape(shifted.shape) + 128.0).clamp(0, 255)
        return decoded[..., :height, :width]

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """``y`` itself: the decompressed image."""
        return y


def mix_channels(matrix: Sequence[Sequence[float]], x: Tensor) -> Tensor:
    """Colour transform of ``(N, 3, H, W)``, summed in a fixed order."""
    rows = [first * x[:, 0] + second * x[:, 1] + third * x[:, 2] for first, second, third in matrix]
    return torch.stack(rows, dim=1)


def halved(chroma: Tensor) -> Tensor:
    """Means of 2 x 2 pixels, rounded as in libjpeg: halves down in even columns of the result, up in odd ones."""
    height, width = chroma.shape[-2:]
    # A column is padded before the mean is taken to the whole block, a row to the pair.
    padded = functional.pad(chroma, (0, -width % 16, 0, height % 2), mode="replicate")
    means = functional.avg_pool2d(padded, 2)
    bias = torch.tensor([0.25, 0.5], dtype=chroma.dtype, device=chroma.device).repeat(means.shape[-1] // 2)
    out = means + ((means + bias).floor() - means).detach()
    return out


def upsampled(chroma: Tensor, size: tuple[int, int]) -> Tensor:
    """Twice the resolution by weights 3/4 and 1/4 in both directions, rounded as in libjpeg, and cropped.

    Args:
        chroma: ``(N, c, h, w)``.
        size: of the result; the samples beyond half of it (rounded up) are not used.
    """
    height, width = size
    chroma = chroma[..., : -(-height // 2), : -(-width // 2)]
    if chroma.shape[-1] <= 2:  # libjpeg repeats the samples of images this narrow
        return chroma.repeat_interleave(2, -1).repeat_interleave(2, -2)[..., :height, :width]
    wide = functional.pad(chroma, (1, 1, 1, 1), mode="replicate")
    rows = torch.stack((3 * wide[..., 1:-1, :] + wide[..., :-2, :], 3 * wide[..., 1:-1, :] + wide[..., 2:, :]), -2)
    rows = rows.flatten(-3, -2)
    # Sixteenths: halves go up in even columns and down in odd ones.
    even = 3 * rows[..., 1:-1] + rows[..., :-2] + 8
    odd = 3 * rows[..., 1:-1] + rows[..., 2:] + 7
    total = torch.stack((even, odd), -1).flatten(-2) / 16
    return (total + (total.floor() - total).detach())[..., :height, :width]


def _rounded(x: Tensor) -> Tensor:
    """To the nearest integer, halves up, also if rounding has left a little less; derivative of the identity."""
    return x + ((x + 0.5 + 1e-4).floor() - x).detach()
