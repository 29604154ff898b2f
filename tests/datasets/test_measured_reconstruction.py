"""Measured scans reconstruct to what they show: HTC2022 (fan beam) and a tooth (parallel beam)."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.io
import torch

from deft_ct.datasets.data_exchange import estimate_center, read_data_exchange
from deft_ct.datasets.htc2022 import read_htc2022
from deft_ct.operators.ct import RayTransform, fbp

pytestmark = pytest.mark.data


def test_the_shipped_full_angle_image_projects_to_the_measured_wedge(data_root):
    """FBP of a wedge cannot be compared with that of the full scan; projecting the full-scan image can."""
    folder = data_root / "raw_projections"
    scan = read_htc2022(folder / "lpd_solid_disc_subsample73.mat")
    image = scipy.io.loadmat(folder / "htc2022_solid_disc_full_recon_fbp.mat")["reconFullFbp"]
    op = RayTransform(scan.geometry)
    measured = scan.sinogram[0, 0]

    def remainder(candidate: np.ndarray) -> tuple[float, float]:
        projected = op(torch.from_numpy(np.ascontiguousarray(candidate, dtype=np.float32)))
        factor = float((projected * measured).sum() / projected.square().sum())
        return factor, float((factor * projected - measured).norm() / measured.norm())

    factor, error = remainder(image)
    assert error < 0.035  # noise, beam hardening and the other library's own discretisation
    assert factor == pytest.approx(1 / scan.geometry.pixel_rc[0], rel=0.02)  # their unit is one pixel
    # The disc is nearly symmetric, so a wrong orientation costs little, but it does cost.
    wrong = [remainder(candidate)[1] for candidate in (image[:, ::-1], image[::-1], image.T)]
    assert error < 0.9 * min(wrong)


def test_the_tooth_is_centred_where_its_views_say(data_root):
    path = data_root / "raw_projections" / "tomopy_tooth.h5"
    scan = read_data_exchange(path, center=296.0)
    centre = estimate_center(scan.sinogram[0, 0], scan.geometry.angle_array)
    assert centre == pytest.approx(296.0, abs=0.5)

    def negative_share(at: float) -> float:
        shifted = read_data_exchange(path, center=at)
        image = fbp(shifted.sinogram[:1], shifted.geometry, "hann")[0, 0]
        return float(-(image.clamp_max(0)).sum() / image.abs().sum())  # a wrong centre leaves negative crescents

    shares = {at: negative_share(at) for at in (291.0, 296.0, 301.0)}
    assert shares[296.0] < 0.9 * min(shares[291.0], shares[301.0])
