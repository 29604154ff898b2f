"""PSNR and SSIM in the two conventions of LoDoPaB-CT (Leuschner et al. 2021, doi:10.3390/jimaging7030044, sec. 4.1).

Images are attenuation over :data:`~deft_ct.datasets.lodopab.MU_MAX`, so that the values of LoDoPaB's truth lie in
[0, 1]. The data range is that of each true image, ``max - min``, or fixed at 1 ("FR"). Nothing is clipped. This is what
dival computes: ``PSNR`` and ``SSIM`` without a data range, and with ``data_range=1``. SSIM is not invariant to an
offset, so that of HU images is another number.
"""

from __future__ import annotations

from numpy.typing import ArrayLike

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.datasets.lodopab import MU_MAX
from deft_ct.evaluation.metrics import Floats, as_float64, own_range, psnr, ssim
from deft_ct.evaluation.problem import Metric

__all__ = ["LODOPAB_CONVENTIONS", "lodopab_quality", "lodopab_values"]

LODOPAB_CONVENTIONS = (
    Metric(name="psnr_lodopab", key="psnr_lodopab_db", heading="PSNR (dB)", digits=2, best="highest"),
    Metric(name="psnr_fr", key="psnr_fr_lodopab_db", heading="PSNR-FR (dB)", digits=2, best="highest"),
    Metric(name="ssim_lodopab", key="ssim_lodopab", heading="SSIM", digits=4, best="highest"),
    Metric(name="ssim_fr", key="ssim_fr_lodopab", heading="SSIM-FR", digits=4, best="highest", in_table=False),
)
"""In the order and with the headings of the table of the LoDoPaB-CT challenge; see :func:`lodopab_quality`."""


def lodopab_quality(recon: ArrayLike, truth: ArrayLike) -> dict[str, Floats]:
    """The metrics of :data:`LODOPAB_CONVENTIONS`: name -> a value for every image.

    Args:
        recon: ``(N, H, W)``, attenuation over ``MU_MAX``; see :func:`lodopab_values` for images in HU.
        truth: the same.

    Raises:
        ValueError: shapes differ, or values are not finite.
    """
    ranges = own_range(as_float64("truth", truth))
    return {
        "psnr_lodopab": psnr(recon, truth, data_range=ranges),
        "psnr_fr": psnr(recon, truth, data_range=1.0),
        "ssim_lodopab": ssim(recon, truth, data_range=ranges),
        "ssim_fr": ssim(recon, truth, data_range=1.0),
    }


def lodopab_values(hu: ArrayLike) -> Floats:
    """CT numbers, any shape, as attenuation over ``MU_MAX``: -1001 HU is 0 and 3071 HU is 1.

    Raises:
        ValueError: values are not finite.
    """
    attenuation: Floats = HounsfieldScale().to_attenuation(as_float64("hu", hu))
    return attenuation / (MU_MAX / 1000.0)
