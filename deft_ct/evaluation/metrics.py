"""Image quality of reconstructions, image by image, with every convention stated.

Published PSNRs of the same images differ by more than 4 dB because data range, clipping and averaging differ. Here:

- the data range is always said. It is a fixed number in the unit of the images, or the range of each true image
  (:func:`own_range`), as dival's PSNR and SSIM take it by default;
- nothing is clipped;
- the first axis counts images, a metric is computed for each of them in float64, and a figure for a set is the mean;
- SSIM is scikit-image's with its defaults (7x7 uniform window, sample covariance), as dival reports it for LoDoPaB-CT;
  ``gaussian_weights=True`` gives the Gaussian window of Wang et al. 2004 instead.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from skimage.metrics import structural_similarity

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

_SSIM_WINDOW = 7


def psnr(
    recon: ArrayLike | torch.Tensor,
    truth: ArrayLike | torch.Tensor,
    *,
    data_range: ArrayLike,
    mask: ArrayLike | None = None,
) -> Floats:
    """Peak signal-to-noise ratio ``10 log10(data_range^2 / MSE)`` of every image.

    Args:
        recon: reconstructions, ``(N, *image_shape)``, or one image ``(H, W)``.
        truth: true images, same shape and unit.
        data_range: the peak, in the unit of the images: one number, or ``(N,)``, one for each image. For LoDoPaB-CT,
            dival's PSNR takes :func:`own_range` of the truth. Its PSNR-FR ("fixed range") takes 1.
        mask: where to take the mean squared error, boolean, same shape; everywhere by default.

    Returns:
        ``(N,)`` in dB; infinite where the images are equal, NaN where the mask of an image is empty or its range is
        NaN.

    Raises:
        ValueError: shapes differ, an image has NaN or infinite values, or ``data_range`` is not positive.
    """
    recon, truth, inside = _checked(recon, truth, mask)
    peaks = _ranges(data_range, len(truth))
    error = _masked_mean(np.square(recon - truth), inside)
    with np.errstate(divide="ignore"):
        return 20.0 * np.log10(peaks) - 10.0 * np.log10(error)


def ssim(
    recon: ArrayLike | torch.Tensor,
    truth: ArrayLike | torch.Tensor,
    *,
    data_range: ArrayLike,
    gaussian_weights: bool = False,
) -> Floats:
    """Mean structural similarity of every image, by scikit-image.

    Args:
        recon: reconstructions, ``(N, H, W)``, ``(N, C, H, W)`` (mean over channels) or one image ``(H, W)``; each side
            at least 7 pixels.
        truth: true images, same shape and unit.
        data_range: dynamic range L in the unit of the images, one number or ``(N,)``; it sets the constants
            ``(0.01 L)^2`` and ``(0.03 L)^2``.
        gaussian_weights: a Gaussian window of sigma 1.5 with population covariance, as in Wang et al. 2004 (Image
            quality assessment: from error visibility to structural similarity), instead of dival's uniform 7x7 window.

    Returns:
        ``(N,)`` between -1 and 1; NaN where the range of an image is NaN.

    Raises:
        ValueError: shapes differ or are of another kind, an image has NaN or infinite values or is smaller than the
            window, or ``data_range`` is not positive.
    """
    recon, truth, _ = _checked(recon, truth, None)
    ranges = _ranges(data_range, len(truth))
    window = 11 if gaussian_weights else _SSIM_WINDOW
    if truth.ndim > 4:
        raise ValueError(f"ssim needs images (N, H, W) or (N, C, H, W), got shape {truth.shape}")
    if min(truth.shape[-2:]) < window:
        raise ValueError(f"ssim needs images of at least {window}x{window} pixels, got {truth.shape[-2:]}")
    options: dict[str, Any] = (
        {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False} if gaussian_weights else {}
    )
    if truth.ndim == 4:
        options["channel_axis"] = 0
    triples = zip(recon, truth, ranges, strict=True)
    found = [np.nan if np.isnan(L) else structural_similarity(a, b, data_range=L, **options) for a, b, L in triples]
    return np.array(found, dtype=np.float64)


def own_range(truth: ArrayLike | torch.Tensor) -> Floats:
    """``max - min`` of every true image: the data range of dival's PSNR and SSIM.

    Args:
        truth: ``(N, *image_shape)``, or one image ``(H, W)``.

    Returns:
        ``(N,)`` in the unit of the images; NaN for a constant image, which has no contrast to compare with.

    Raises:
        ValueError: a value is NaN or infinite.
    """
    values = as_float64("truth", truth)
    flat = values.reshape(1 if values.ndim == 2 else len(values), -1)
    found = flat.max(1) - flat.min(1)
    return np.where(found > 0, found, np.nan)


def rmse(recon: ArrayLike | torch.Tensor, truth: ArrayLike | torch.Tensor, *, mask: ArrayLike | None = None) -> Floats:
    """Root mean squared error of every image inside ``mask``, ``(N,)`` in the unit of the images (see :func:`psnr`)."""
    recon, truth, inside = _checked(recon, truth, mask)
    return np.sqrt(_masked_mean(np.square(recon - truth), inside))


def mae(recon: ArrayLike | torch.Tensor, truth: ArrayLike | torch.Tensor, *, mask: ArrayLike | None = None) -> Floats:
    """Mean absolute error of every image inside ``mask``, ``(N,)`` in the unit of the images (see :func:`psnr`)."""
    recon, truth, inside = _checked(recon, truth, mask)
    return _masked_mean(np.abs(recon - truth), inside)


def bias(recon: ArrayLike | torch.Tensor, truth: ArrayLike | torch.Tensor, *, mask: ArrayLike | None = None) -> Floats:
    """Mean signed error ``recon - truth`` of every image inside ``mask``, ``(N,)`` (see :func:`psnr`)."""
    recon, truth, inside = _checked(recon, truth, mask)
    return _masked_mean(recon - truth, inside)


def as_float64(name: str, array: ArrayLike | torch.Tensor) -> Floats:
    """An array or a tensor in float64; a ValueError with ``name`` if a value is NaN or infinite."""
    if isinstance(array, torch.Tensor):
        array = array.detach().cpu().numpy()
    values = np.asarray(array, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{name} has {int((~np.isfinite(values)).sum())} NaN or infinite values of {values.size}")
    return values


def _checked(
    recon: ArrayLike | torch.Tensor, truth: ArrayLike | torch.Tensor, mask: ArrayLike | None
) -> tuple[Floats, Floats, Mask]:
    first, second = as_float64("recon", recon), as_float64("truth", truth)
    if first.shape != second.shape or second.ndim < 2 or not second.size:
        raise ValueError(
            f"recon and truth must both be (N, *image_shape) or (H, W), of the same shape, got {first.shape} and "
            f"{second.shape}"
        )
    inside = np.ones(second.shape, dtype=np.bool_) if mask is None else np.asarray(mask)
    if inside.shape != second.shape or inside.dtype != np.bool_:
        raise ValueError(f"mask must be boolean of shape {second.shape}, got {inside.dtype} of shape {inside.shape}")
    return (first[None], second[None], inside[None]) if second.ndim == 2 else (first, second, inside)


def _ranges(data_range: ArrayLike, count: int) -> Floats:
    """One range for each of ``count`` images; NaN stays, and one number must not be NaN."""
    given = np.asarray(data_range, dtype=np.float64)
    defined = given[~np.isnan(given)] if given.ndim else given
    if given.shape not in ((), (count,)) or not bool(np.all(np.isfinite(defined) & (defined > 0))):
        raise ValueError(
            f"data_range must be a positive number in the unit of the images, or one for each of {count} images, got "
            f"{given}"
        )
    return np.broadcast_to(given, (count,))


def _masked_mean(values: Floats, inside: Mask) -> Floats:
    axes = tuple(range(1, values.ndim))
    count = inside.sum(axis=axes)
    total = np.where(inside, values, 0.0).sum(axis=axes)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
