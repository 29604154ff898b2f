"""Image quality of reconstructions, slice by slice, with every convention stated.

Published PSNRs of the same images differ by more than 4 dB because data range, clipping and averaging differ. Here:

- the data range is always an explicit argument (a fixed number of HU, not the range of each image);
- nothing is clipped;
- every metric is computed per slice in float64, and a figure for a volume is the mean over its slices;
- SSIM is scikit-image's with its defaults (7x7 uniform window, sample covariance), as dival reports it for LoDoPaB-CT;
  ``gaussian_weights=True`` gives the Gaussian window of Wang et al. 2004 instead.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from skimage.metrics import structural_similarity
from skimage.morphology import convex_hull_image

from deft_ct.evaluation.statistics import Interval, mean_interval

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

_SSIM_WINDOW = 7
_AIR_HU = -960.0  # lungs are above it, air around the patient is below


def psnr(
    recon: ArrayLike | torch.Tensor,
    truth: ArrayLike | torch.Tensor,
    *,
    data_range: float,
    mask: ArrayLike | None = None,
) -> Floats:
    """Peak signal-to-noise ratio ``10 log10(data_range^2 / MSE)`` of every slice.

    Args:
        recon: reconstruction, ``(Z, H, W)`` or ``(H, W)``.
        truth: reference, same shape and unit.
        data_range: the peak, in the unit of the images (dival's PSNR takes ``truth.max() - truth.min()`` of each image,
            its PSNR-FR 1.0).
        mask: where to take the mean squared error, boolean, same shape; everywhere by default.

    Returns:
        ``(Z,)`` in dB; infinite where the images are equal, NaN where the mask of a slice is empty.

    Raises:
        ValueError: shapes differ, an image has NaN or infinite values, or ``data_range`` is not positive.
    """
    recon, truth, inside = _checked(recon, truth, mask)
    _check_range(data_range)
    error = _masked_mean(np.square(recon - truth), inside)
    with np.errstate(divide="ignore"):
        return 20.0 * np.log10(data_range) - 10.0 * np.log10(error)


def ssim(
    recon: ArrayLike | torch.Tensor,
    truth: ArrayLike | torch.Tensor,
    *,
    data_range: float,
    gaussian_weights: bool = False,
) -> Floats:
    """Mean structural similarity of every slice, by scikit-image.

    Args:
        recon: reconstruction, ``(Z, H, W)`` or ``(H, W)``, each side at least 7 pixels.
        truth: reference, same shape and unit.
        data_range: dynamic range in the unit of the images; it sets the constants ``(0.01 L)^2`` and ``(0.03 L)^2``.
        gaussian_weights: a Gaussian window of sigma 1.5 with population covariance, as in Wang et al. 2004 (Image
            quality assessment: from error visibility to structural similarity), instead of dival's uniform 7x7 window.

    Returns:
        ``(Z,)`` between -1 and 1.

    Raises:
        ValueError: shapes differ, an image has NaN or infinite values, is smaller than the window, or ``data_range`` is
            not positive.
    """
    recon, truth, _ = _checked(recon, truth, None)
    _check_range(data_range)
    window = 11 if gaussian_weights else _SSIM_WINDOW
    if min(truth.shape[1:]) < window:
        raise ValueError(f"ssim needs slices of at least {window}x{window} pixels, got {truth.shape[1:]}")
    options: dict[str, Any] = (
        {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False} if gaussian_weights else {}
    )
    pairs = zip(recon, truth, strict=True)
    return np.array([structural_similarity(a, b, data_range=data_range, **options) for a, b in pairs], dtype=np.float64)


def rmse(recon: ArrayLike | torch.Tensor, truth: ArrayLike | torch.Tensor, *, mask: ArrayLike | None = None) -> Floats:
    """Root mean squared error of every slice inside ``mask``, ``(Z,)`` in the unit of the images (see :func:`psnr`)."""
    recon, truth, inside = _checked(recon, truth, mask)
    return np.sqrt(_masked_mean(np.square(recon - truth), inside))


def mae(recon: ArrayLike | torch.Tensor, truth: ArrayLike | torch.Tensor, *, mask: ArrayLike | None = None) -> Floats:
    """Mean absolute error of every slice inside ``mask``, ``(Z,)`` in the unit of the images (see :func:`psnr`)."""
    recon, truth, inside = _checked(recon, truth, mask)
    return _masked_mean(np.abs(recon - truth), inside)


def bias(recon: ArrayLike | torch.Tensor, truth: ArrayLike | torch.Tensor, *, mask: ArrayLike | None = None) -> Floats:
    """Mean signed error ``recon - truth`` of every slice inside ``mask``, ``(Z,)`` (see :func:`psnr`)."""
    recon, truth, inside = _checked(recon, truth, mask)
    return _masked_mean(recon - truth, inside)


def relative_residual(predicted: ArrayLike | torch.Tensor, measured: ArrayLike | torch.Tensor) -> Floats:
    """Data-consistency residual ``||A x - y|| / ||y||`` of every item of a batch.

    Args:
        predicted: ``A x``, ``(B, ...)``.
        measured: ``y``, same shape.

    Returns:
        ``(B,)``, dimensionless. A reconstruction that explains noisy data leaves the noise: compare it with the
        residual of the truth, not with 0.

    Raises:
        ValueError: shapes differ, there is no batch axis, values are not finite, or an item of ``measured`` is
            all zero.
    """
    first, second = _as_float64("predicted", predicted), _as_float64("measured", measured)
    if first.shape != second.shape or second.ndim < 2:
        raise ValueError(
            f"predicted and measured must both be (B, ...) of the same shape, got {first.shape} and {second.shape}"
        )
    axes = tuple(range(1, second.ndim))
    norm = np.sqrt(np.square(second).sum(axis=axes))
    if not norm.all():
        raise ValueError(f"measured is all zero in items {np.flatnonzero(norm == 0).tolist()}: no relative residual")
    return np.sqrt(np.square(first - second).sum(axis=axes)) / norm


def body_mask(hu: ArrayLike | torch.Tensor, *, threshold_hu: float = -500.0, opening_radius_px: int = 3) -> Mask:
    """The patient in every slice: lungs and bowel gas included; table, clothes and surrounding air excluded.

    Slice by slice: values above the threshold, an opening that cuts thin connections to the table, the largest
    connected region, its holes filled (lungs also where the edge of the image or of the field of view cuts the chest
    wall), and the rim that the opening took given back. Parts that do not touch the trunk (an arm beside it) are left
    out; what touches it broadly (a cushion) is not.

    Args:
        hu: ``(Z, H, W)`` or ``(H, W)`` in HU, of the reference and never of the reconstruction that is judged.
        threshold_hu: tissue is above it.
        opening_radius_px: radius of the opening; structures thinner than twice this are cut off.

    Returns:
        Boolean, same shape as ``hu``; all False in a slice without tissue.

    Raises:
        ValueError: ``hu`` is not a finite 2D or 3D array, or the radius is negative.
    """
    volume = _as_float64("hu", hu)
    if volume.ndim not in (2, 3):
        raise ValueError(f"hu must be (Z, H, W) or (H, W), got shape {volume.shape}")
    if opening_radius_px < 0:
        raise ValueError(f"opening_radius_px must be at least 0, got {opening_radius_px}")
    reach = np.arange(-opening_radius_px, opening_radius_px + 1)
    disk = reach[:, None] ** 2 + reach[None, :] ** 2 <= opening_radius_px**2
    stack = volume.reshape(-1, *volume.shape[-2:])
    return np.stack([_body_of_slice(s, threshold_hu, disk) for s in stack]).reshape(volume.shape)


def _body_of_slice(hu: Floats, threshold_hu: float, disk: Mask) -> Mask:
    tissue = hu > threshold_hu
    # The image is continued outwards for the opening, so that a body cut by the edge is not worn away there.
    pad = disk.shape[0] // 2
    opened = ndimage.binary_opening(np.pad(tissue, pad, mode="edge"), structure=disk)
    labels, count = ndimage.label(opened[pad : pad + hu.shape[0], pad : pad + hu.shape[1]])
    if count == 0:
        return np.zeros_like(tissue)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    trunk = np.asarray(labels == sizes.argmax(), dtype=np.bool_)
    # A thin chest wall may be broken, by the opening or by the circular field of view: the lung behind it is then no
    # hole of the trunk. It is told from the air around the patient by its density, from foam by lying within the trunk,
    # from folds of clothes by its size.
    light = ndimage.gaussian_filter(hu, 1.0) > _AIR_HU
    lungs, count = ndimage.label(ndimage.binary_opening(light & ~tissue, structure=disk))
    if count:
        within = ndimage.mean(convex_hull_image(trunk), labels=lungs, index=np.arange(count + 1)) > 0.5
        within &= np.bincount(lungs.ravel()) > 0.01 * trunk.sum()
        within[0] = False
        trunk |= within[lungs]
    trunk = _filled(trunk)
    rim = ndimage.binary_dilation(trunk, structure=disk) & tissue
    return _filled(np.asarray(trunk | rim, dtype=np.bool_))


def _filled(region: Mask) -> Mask:
    """Holes filled, also those that the edge of the image cuts open between two parts of the region."""
    framed = np.pad(region, 1)
    for side, line in (
        (framed[0], framed[1]),
        (framed[-1], framed[-2]),
        (framed[:, 0], framed[:, 1]),
        (framed[:, -1], framed[:, -2]),
    ):
        touched = np.flatnonzero(line)
        if touched.size:
            side[touched[0] : touched[-1] + 1] = True
    return np.asarray(ndimage.binary_fill_holes(framed)[1:-1, 1:-1], dtype=np.bool_)


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Per-slice metrics of one reconstruction, each ``(Z,)``; `body` ones are taken inside :func:`body_mask`.

    Attributes:
        psnr: dB, whole slice, at :attr:`data_range_hu`.
        psnr_body: dB, inside the body, at :attr:`data_range_hu`.
        ssim: whole slice, uniform window, at :attr:`data_range_hu`.
        rmse_hu: HU, inside the body.
        mae_hu: HU, inside the body.
        bias_hu: HU, reconstruction minus truth, inside the body.
        data_range_hu: the data range of PSNR and SSIM, in HU.
    """

    psnr: Floats
    psnr_body: Floats
    ssim: Floats
    rmse_hu: Floats
    mae_hu: Floats
    bias_hu: Floats
    data_range_hu: float

    def __post_init__(self) -> None:
        shapes = {name: getattr(self, name).shape for name in metric_names()}
        if len(set(shapes.values())) != 1 or len(self.psnr.shape) != 1:
            raise ValueError(f"every metric must be one value per slice, got shapes {shapes}")

    def __len__(self) -> int:
        """Number of slices."""
        return len(self.psnr)

    def summary(self, *, confidence: float = 0.95, method: str = "bootstrap", seed: int = 0) -> dict[str, Interval]:
        """Mean and confidence interval over slices of every metric (see :func:`mean_interval`)."""
        return {
            name: mean_interval(getattr(self, name), confidence=confidence, method=method, seed=seed)
            for name in metric_names()
        }


