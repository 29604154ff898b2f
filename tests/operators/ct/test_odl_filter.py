"""Why ODL's filtered back-projection is brighter than ours: its filter in closed form, and a disc of known value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from deft_ct.datasets.phantoms import EllipsePhantom
from deft_ct.operators.ct import ParallelGeometry, fbp
from deft_ct.operators.ct.convert import to_odl
from deft_ct.operators.ct.filters import apply_filter, ramp_response

N, MU = 129, 0.02


@pytest.fixture(scope="module")
def scan() -> ParallelGeometry:
    angles = (np.arange(180) + 0.5) * np.pi / 180
    return ParallelGeometry(image_shape=(64, 64), pixel_mm=1.0, angles=angles, detectors=N, detector_mm=0.75)


@pytest.fixture(scope="module")
def tomo() -> Any:
    pytest.importorskip("astra")
    odl = pytest.importorskip("odl")
    del odl
    import importlib

    return importlib.import_module("odl.applications.tomo")


def ramp(n: np.ndarray) -> np.ndarray:
    """``4 h(n) d^2`` of the band-limited ramp (Kak and Slaney 1988, eq. 3.61)."""
    odd = n % 2 != 0
    return np.where(n == 0, 1.0, np.where(odd, -4 / (np.pi * np.where(odd, n, 1)) ** 2, 0.0))


def impulse(scan: ParallelGeometry) -> np.ndarray:
    lines = np.zeros(scan.sinogram_shape, np.float32)
    lines[:, N // 2] = 1
    return lines


def test_our_filter_is_the_ramp(scan: ParallelGeometry) -> None:
    response = torch.from_numpy(ramp_response(N, scan.detector_mm, "ram-lak", 1.0))
    row = apply_filter(torch.from_numpy(impulse(scan)[:1]).double(), response)[0].numpy()
    np.testing.assert_allclose(row / row[N // 2], ramp(np.arange(N) - N // 2), atol=1e-12)


def test_the_filter_of_odl_has_images_of_the_wrong_sign(scan: ParallelGeometry, tomo: Any) -> None:
    """The ramp at frequencies ``(k + 1/2) / L``, ``L = 2 N - 1``, is ``sum of (-1)^m h(n + m L)`` in space."""
    transform = tomo.RayTransform(*to_odl(scan), impl="astra_cpu")
    row = np.asarray(tomo.fbp_filter_op(transform, filter_type="Ram-Lak", padding=True)(impulse(scan)).data)[0]
    n, length = np.arange(N) - N // 2, 2 * N - 1
    images = np.sum([(-1.0) ** m * ramp(n + m * length) for m in range(-400, 401)], 0)
    np.testing.assert_allclose(row / row[N // 2], images / images[N // 2], atol=1e-6)
    even = n % 2 == 0
    excess = (row / row[N // 2])[even & (n != 0)]
    assert excess.min() > 1e-5, "where the ramp is zero ODL adds something to every element"


def test_a_disc_has_its_value_in_our_image_and_a_constant_too_much_in_that_of_odl(
    scan: ParallelGeometry, tomo: Any
) -> None:
    lines = EllipsePhantom.disc(24.0, MU).sinogram(scan)[0]
    transform = tomo.RayTransform(*to_odl(scan), impl="astra_cpu")
    theirs = np.asarray(tomo.fbp_op(transform, filter_type="Ram-Lak", padding=True)(lines.float().numpy()).data)
    ours = fbp(lines[None, None].float(), scan)[0, 0].numpy()
    y, x = np.mgrid[:64, :64] - 31.5
    radius = np.hypot(x, y)
    inside, outside = radius < 19, (radius > 28) & (radius < 31)
    assert ours[inside].mean() / MU == pytest.approx(1, abs=3e-3)
    assert ours[outside].mean() / MU == pytest.approx(0, abs=3e-3)
    more = [float((theirs[part] - ours[part]).mean() / MU) for part in (inside, outside)]
    assert min(more) > 0.01 and abs(more[0] - more[1]) < 0.004, "the same inside and outside: a constant"
