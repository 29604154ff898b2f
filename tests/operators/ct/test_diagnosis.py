"""Each fault of the data is found before the reconstruction, by name; clean data are not warned of."""

from __future__ import annotations

import warnings

import pytest
import torch

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.datasets.phantoms import Ellipse, EllipsePhantom
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.registry import load_reconstructor
from deft_ct.operators.ct import FanGeometry, ParallelGeometry, RayTransform, diagnosis
from deft_ct.operators.findings import DataWarning
from deft_ct.operators.noise import PoissonNoise

SHAPE, PIXEL, PHOTONS = (256, 256), 1.5, 1e5
GEOMETRIES = {
    "parallel": ParallelGeometry.for_image(SHAPE, PIXEL, 60), "fan": FanGeometry.for_image(SHAPE, PIXEL, 60),
}  # fmt: skip
BODY = Ellipse(value=0.02, center_mm=(10.0, -5.0), half_axes_mm=(160.0, 110.0))
RIB = Ellipse(value=0.02, center_mm=(60.0, 20.0), half_axes_mm=(15.0, 10.0))
PIN = Ellipse(value=0.3, center_mm=(-50.0, 10.0), half_axes_mm=(5.0, 5.0))
BAD = 150


def measured(kind: str, *more: Ellipse, photons: float = PHOTONS) -> tuple[torch.Tensor, Measurement]:
    geometry = GEOMETRIES[kind]
    clean = EllipsePhantom((BODY, RIB, *more)).sinogram(geometry)[None]
    y = PoissonNoise(photons=photons).sample(clean, [torch.Generator().manual_seed(0)]).float()
    return y, Measurement(RayTransform(geometry), PoissonNoise(photons=PHOTONS), units=HounsfieldScale())


def names(y: torch.Tensor, measurement: Measurement) -> list[str]:
    return [finding.name for finding in measurement.diagnose(y).findings]


KINDS = pytest.mark.parametrize("kind", GEOMETRIES)


@KINDS
@pytest.mark.parametrize("photons", [1e4, 1e5, 1e6])
def test_clean_data_have_no_findings(kind, photons):
    y, measurement = measured(kind, photons=photons)
    told = Measurement(measurement.operator, PoissonNoise(photons=photons), units=measurement.units)
    found = told.diagnose(y)
    assert found.findings == () and found.repaired is None


@KINDS
@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("value", [0.0, 13.8, 2.5])
def test_a_dead_element_is_bridged(kind, value, width):
    y, measurement = measured(kind)
    broken = y.clone()
    broken[..., BAD : BAD + width] = value
    found = measurement.diagnose(broken)
    assert [(finding.name, finding.repaired) for finding in found.findings] == [(diagnosis.DEAD, True)]
    assert found.record["bad_elements"] == {diagnosis.DEAD: list(range(BAD, BAD + width))}
    good = torch.ones(y.shape[-1], dtype=torch.bool)
    good[BAD : BAD + width] = False
    assert torch.equal(found.repaired[..., good], y[..., good])
    assert float((found.repaired - y).abs().max()) < 0.5


@KINDS
def test_noisy_and_offset_elements_are_bridged(kind):
    y, measurement = measured(kind)
    broken = y.clone()
    broken[..., BAD] += torch.randn(y.shape[-2], generator=torch.Generator().manual_seed(1))
    assert names(broken, measurement) == [diagnosis.NOISY]
    hot = y.clone()
    hot[..., BAD] += 1.0
    assert names(hot, measurement) == [diagnosis.OFFSET]
    assert float((measurement.diagnose(hot).repaired - y).abs().max()) < 0.5


def test_too_many_dead_elements_are_left_and_said():
    y, measurement = measured("parallel")
    y[..., BAD : BAD + 12] = 0.0
    found = measurement.diagnose(y)
    assert found.repaired is None and [f.repaired for f in found.findings if f.name == diagnosis.DEAD] == [False]


def test_a_slice_is_judged_by_itself():
    y, measurement = measured("parallel")
    broken = y.clone()
    broken[..., BAD] = 0.0
    found = measurement.diagnose(torch.cat([y, broken]))
    assert torch.equal(found.repaired[:1], y)
    assert "of 1 of 2 slices" in found.findings[0].text


@KINDS
def test_what_cannot_be_line_integrals_is_named(kind):
    y, measurement = measured(kind)
    assert names(-y, measurement) == [diagnosis.WRONG_SIGN]
    assert names((-y).exp(), measurement) == [diagnosis.NOT_LOGGED]
    assert names((PHOTONS * (-y).exp()).round(), measurement) == [diagnosis.NOT_LOGGED]


@KINDS
def test_starvation_is_named(kind):
    assert diagnosis.STARVED in names(*measured(kind, photons=20.0))
    assert diagnosis.TOO_NOISY in names(*measured(kind, photons=300.0))


@KINDS
def test_metal_is_named_and_bone_is_not(kind):
    assert names(*measured(kind, PIN)) == [diagnosis.METAL]


def test_a_repair_is_said_recorded_and_used():
    y, measurement = measured("parallel")
    fbp = load_reconstructor("fbp")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clean = fbp.reconstruct(y, measurement)
    assert clean.provenance["warnings"] == []
    broken = y.clone()
    broken[..., BAD] = 0.0
    with pytest.warns(DataWarning, match=f"^dead detector elements: elements {BAD} .*repaired"):
        repaired = fbp.reconstruct(broken, measurement)
    (said,) = repaired.provenance["warnings"]
    assert said["name"] == diagnosis.DEAD and said["repaired"]
    change = (repaired.in_units.mean - clean.in_units.mean).square().mean().sqrt()
    assert float(change) < 20.0


def test_an_image_that_does_not_explain_its_data_is_named():
    y, measurement = measured("parallel")
    with pytest.warns(DataWarning) as caught:
        result = load_reconstructor("tv", iterations=5).reconstruct(-y, measurement)
    assert [str(w.message).partition(":")[0] for w in caught] == [diagnosis.WRONG_SIGN, "data not explained"]
    assert [said["name"] for said in result.provenance["warnings"]] == [diagnosis.WRONG_SIGN, "data not explained"]
