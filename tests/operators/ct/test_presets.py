from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from deft_ct.operators import NoNoise, PoissonNoise
from deft_ct.operators.ct import FanGeometry, RayTransform, dm4ct, genregbench, htc2022
from deft_ct.operators.ct.presets import transmittance_scale


@pytest.mark.parametrize(
    ("setting", "views", "end", "photons"),
    [("i", 40, 1.0, None), ("ii", 20, 1.0, 1e4), ("iii", 80, 1.0, 5e3), ("iv", 80, 1.0, 1e4), ("v", 40, 0.75, None)],
)
def test_dm4ct(setting, views, end, photons):
    preset = dm4ct(setting)
    assert preset.geometry.sinogram_shape == (views, 512)
    assert preset.geometry.angles[0] == 0
    assert preset.geometry.angles[-1] == pytest.approx(end * math.pi)  # both ends are views
    assert preset.noise == (NoNoise() if photons is None else PoissonNoise(photons))
    assert (preset.fault is not None) == (setting == "iv")
    small = dm4ct(setting, image_shape=(16, 16), pixel_mm=2.0)
    y = RayTransform(small.geometry)(torch.ones(1, 1, 16, 16))
    assert float(y[0, 0, 0].max()) == pytest.approx(32.0, rel=1e-5)
    if end == 1.0:
        torch.testing.assert_close(y[..., -1, :], y[..., 0, :].flip(-1))


def test_dm4ct_rings_are_the_same_in_all_views():
    fault = dm4ct("iv").fault
    damaged = fault(torch.zeros(1, 1, 5, 400), torch.Generator().manual_seed(0))
    assert torch.equal(damaged[0, 0, 0], damaged[0, 0, 4])
    assert 0.15 < float((damaged[0, 0, 0] != 0).double().mean()) < 0.35


def test_unknown_settings_are_refused():
    with pytest.raises(ValueError, match="settings i, ii, iii, iv, v, got 'vi'"):
        dm4ct("vi")
    with pytest.raises(ValueError, match=r"multiple of 0\.5"):
        htc2022(30.2)


@pytest.mark.parametrize(("degrees", "views"), [(360, 721), (90, 181), (60, 121), (30, 61)])
def test_htc2022(degrees, views):
    geometry = htc2022(degrees, start_degrees=12).geometry
    assert isinstance(geometry, FanGeometry)
    assert geometry.sinogram_shape == (views, 560)
    assert np.degrees(geometry.angle_array[[0, -1]]) == pytest.approx([12, 12 + degrees])
    assert geometry.pixel_rc[0] == pytest.approx(0.1483223173330444)


@pytest.mark.data
def test_htc2022_is_what_the_files_say(data_root):
    from deft_ct.datasets.htc2022 import read_htc2022

    for path in sorted((data_root / "raw_projections").glob("lpd_t*.mat")):
        scan = read_htc2022(path).geometry
        degrees = np.degrees(scan.angle_array)
        ours = htc2022(round(2 * np.ptp(degrees)) / 2, start_degrees=float(degrees[0])).geometry
        np.testing.assert_allclose(ours.rays().direction, scan.rays().direction, atol=1e-9)
        assert ours.pixel_rc == pytest.approx(scan.pixel_rc)


@pytest.mark.parametrize("views", [8, 16, 32, 64, 128])
def test_genregbench(views):
    geometry = genregbench(views).geometry
    assert geometry.sinogram_shape == (views, 363)
    assert geometry.angles == pytest.approx(np.arange(views) * math.pi / views)
    assert np.degrees(genregbench(views, wedge=True).geometry.angles[-1]) < 150


def test_transmittance_scale():
    y = torch.rand(3, 1, 20, 30, generator=torch.Generator().manual_seed(0))
    y = y * torch.tensor([1.0, 5, 80]).view(3, 1, 1, 1)
    factor = transmittance_scale(y)
    assert factor.shape == (3, 1, 1, 1)
    torch.testing.assert_close((-factor * y).exp().mean((1, 2, 3)), torch.full((3,), 0.5), rtol=1e-5, atol=0)
    torch.testing.assert_close(transmittance_scale(y[1:2]), factor[1:2])
    with pytest.raises(ValueError, match="see nothing"):
        transmittance_scale(torch.zeros(1, 1, 4, 4))
    half = torch.tensor([[[[0.0, 1.0, 2.0, 3.0]]]])
    for mean in (0.26, 0.99):
        assert float((-transmittance_scale(half, mean) * half).exp().mean()) == pytest.approx(mean, abs=1e-5)
    for mean in (0.0, 1.0, 1.5, 0.25, 0.2):
        with pytest.raises(ValueError, match=f"no factor gives a mean transmittance of {mean}"):
            transmittance_scale(half, mean)
    with pytest.raises(ValueError, match="must not be negative"):
        transmittance_scale(half - 0.01)


def test_genregbench_has_square_images():
    geometry = genregbench(32).geometry
    assert geometry.image_shape == (256, 256)
    assert geometry.detectors == 363  # the diagonal, rounded up
