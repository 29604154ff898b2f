"""Random scans of a family, and their measurements."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import tiny_slices

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.ct.scan import Scan
from deft_ct.ct.scan_range import ScanRange, unit_measurements
from deft_ct.measurement.measurement import Measurement
from deft_ct.measurement.scales import PriorRange
from deft_ct.methods.classical import StoppingRule
from deft_ct.methods.classical.tv import total_variation
from deft_ct.methods.initial import reference_reconstruction
from deft_ct.operators.ct import FanGeometry, fbp
from deft_ct.operators.ct.backprojection import MatrixStore
from deft_ct.operators.ct.tv_hint import ITERATIONS_FAN, ITERATIONS_LIMITED
from deft_ct.operators.noise import NoNoise, PoissonNoise


def test_draws_stay_in_the_range_and_fill_it():
    scans = ScanRange(views=(15, 200), photons=(1e4, 1e6), degrees=(90, 180)).draw(64, seed=3, levels=4)
    assert len(scans) == 256
    views = np.array([scan.views for scan in scans])
    photons = np.array([scan.photons for scan in scans])
    assert views.min() >= 15
    assert views.max() <= 200
    assert abs(np.log(views).mean() - np.log(15 * 200) / 2) < 0.05  # log-uniform
    assert 1e4 <= photons.min() < 1.2e4
    assert 8e5 < photons.max() <= 1e6
    assert abs(np.log10(photons).mean() - 5) < 0.05
    kinds = [scan.geometry for scan in scans[::4]]
    assert 8 <= kinds.count("fan") <= 32
    limited = [scan for scan in scans[::4] if scan.degrees < 180 and scan.geometry == "parallel"]
    assert 8 <= len(limited) <= 40
    assert all(scan.degrees >= 90 for scan in limited)
    arcs = np.array([scan.degrees for scan in scans[::4] if scan.geometry == "fan"])
    assert 5 <= (arcs == 360).sum() <= 22
    assert arcs.min() >= 90
    assert 110 < np.median(arcs[arcs < 360]) < 340


def test_draws_depend_on_the_seed_alone():
    family = ScanRange()
    assert family.draw(8, seed=1, levels=2) == family.draw(8, seed=1, levels=2)
    assert family.draw(8, seed=1) != family.draw(8, seed=2)
    assert all(Scan.from_name(scan.name) == scan for scan in family.draw(20, seed=5))


def test_the_share_of_full_turns_is_as_asked():
    family = ScanRange(fan=1.0, fan_degrees=(200, 300), fan_full=0.25)
    arcs = np.array([scan.degrees for scan in family.draw(400, seed=0)])
    assert (arcs == 360).mean() == pytest.approx(0.25, abs=0.07)
    some = arcs[arcs < 360]
    assert 200 <= some.min() < 203
    assert 297 < some.max() <= 300
    assert some.mean() == pytest.approx(250, abs=5)  # uniform


def test_short_scans_leave_the_parallel_scans_of_a_seed_as_they_were():
    drawn = ScanRange(fan=0.3, fan_full=1.0).draw(32, 0, levels=2)
    names = [scan.name for scan in drawn[:6:2]]
    assert names == ["parallel19_9.57e4", "parallel39_1.36e4_125deg", "parallel120_7.75e4"]
    short = ScanRange(fan=0.3, fan_full=0.0).draw(32, 0, levels=2)
    assert [s for s in short if s.geometry == "parallel"] == [s for s in drawn if s.geometry == "parallel"]


@pytest.mark.parametrize(
    "bad",
    [
        {"views": (0, 5)}, {"photons": (1e5, 1e4)}, {"degrees": (90, 360)}, {"fan": 2.0}, {"fan_degrees": (90, 400)},
        {"fan_full": -0.1},
    ],
)  # fmt: skip
def test_impossible_families_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        ScanRange(**bad)


def test_scans_of_one_geometry_share_an_operator_and_measure_what_single_ones_do():
    scans = [Scan(views=9, photons=1e4, geometry="fan"), Scan(views=9, geometry="fan"), Scan(views=9, detectors=48)]
    scans += [Scan(views=9, geometry="fan", degrees=200)]
    made = unit_measurements(scans, (32, 32), 8.0)
    assert made[0].operator is made[1].operator
    assert made[3].operator is not made[1].operator
    assert [m.noise.photons for m in made] == [1e4, 1e5, 1e5, 1e5]
    for scan, measurement in zip(scans, made, strict=True):
        alone = scan.unit_measurement((32, 32), 8.0)
        assert alone.operator.geometry == measurement.operator.geometry
        x = tiny_slices(1) * 8
        torch.testing.assert_close(measurement.operator(x), alone.operator(x), rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_back_projection_matrices_are_kept_up_to_a_size():
    def matrix(n):
        return torch.eye(n).to_sparse_csr()

    built = []

    def build(n):
        built.append(n)
        return matrix(n)

    store, limit = MatrixStore(), 3 * (100 * 4 + 100 * 8 + 101 * 8)
    for key in (1, 2, 3, 1, 4, 1, 2):
        store.get(key, lambda: build(100), limit=limit)
    assert len(built) == 5  # 1, 2, 3, 4, and 2 again: it was the least recently used when 4 came
    assert len(store) == 3
    store.get("large", lambda: build(1000), limit=limit)
    assert len(store) == 1


def test_filters_of_one_geometry_share_the_matrix(monkeypatch):
    from deft_ct.operators.ct import backprojection

    calls = []
    build = backprojection.backprojection_matrix
    monkeypatch.setattr(backprojection, "_STORE", MatrixStore())
    monkeypatch.setattr(backprojection, "backprojection_matrix", lambda *a: calls.append(a) or build(*a))
    geometry = FanGeometry.for_image((16, 16), 1.0, 7)
    y = torch.rand(1, *geometry.sinogram_shape)
    assert not torch.equal(fbp(y, geometry, "hann"), fbp(y, geometry))
    assert len(calls) == 1


def _tv(noise, degrees=None, geometry="parallel"):
    scan = Scan(views=12, degrees=degrees, detectors=48, geometry=geometry).unit_measurement((32, 32), 8.0)
    measurement = Measurement(scan.operator, noise, units=HounsfieldScale())
    likelihood = measurement.likelihood(measurement.simulate(tiny_slices(1) * 8, seed=1), PriorRange())
    return likelihood, likelihood.to_physical(reference_reconstruction(likelihood, "tv"))


@pytest.mark.parametrize("photons", [1e4, 1e5, 1e6])
def test_the_weight_of_the_reference_follows_the_photons(photons):
    likelihood, got = _tv(PoissonNoise(photons=photons))
    expected, _ = total_variation(
        likelihood.y, likelihood.operator, weights=likelihood.weights,
        stopping=StoppingRule(iterations=16, tolerance=0.0),
        strength=5 / likelihood.to_physical.scale * (photons / 1e5) ** 0.4,
    )  # fmt: skip
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("degrees", "geometry", "iterations"),
    [
        (100.0, "parallel", ITERATIONS_LIMITED), (360.0, "fan", ITERATIONS_FAN),
        (240.0, "fan", ITERATIONS_FAN), (120.0, "fan", ITERATIONS_LIMITED),
    ],
)  # fmt: skip
def test_the_reference_takes_more_iterations_where_they_are_needed(degrees, geometry, iterations):
    likelihood, got = _tv(PoissonNoise(photons=1e5), degrees, geometry)
    expected, _ = total_variation(
        likelihood.y, likelihood.operator, weights=likelihood.weights,
        stopping=StoppingRule(iterations=iterations, tolerance=0.0),
        strength=5 / likelihood.to_physical.scale,
    )  # fmt: skip
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-5)


def test_noise_free_data_count_as_data_of_many_photons():
    likelihood, got = _tv(NoNoise())
    expected, _ = total_variation(
        likelihood.y, likelihood.operator, weights=1e6 * (-likelihood.y).exp(),
        stopping=StoppingRule(iterations=16, tolerance=0.0),
        strength=5 / likelihood.to_physical.scale * 10**0.4,
    )  # fmt: skip
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-5)