def metric_names() -> tuple[str, ...]:
    """Names of the per-slice fields of :class:`Metrics`, in order."""
    return tuple(field.name for field in fields(Metrics) if field.name != "data_range_hu")


def evaluate(
    recon_hu: ArrayLike | torch.Tensor,
    truth_hu: ArrayLike | torch.Tensor,
    *,
    data_range_hu: float = 2000.0,
    body: ArrayLike | None = None,
) -> Metrics:
    """Every metric of one reconstruction.

    Args:
        recon_hu: ``(Z, H, W)`` or ``(H, W)`` in HU.
        truth_hu: same shape, HU.
        data_range_hu: data range of PSNR and SSIM; 2000 HU is the span of the prior's range, [-1000, 1000] HU.
        body: boolean, same shape; :func:`body_mask` of the truth by default.

    Returns:
        One value per slice and metric; HU errors are NaN in a slice without a body.

    Raises:
        ValueError: shapes differ, values are not finite, or ``data_range_hu`` is not positive.
    """
    recon, truth, inside = _checked(recon_hu, truth_hu, body_mask(truth_hu) if body is None else body)
    return Metrics(
        psnr=psnr(recon, truth, data_range=data_range_hu),
        psnr_body=psnr(recon, truth, data_range=data_range_hu, mask=inside),
        ssim=ssim(recon, truth, data_range=data_range_hu),
        rmse_hu=rmse(recon, truth, mask=inside),
        mae_hu=mae(recon, truth, mask=inside),
        bias_hu=bias(recon, truth, mask=inside),
        data_range_hu=float(data_range_hu),
    )


