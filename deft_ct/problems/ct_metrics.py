"""Quality of CT images in HU: the body mask, and every metric of a reconstruction slice by slice.

The data range is a fixed number of HU and nothing is clipped, see :mod:`deft_ct.evaluation.metrics`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import ndimage
from skimage.morphology import convex_hull_image

from deft_ct.evaluation.edges import edge_slope, strong_edges
from deft_ct.evaluation.metrics import Floats, Mask, as_float64, bias, mae, psnr, rmse, ssim
from deft_ct.evaluation.noise_power import noise_power_of_images
from deft_ct.evaluation.problem import Metric
from deft_ct.evaluation.statistics import Interval, mean_interval
from deft_ct.problems.ct_lodopab_metrics import LODOPAB_CONVENTIONS, lodopab_quality, lodopab_values

CT_METRICS = (
    Metric(name="psnr", key="psnr_db", heading="PSNR (dB)", digits=2, best="highest"),
    Metric(
        name="psnr_body", key="psnr_body_db", heading="PSNR in body (dB)", digits=2, best="highest", in_table=False
    ),
    Metric(name="ssim", key="ssim", heading="SSIM", digits=4, best="highest"),
    Metric(name="rmse", key="rmse_body_hu", heading="RMSE in body (HU)", digits=1, best="lowest"),
    Metric(name="bias", key="bias_body_hu", heading="bias in body (HU)", digits=1, best=None, in_table=False),
    *(replace(metric, heading=f"{metric.heading}, LoDoPaB", in_table=False) for metric in LODOPAB_CONVENTIONS),
    Metric(name="rmse_lung", key="rmse_lung_window_hu", heading="RMSE, lung window (HU)", digits=1, best="lowest",
           in_table=False),
    Metric(name="rmse_soft", key="rmse_soft_tissue_window_hu", heading="RMSE, soft-tissue window (HU)", digits=1,
           best="lowest", in_table=False),
    Metric(name="rmse_bone", key="rmse_bone_window_hu", heading="RMSE, bone window (HU)", digits=1, best="lowest",
           in_table=False),
    Metric(name="edge_slope", key="edge_slope", heading="edge slope (1: as the truth)", digits=3, best=None,
           in_table=False),
    Metric(name="noise", key="noise_hu", heading="noise in uniform tissue (HU)", digits=1, best=None,
           in_table=False),
    Metric(name="noise_frequency", key="noise_mean_frequency_per_mm", heading="mean noise frequency (1/mm)", digits=3,
           best=None, in_table=False),
)  # fmt: skip
"""PSNR and SSIM of the whole slice; RMSE and bias inside the body. See :func:`measure_ct` for the others."""

DATA_RANGE_HU = 2000.0
"""Default data range of PSNR and SSIM: the span of the prior's range, [-1000, 1000] HU."""
WINDOWS_HU: Mapping[str, tuple[float, float]] = {
    "lung": (-1350.0, 150.0), "soft": (-160.0, 240.0), "bone": (-500.0, 1300.0),
}  # fmt: skip
"""Black and white of the usual displays: level -600 and width 1500, 40 and 400, 400 and 1800 HU."""
EDGE_HU_PER_PIXEL = 60.0
"""Smoothed gradient of an edge, for :func:`measure_ct` and the regions of a problem."""
_UNIFORM_HU_PER_PIXEL = 30.0  # organs and muscle of a clinical slice with its own noise lie below it, vessels above
_AIR_HU = -960.0  # lungs are above it, air around the patient is below


def body_mask(hu: ArrayLike | torch.Tensor, *, threshold_hu: float = -500.0, opening_radius_px: int = 3) -> Mask:
    """The patient in every slice: lungs and bowel gas included; table, clothes and surrounding air excluded.

    For each slice, the values above the threshold are taken. A morphological opening cuts thin connections to the
    table. The largest connected region is kept and its holes are filled. Lungs are filled even if the edge of the image
    or of the field of view cuts the chest wall. Finally, the rim that the opening removed is restored. Parts that do
    not touch the trunk, for example an arm, are left out. An object with broad contact, for example a cushion, is not.

    Args:
        hu: ``(Z, H, W)`` or ``(H, W)`` in HU, of the reference and never of the reconstruction that is judged.
        threshold_hu: tissue is above it.
        opening_radius_px: radius of the opening; structures thinner than twice this are cut off.

    Returns:
        Boolean, same shape as ``hu``; all False in a slice without tissue.

    Raises:
        ValueError: ``hu`` is not a finite 2D or 3D array, or the radius is negative.
    """
    volume = as_float64("hu", hu)
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
    # hole of the trunk. It differs from the air around the patient by its density, from foam by lying within the trunk,
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
class CTMetrics:
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
        """Mean and confidence interval over slices of every metric (see :func:`mean_interval`).

        A metric that no slice has is NaN, with ``n`` 0: the errors inside the body of slices without one.
        """
        missing = Interval(mean=math.nan, low=math.nan, high=math.nan, n=0, confidence=confidence)
        return {
            name: missing
            if np.isnan(values := getattr(self, name)).all()
            else mean_interval(values, confidence=confidence, method=method, seed=seed)
            for name in metric_names()
        }


