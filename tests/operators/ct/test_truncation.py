"""Views that the detector does not cover."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.datasets.phantoms import Ellipse, EllipsePhantom
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.registry import load_reconstructor
from deft_ct.operators.ct import ConeGeometry, FanGeometry, ParallelGeometry, RayTransform
from deft_ct.operators.ct.diagnosis import TRUNCATED_VIEWS
from deft_ct.operators.ct.truncation import truncation
from deft_ct.operators.noise import NoNoise, PoissonNoise

SHAPE, PIXEL = (256, 256), 1.5
PARALLEL = ParallelGeometry.for_image(SHAPE, PIXEL, 60)
FAN = FanGeometry.for_image(SHAPE, PIXEL, 60)
BOTH = pytest.mark.parametrize("geometry", [PARALLEL, FAN], ids=["parallel", "fan"])
BODY = EllipsePhantom((Ellipse(value=0.02, center_mm=(10.0, -5.0), half_axes_mm=(180.0, 120.0)),))


def measured(geometry, photons=None, phantom=BODY, seed=0):
    """``(1, 1, views, detectors)`` line integrals, and their measurement."""
    noise = NoNoise() if photons is None else PoissonNoise(photons=photons)
    measurement = Measurement(RayTransform(geometry), noise, units=HounsfieldScale())
    clean = phantom.sinogram(geometry)[None]
    return noise.sample(clean, [torch.Generator().manual_seed(seed)]).float(), measurement


@BOTH
@pytest.mark.parametrize("photons", [None, 1e6, 1e5, 1e4, 3e3])
def test_an_object_within_the_field_is_not_truncated(geometry, photons):
    for seed in range(5):
        y, measurement = measured(geometry, photons, seed=seed)
        found = measurement.diagnose(y)
        assert found.record["truncated_views"] == 0.0
        assert not [text for text in found.warnings if "wider than the detector" in text]


@BOTH
@pytest.mark.parametrize("photons", [None, 1e5, 3e3])
def test_a_narrow_detector_is_warned_of_once_and_recorded(geometry, photons):
    y, measurement = measured(geometry.replace(detectors=geometry.detectors // 2), photons)
    with pytest.warns(UserWarning, match=rf"wider than the detector: in \d+% .*\({geometry.detectors} cover") as seen:
        result = load_reconstructor("fbp").reconstruct(y, measurement)
    assert len(seen) == 1
    assert result.provenance["truncated_views"] > 0.6


@pytest.mark.parametrize("photons", [None, 1e5, 1e4])
def test_the_share_of_views_is_the_one_of_the_geometry(photons):
    """An ellipse passes the edge in the views that see it broadside."""
    flat = EllipsePhantom((Ellipse(value=0.02, center_mm=(0.0, 0.0), half_axes_mm=(180.0, 90.0)),))
    geometry = ParallelGeometry(image_shape=SHAPE, pixel_mm=PIXEL, views=180, detectors=180, detector_mm=PIXEL)
    y, _ = measured(geometry, photons, flat)
    half = 0.5 * 180 * PIXEL
    broad = [math.hypot(180 * math.cos(b), 90 * math.sin(b)) > half for b in geometry.angle_array]
    found = truncation(y, geometry)
    assert found.views == pytest.approx(sum(broad) / 180, abs=0.06)
    assert 0.2 < found.level < 0.9


def test_one_side_is_enough():
    y, _ = measured(PARALLEL.replace(detectors=300, detector_offset_mm=90.0))
    assert truncation(y, PARALLEL.replace(detectors=300)).views > 0.6


def test_the_worst_slice_of_a_batch_counts():
    narrow = PARALLEL.replace(detectors=200)
    inside, _ = measured(narrow, phantom=EllipsePhantom.disc(60.0, 0.02))
    outside, _ = measured(narrow)
    batch = torch.cat([inside, outside, inside])
    assert truncation(batch, narrow) == truncation(outside, narrow)
    assert truncation(inside, narrow).views == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_noise_alone_and_no_object_are_not_truncated(seed):
    noise = torch.randn(2, 1, *PARALLEL.sinogram_shape, generator=torch.Generator().manual_seed(seed))
    assert truncation(noise, PARALLEL).views <= TRUNCATED_VIEWS
    assert truncation(torch.zeros_like(noise), PARALLEL).views == 0.0


def test_air_that_reads_a_little_is_not_an_object():
    y, measurement = measured(PARALLEL, 1e5)
    assert measurement.diagnose(y + 0.1).record["truncated_views"] == 0.0


def test_a_full_square_image_is_not_truncated():
    for side in (16, 64, 256):
        for kind in (ParallelGeometry, FanGeometry):
            operator = RayTransform(kind.for_image((side, side), 1.0, 90))
            y = operator(torch.full((1, 1, side, side), 0.02))
            assert truncation(y, operator.geometry).views <= TRUNCATED_VIEWS


def test_cone_beams_are_looked_at_sideways():
    geometry = ConeGeometry.for_image((32, 32, 32), 4.0, 16)
    operator = RayTransform(geometry)
    rod = torch.zeros(1, *operator.domain_shape)
    rod[..., 12:20, 12:20] = 0.02  # along the axis: it leaves the detector at the top and at the bottom only
    assert truncation(operator(rod), geometry).views == 0.0
    narrow = geometry.replace(detectors=(geometry.detectors[0], 12))
    wide = torch.full_like(rod, 0.02)
    found = RayTransform(narrow).diagnose(RayTransform(narrow)(wide))
    assert found.record["truncated_views"] == 1.0
    assert "use more detector elements" in found.warnings[0]


def test_few_elements_do_not_tell_and_other_shapes_are_refused():
    few = PARALLEL.replace(detectors=7)
    assert truncation(torch.ones(1, 1, *few.sinogram_shape), few) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert RayTransform(few).diagnose(torch.ones(1, 1, *few.sinogram_shape)).record["truncated_views"] is None
    with pytest.raises(ValueError, match="must end in"):
        truncation(torch.ones(1, 1, 3, 3), PARALLEL)