def _as_float64(name: str, array: ArrayLike | torch.Tensor) -> Floats:
    if isinstance(array, torch.Tensor):
        array = array.detach().cpu().numpy()
    values = np.asarray(array, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{name} has {int((~np.isfinite(values)).sum())} NaN or infinite values of {values.size}")
    return values


def _checked(
    recon: ArrayLike | torch.Tensor, truth: ArrayLike | torch.Tensor, mask: ArrayLike | None
) -> tuple[Floats, Floats, Mask]:
    first, second = _as_float64("recon", recon), _as_float64("truth", truth)
    if first.shape != second.shape or second.ndim not in (2, 3) or not second.size:
        raise ValueError(
            f"recon and truth must both be (Z, H, W) or (H, W) of the same shape, got {first.shape} and {second.shape}"
        )
    inside = np.ones(second.shape, dtype=np.bool_) if mask is None else np.asarray(mask)
    if inside.shape != second.shape or inside.dtype != np.bool_:
        raise ValueError(f"mask must be boolean of shape {second.shape}, got {inside.dtype} of shape {inside.shape}")
    stack = (-1, *second.shape[-2:])
    return first.reshape(stack), second.reshape(stack), inside.reshape(stack)


def _check_range(data_range: float) -> None:
    if not (np.isfinite(data_range) and data_range > 0):
        raise ValueError(f"data_range must be a positive number in the unit of the images, got {data_range}")


def _masked_mean(values: Floats, inside: Mask) -> Floats:
    count = inside.sum(axis=(1, 2))
    total = np.where(inside, values, 0.0).sum(axis=(1, 2))
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