def metric_names() -> tuple[str, ...]:
    """Names of the per-slice fields of :class:`CTMetrics`, in order."""
    return tuple(field.name for field in fields(CTMetrics) if field.name != "data_range_hu")


def evaluate(
    recon_hu: ArrayLike | torch.Tensor,
    truth_hu: ArrayLike | torch.Tensor,
    *,
    data_range_hu: float = DATA_RANGE_HU,
    body: ArrayLike | None = None,
) -> CTMetrics:
    """Every metric of one reconstruction.

    Args:
        recon_hu: ``(Z, H, W)`` or ``(H, W)`` in HU.
        truth_hu: same shape, HU.
        data_range_hu: data range of PSNR and SSIM; see :data:`DATA_RANGE_HU`.
        body: boolean, same shape; :func:`body_mask` of the truth by default.

    Returns:
        One value per slice and metric; HU errors are NaN in a slice without a body.

    Raises:
        ValueError: shapes differ, values are not finite, or ``data_range_hu`` is not positive.
    """
    recon, truth = as_float64("recon", recon_hu), as_float64("truth", truth_hu)
    inside = body_mask(truth) if body is None else body
    if truth.ndim == 2:
        recon, truth, inside = recon[None], truth[None], np.asarray(inside)[None]
    return CTMetrics(
        psnr=psnr(recon, truth, data_range=data_range_hu),
        psnr_body=psnr(recon, truth, data_range=data_range_hu, mask=inside),
        ssim=ssim(recon, truth, data_range=data_range_hu),
        rmse_hu=rmse(recon, truth, mask=inside),
        mae_hu=mae(recon, truth, mask=inside),
        bias_hu=bias(recon, truth, mask=inside),
        data_range_hu=float(data_range_hu),
    )


def measure_ct(
    images: ArrayLike, truth: ArrayLike, body: Mask, *, data_range_hu: float, pixel_mm: ArrayLike
) -> dict[str, Floats]:
    """The metrics of :data:`CT_METRICS`: name -> a value for every slice.

    - ``psnr_lodopab``, ``psnr_fr``, ``ssim_lodopab``, ``ssim_fr``: whole slice, in the two conventions of LoDoPaB-CT,
      see :func:`~deft_ct.problems.ct_lodopab_metrics.lodopab_quality`.
    - ``rmse_lung``, ``rmse_soft`` and ``rmse_bone``: in the body, after both images were clipped to a display window of
      :data:`WINDOWS_HU`: what a reader sees at that window.
    - ``edge_slope``: see :func:`~deft_ct.evaluation.edges.edge_slope`, at edges of the body steeper than
      :data:`EDGE_HU_PER_PIXEL`.
    - ``noise`` and ``noise_frequency``: standard deviation and mean frequency of the error in squares of 16 pixels of
      uniform tissue, see :func:`~deft_ct.evaluation.noise_power.noise_power`; NaN where a slice has none.

    Args:
        images: ``(N, H, W)`` HU.
        truth: ``(N, H, W)`` HU.
        body: ``(N, H, W)``, see :func:`body_mask`.
        data_range_hu: data range of PSNR and SSIM.
        pixel_mm: side of a pixel, one number or ``(N,)``.
    """
    found = evaluate(images, truth, data_range_hu=data_range_hu, body=body)
    recon, true = as_float64("recon", images), as_float64("truth", truth)
    edges = strong_edges(true, least=EDGE_HU_PER_PIXEL, within=body)
    widths = np.broadcast_to(np.asarray(pixel_mm, dtype=np.float64), len(true))
    spectra = noise_power_of_images(recon - true, uniform_tissue(true, body), pixel_mm=widths)
    return {
        "psnr": found.psnr, "psnr_body": found.psnr_body, "ssim": found.ssim, "rmse": found.rmse_hu,
        "bias": found.bias_hu,
        **lodopab_quality(lodopab_values(recon), lodopab_values(true)),
        **{f"rmse_{name}": rmse(recon.clip(*ends), true.clip(*ends), mask=body) for name, ends in WINDOWS_HU.items()},
        "edge_slope": edge_slope(recon, true, edges),
        "noise": np.array([np.nan if power is None else power.deviation for power in spectra]),
        "noise_frequency": np.array([np.nan if power is None else power.mean_frequency for power in spectra]),
    }  # fmt: skip


def uniform_tissue(truth: Floats, body: Mask) -> Mask:
    """Tissue without structure: pixels of the body whose smoothed gradient is low, lungs and bone left out.

    Args:
        truth: ``(N, H, W)`` HU.
        body: ``(N, H, W)``.

    Returns:
        ``(N, H, W)``: smoothed value between -200 and 200 HU, smoothed gradient below 30 HU a pixel.
    """
    smooth = np.stack([ndimage.gaussian_filter(image, 1.5) for image in truth])
    gradient = np.stack([ndimage.gaussian_gradient_magnitude(image, 1.5) for image in truth])
    return np.asarray(body & (np.abs(smooth) < 200.0) & (gradient < _UNIFORM_HU_PER_PIXEL), dtype=np.bool_)
