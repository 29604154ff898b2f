"""Simulated scans by name."""

from __future__ import annotations

import pytest

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.ct.scan import Scan
from deft_ct.datasets.phantoms import EllipsePhantom
from deft_ct.methods.presets import nearest_preset
from deft_ct.operators.ct import FanGeometry, ParallelGeometry, fbp


@pytest.mark.parametrize("name", ["parallel60_noisefree", "fan90_noisefree"])
@pytest.mark.parametrize("side", [128, 256, 512])
def test_a_water_disc_of_any_image_size_has_0_hu_at_its_centre(name, side):
    water = HounsfieldScale().mu_water
    disc = EllipsePhantom.disc(230.0, water)
    measurement = Scan.from_name(name).measurement((side, side), 512 / side)
    y = disc.sinogram(measurement.operator.geometry)
    hu = HounsfieldScale().to_hu(fbp(y[None], measurement.operator.geometry))
    middle = hu[0, 0, side // 2 - 3 : side // 2 + 3, side // 2 - 3 : side // 2 + 3]
    assert abs(float(middle.mean())) < 4.0


@pytest.mark.parametrize("kind", [ParallelGeometry, FanGeometry])
@pytest.mark.parametrize("shape", [(256, 256), (512, 512), (300, 400), (31, 64)])
@pytest.mark.parametrize("pixel_mm", [1.0, 0.7, 1.5])
def test_a_detector_that_is_left_out_covers_the_diagonal_of_the_image(kind, shape, pixel_mm):
    made = kind.for_image(shape, pixel_mm, 4)
    edge = made.replace(detectors=made.detectors + 2).rays()
    normal = edge.direction[..., 1] * edge.origin[..., 0] - edge.direction[..., 0] * edge.origin[..., 1]
    assert abs(normal[:, [0, -1]]).min() > made.radius_mm
    assert abs(normal[:, [3, -4]]).max() < made.radius_mm
    again = Scan(views=4, geometry=made.kind).measurement(shape, pixel_mm).operator.geometry
    assert again.detectors == made.detectors


def test_scans_of_256_pixels_keep_their_364_detectors():
    for scan in (Scan(), Scan.from_name("parallel60_1e5_364bins")):
        assert scan.unit_measurement((256, 256), 1.5).operator.geometry.detectors == 364
        assert scan.measurement((256, 256), 0.7031).operator.geometry.detectors == 364
    assert Scan().measurement((512, 512), 0.7).operator.geometry.detectors == 726
    assert Scan(detectors=364).measurement((512, 512), 0.7).operator.geometry.detectors == 364


@pytest.mark.parametrize(
    "name", ["parallel60_1e5", "parallel60_1e5_364bins", "parallel30_1e4_120deg_from45_182bins", "fan60_1e5_99bins"]
)
def test_names_come_back(name):
    scan = Scan.from_name(name)
    assert scan.name == name
    size = {"detectors": scan.detectors} if name.endswith("bins") else {}
    assert {k: v for k, v in scan.to_dict().items() if k == "detectors"} == size


def test_a_scan_with_364_detectors_has_the_preset_of_its_protocol():
    assert nearest_preset("tv", Scan()) == nearest_preset("tv", Scan(detectors=364)) == "parallel60_1e5"


def test_a_fan_has_the_detectors_that_it_was_given():
    assert Scan(geometry="fan", detectors=99).measurement((32, 32), 8.0).operator.geometry.detectors == 99
    with pytest.raises(ValueError, match="at least 1"):
        Scan(detectors=0)
