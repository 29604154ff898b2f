"""The slope at edges against closed forms of Gaussian blur."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from scipy.special import erf

from deft_ct.evaluation.edges import edge_slope, strong_edges


def edge(width: float, *, height: float = 800.0, side: int = 64) -> np.ndarray:
    """A straight vertical edge, blurred by a Gaussian of this width."""
    x = np.arange(side) - (side - 1) / 2 + 0.5
    return np.tile(height / 2 * (1 + erf(x / (np.sqrt(2) * width))), (side, 1))


def test_strong_edges_are_one_pixel_wide_and_lie_on_the_edge() -> None:
    truth = np.stack([edge(1.0), edge(1.0, height=50.0)])
    found = strong_edges(truth, least=60.0)
    columns = np.flatnonzero(found[0].any(0))
    assert found[0].sum(1).tolist() == [1] * 64 and columns.tolist() == [31]
    assert not found[1].any()  # too weak: 50 / (2 sqrt(pi)) is below 60
    within = np.zeros_like(found)
    within[:, :10] = True
    assert strong_edges(truth, least=60.0, within=within).sum() == 10


@pytest.mark.parametrize("blur", [0.8, 1.5, 3.0])
def test_the_slope_of_a_blurred_edge_has_its_closed_form(blur: float) -> None:
    truth, recon = edge(1.2)[None], edge(np.hypot(1.2, blur))[None]
    found = edge_slope(recon, truth, strong_edges(truth, least=60.0))
    expected = np.sqrt((1.2**2 + 1) / (1.2**2 + 1 + blur**2))
    np.testing.assert_allclose(found, expected, rtol=0.01)


def test_noise_and_offset_leave_the_slope_alone_and_contrast_does_not() -> None:
    truth = edge(1.0, side=256)[None]
    edges = strong_edges(truth, least=60.0)
    noise = np.random.default_rng(0).normal(0, 40.0, truth.shape)
    # The error of one of 256 independent-ish places is about 40 / 2 HU a pixel of a slope of 226.
    assert edge_slope(truth + noise + 30.0, truth, edges)[0] == pytest.approx(1.0, abs=0.02)
    assert edge_slope(0.7 * truth, truth, edges)[0] == pytest.approx(0.7)
    sharpened = truth + 0.5 * (truth - ndimage.gaussian_filter(truth, (0, 1, 1)))
    assert edge_slope(sharpened, truth, edges)[0] == pytest.approx(1 + 0.5 * (1 - np.sqrt(2 / 3)), rel=0.01)


def test_no_edge_no_slope() -> None:
    flat = np.zeros((2, 16, 16))
    assert np.isnan(edge_slope(flat, flat, strong_edges(flat, least=60.0))).all()
