"""Data of scans that differ from what the methods assume."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_pack import write_tiny_pack

from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import CTPack
from deft_ct.evaluation.problem import Problem, prepare
from deft_ct.workflows.experiments.scan_errors import Case, perturbed, true_measurement

VIEWS = 16


@pytest.fixture
def pack(tmp_path):
    return CTPack(write_tiny_pack(tmp_path / "val.h5", count=2))


def _problem(pack: CTPack, photons: float | None) -> Problem:
    return prepare(pack, Scan(views=VIEWS, photons=photons), batch_size=2)


def _changes(changed: Problem, problem: Problem) -> torch.Tensor:
    """Data minus nominal data of all slices, ``(N, 1, views, detectors)``."""
    return torch.cat([a[0] - b[0] for a, b in zip(changed.batches, problem.batches, strict=True)])


def test_without_a_change_the_data_are_those_of_prepare(pack):
    problem = _problem(pack, 1e4)
    same = perturbed(problem, Case(name="as assumed"))
    for (a, told, names), (b, nominal, others) in zip(same.batches, problem.batches, strict=True):
        assert torch.equal(a, b) and told is nominal and names == others


def test_an_offset_of_one_element_shifts_the_sinogram_by_a_column(pack):
    problem = _problem(pack, None)
    shifted = perturbed(problem, Case(name="offset", offset_elements=1.0))
    for (a, told, _), (b, nominal, _) in zip(shifted.batches, problem.batches, strict=True):
        assert told is nominal and float(b.max()) > 1
        torch.testing.assert_close(a[..., :-1], b[..., 1:], atol=1e-4, rtol=0)


@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_the_variance_of_the_noise_goes_with_one_over_the_photons(pack, factor):
    clean, problem = _problem(pack, None), _problem(pack, 1e6)
    changed = perturbed(problem, Case(name="photons", photons=factor))
    ratio = float(_changes(changed, clean).var() / _changes(problem, clean).var())
    assert ratio == pytest.approx(1 / factor, rel=0.15)
    assert all(told.noise.photons == 1e6 for _, told, _ in changed.batches)


def test_what_is_told_is_the_true_scan(pack):
    case = Case(name="told", photons=0.1, start_steps=0.5, told=True)
    for _, told, _ in perturbed(_problem(pack, 1e4), case).batches:
        assert told.noise.photons == pytest.approx(1e3)
        angles = torch.from_numpy(told.operator.geometry.angle_array)
        torch.testing.assert_close(angles, (torch.arange(VIEWS).double() + 0.5) * math.pi / VIEWS)


def test_gain_errors_are_stripes_of_a_few_elements(pack):
    problem = _problem(pack, 1e4)
    added = _changes(perturbed(problem, Case(name="gain", gain=0.05)), problem)
    stripes = added[0, 0, 0]
    torch.testing.assert_close(added, stripes.expand_as(added), atol=1e-5, rtol=0)
    values = stripes[stripes.abs() > 1e-5].sort().values
    expected = torch.tensor([-math.log(1.05)] * 2 + [-math.log(0.95)] * 2)
    torch.testing.assert_close(values, expected, atol=1e-5, rtol=0)


def test_errors_of_the_angles_have_their_standard_deviation():
    nominal = Scan(views=1000, photons=1e4, detectors=9).measurement((8, 8), 1.0)
    true = true_measurement(nominal, Case(name="angles", angle_degrees=0.5), seed=0)
    errors = true.operator.geometry.angle_array - nominal.operator.geometry.angle_array
    assert math.degrees(errors.std()) == pytest.approx(0.5, rel=0.1)
    assert abs(math.degrees(errors.mean())) < 0.05


def test_noise_free_data_have_no_photons_to_change(pack):
    with pytest.raises(ValueError, match="needs a scan with photon noise"):
        perturbed(_problem(pack, None), Case(name="photons", photons=0.1))
