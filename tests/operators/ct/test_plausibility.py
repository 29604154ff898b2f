"""The statistics of the diagnosis against second programs in NumPy, and both sides of each threshold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from smooth_lines import DETECTORS, GEOMETRY, VIEWS, body, transmittances

from deft_ct.operators.ct import ConeGeometry, FanGeometry, ParallelGeometry, RayTransform, diagnosis, fbp
from deft_ct.operators.ct.diagnosis import diagnose_scan
from deft_ct.operators.ct.photons import equivalent_photons
from deft_ct.operators.ct.plausibility import (
    looks_unlogged,
    metal_ratio,
    negative_share,
    noise_ratio,
    saturated_share,
)
from deft_ct.operators.ct.truncation import truncation
from deft_ct.operators.ct.tv_hint import total_variation_hint
from deft_ct.operators.ct.view_order import distinct_views, view_period


def test_the_negative_share() -> None:
    lines = torch.tensor([[[1.0, -1.0], [2.0, -4.0]], [[0.0, 0.0], [0.0, 0.0]], [[-1.0, -2.0], [-3.0, 0.0]]])
    assert negative_share(lines).tolist() == [0.625, 0.0, 1.0]


@pytest.mark.parametrize(("weight", "wrong"), [(2.99, False), (3.01, True)])
def test_three_quarters_may_be_negative(weight: float, wrong: bool) -> None:
    y = body()[:, None].clone()
    y[..., 0::2] *= -weight * float(y[..., 1::2].sum() / y[..., 0::2].sum())
    found = [finding.name for finding in diagnose_scan(y, GEOMETRY).findings]
    assert (found == [diagnosis.WRONG_SIGN]) == wrong
    if wrong:
        text = diagnose_scan(torch.cat([y, body()[:, None]]), GEOMETRY).findings[0].text
        assert text.startswith("75% of the line integrals of 1 of 2 slices, by their sum, are negative")


def test_counts_are_bright_at_both_ends() -> None:
    assert looks_unlogged(transmittances()).tolist() == [True]
    for inside, outside in (
        ({"ends": 0.91}, {"ends": 0.89}),
        ({"shadow": 0.89, "least": 0.89}, {"shadow": 0.91, "least": 0.91}),
        ({"least": -0.049}, {"least": -0.051}),
        ({"top": 1.1}, {"top": 1.12}),
    ):
        assert looks_unlogged(transmittances(**inside)).tolist() == [True]
        assert looks_unlogged(transmittances(**outside)).tolist() == [False]
    for side in (slice(0, 2), slice(-2, None)):
        dark = transmittances()
        dark[..., side] = 0.85
        assert looks_unlogged(dark).tolist() == [False]
        dark[..., side] = torch.tensor([0.86, 0.96], dtype=torch.float64)  # their mean counts
        assert looks_unlogged(dark).tolist() == [True]
    assert looks_unlogged(-transmittances()).tolist() == [False]
    assert looks_unlogged(torch.zeros(3, 10, 20)).tolist() == [False] * 3
    narrow = transmittances()[..., [0, 1, 2, 5, 9, 3, -2, -1]]
    assert looks_unlogged(narrow).tolist() == [True] and looks_unlogged(narrow[..., 1:]).tolist() == [False]


def test_rays_at_exactly_the_largest_value() -> None:
    lines = body(3)
    lines[0, :3, 30:34] = 7.0
    lines[1, :2, 30:34] = 7.0  # too few views
    lines[2] *= 0.9 / lines[2].amax() * 2
    lines[2, :5, 30] = 2.0  # not attenuated enough
    assert saturated_share(lines).tolist() == [12 / (VIEWS * DETECTORS), 0, 0]
    lines[2, :5, 30] = 2.01
    lines[2, 5, 30] = 2.01 * (1 - 0.9e-6)  # rounding
    lines[2, 6, 30] = 2.01 * (1 - 1.2e-6)
    assert saturated_share(lines)[2] == 6 / (VIEWS * DETECTORS)


@pytest.mark.parametrize(("count", "told"), [(16, False), (17, True)])
def test_two_percent_of_the_rays_may_be_starved(count: int, told: bool) -> None:
    y = body()[:, None]
    y[0, 0, torch.arange(count) % VIEWS, 20 + 2 * torch.arange(count)] = 9.0  # one of each element
    found = diagnose_scan(y, GEOMETRY)
    assert found.record["saturated_rays"] == pytest.approx(count / (VIEWS * DETECTORS))
    assert (diagnosis.STARVED in [f.name for f in found.findings]) == told


def _noise_ratio(line: np.ndarray, weights: np.ndarray) -> float:
    ratios, sizes = [], []
    for view, weight in zip(line, weights, strict=True):
        for k in range(1, len(view) - 1):
            if view[k] > 0.05 * line.max():
                residual = abs(view[k] - (view[k - 1] + view[k + 1]) / 2)
                variance = 1 / weight[k] + (1 / weight[k - 1] + 1 / weight[k + 1]) / 4
                ratios.append(residual / variance**0.5)
                sizes.append(residual)
    middle = (len(ratios) - 1) // 2  # torch takes the lower of two in the middle
    if 1.4826 * sorted(sizes)[middle] <= 0.02 * line.max():
        return 1.0
    return 1.4826 * sorted(ratios)[middle]


@pytest.mark.parametrize("noise", [0.005, 0.04, 0.05, 0.3])
def test_the_noise_ratio_is_that_of_a_second_program(noise: float) -> None:
    rng = torch.Generator().manual_seed(0)
    lines = body(2, detectors=130)
    lines = lines + noise * torch.randn(lines.shape, generator=rng, dtype=torch.float64)
    weights = 400 * (0.5 + torch.rand(lines.shape, generator=rng, dtype=torch.float64))
    expected = [_noise_ratio(a, b) for a, b in zip(lines.numpy(), weights.numpy(), strict=True)]
    np.testing.assert_allclose(noise_ratio(lines, weights), expected)
    assert (noise == 0.005) == (expected == [1, 1])
    assert noise_ratio(lines[..., :127], weights[..., :127]).tolist() == [1, 1]
    assert noise_ratio(lines[..., :128], weights[..., :128]).tolist() != [1, 1] or noise == 0.005
    assert noise_ratio(torch.zeros_like(lines), weights).tolist() == [1, 1]


def test_noise_beyond_four_times_the_expected_one_is_named() -> None:
    wide = GEOMETRY.replace(detectors=130)
    y = body(1, detectors=130)[:, None]
    y = y + 0.05 * torch.randn(y.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ratio = float(noise_ratio(y[:, 0], torch.full_like(y[:, 0], 1.0)))
    for wanted, told in ((3.9, False), (4.1, True)):
        found = diagnose_scan(y, wide, torch.full_like(y, (wanted / ratio) ** 2))
        assert found.record["noise_ratio"] == pytest.approx(wanted)
        assert (diagnosis.TOO_NOISY in [f.name for f in found.findings]) == told
    assert diagnose_scan(y, wide).record["noise_ratio"] is None


def test_the_metal_ratio_is_that_of_a_second_program() -> None:
    lines = body(2)
    lines[1, :, 33:36] += 4.0
    image = fbp(lines[:, None], GEOMETRY, filter="hann").clamp_min(0)[:, 0].numpy()
    expected = []
    for slice_ in image:
        means = (slice_[1:, 1:] + slice_[1:, :-1] + slice_[:-1, 1:] + slice_[:-1, :-1]) / 4
        ordered = np.sort(slice_.ravel())
        tissue = ordered[np.searchsorted(np.cumsum(ordered), ordered.sum() / 2)]
        expected.append(means.max() / tissue)
    np.testing.assert_allclose(metal_ratio(lines, GEOMETRY), expected, rtol=1e-9)
    assert metal_ratio(torch.zeros_like(lines), GEOMETRY).tolist() == [0, 0]
    assert metal_ratio(lines[:, :7], GEOMETRY.replace(views=7)).tolist() == [0, 0]
    assert (metal_ratio(lines[:, :8], GEOMETRY.replace(views=8)) > 0).all()
    assert metal_ratio(lines, GEOMETRY.replace(image_shape=(15, 16))).tolist() == [0, 0]


def _truncation(lines: np.ndarray) -> tuple[float, float]:
    worst = (-1.0, 0.0)
    for line in lines:
        found, level = np.zeros(len(line), bool), 0.0
        for edge in (line[:, :3], line[:, :-4:-1]):
            second = (edge[:, 0] - 2 * edge[:, 1] + edge[:, 2]) / np.sqrt(6)
            middle = np.sort(second)[(len(second) - 1) // 2]
            error = 1.4826 * np.sort(np.abs(second - middle))[(len(second) - 1) // 2] / np.sqrt(2)
            reading = (edge[:, 0] + edge[:, 1]) / 2
            beyond = reading > 0.05 * line.max() + 5 * error
            found |= beyond
            level = max(level, *(reading * beyond / line.max()))
        if found.mean() > worst[0]:
            worst = (found.mean(), level)
    return worst


@pytest.mark.parametrize("noise", [0.0, 0.002, 0.02])
def test_truncation_is_that_of_a_second_program(noise: float) -> None:
    rng = torch.Generator().manual_seed(0)
    lines = body(3)
    lines[0, :4, :3] += torch.tensor([0.3, 0.2, 0.15])
    lines[1, 2:9, -3:] += torch.tensor([0.1, 0.3, 0.35])
    lines[1, 7:11, :3] += 0.12
    lines[2, 1, -3:] += 1.0
    lines = lines + noise * torch.randn(lines.shape, generator=rng, dtype=torch.float64)
    found = truncation(lines[:, None], GEOMETRY)
    assert found is not None and (found.views, found.level) == pytest.approx(_truncation(lines.numpy()))
    alone = [truncation(line[None], GEOMETRY) for line in lines]
    for line, one in zip(lines, alone, strict=True):
        assert one is not None and (one.views, one.level) == pytest.approx(_truncation(line[None].numpy()))
    assert max(one.views for one in alone if one) == found.views


def test_an_edge_may_read_five_percent() -> None:
    geometry = GEOMETRY.replace(detectors=8)
    for share, seen in ((0.049, 0.0), (0.051, 1.0)):
        lines = torch.ones(1, VIEWS, 8, dtype=torch.float64)
        lines[..., [0, 1, 2, -3, -2, -1]] = 0.0
        lines[..., -2:] = share
        lines[..., -3] = share
        found = truncation(lines, geometry)
        assert found is not None and found.views == seen
    assert truncation(lines[..., :7], geometry.replace(detectors=7)) is None
    assert truncation(lines[:0], geometry) is None
    with pytest.raises(ValueError, match=r"the sinogram must end in \(12, 8\), got shape \(1, 12, 7\)"):
        truncation(lines[..., :7], geometry)


@pytest.mark.parametrize(("views", "told"), [(1, False), (2, True)])
def test_one_view_of_twenty_may_be_truncated(views: int, told: bool) -> None:
    y = body(views=20)[:, None]
    y = y + 1e-3 * torch.rand(y.shape, generator=torch.Generator().manual_seed(0))
    y[:, :, :views, -4:] += 0.4
    found = diagnose_scan(y, GEOMETRY.replace(views=20))
    assert found.record["truncated_views"] == pytest.approx(views / 20)
    assert ([f.name for f in found.findings] == [diagnosis.TRUNCATED]) == told
    if told:
        assert "in 10% of the views the edge of the detector reads up to" in found.findings[0].text
        assert "cover the image" not in found.findings[0].text  # the detector is wide enough for the image


def test_equivalent_photons_are_a_geometric_mean() -> None:
    y = torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]], dtype=torch.float64)
    weights = torch.tensor([[1e4, 1e5 / math.e, 1e6 * math.e**-2], [0.0, 100.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(equivalent_photons(y, weights), torch.tensor([1e5, 100 * math.e], dtype=torch.float64))
    assert equivalent_photons(y, None).tolist() == [1e6, 1e6]
    assert equivalent_photons(y[:1], torch.zeros(1, 3)).tolist() == [1.0]


def test_the_hint_of_total_variation() -> None:
    y = torch.zeros(4, 1, VIEWS, DETECTORS)
    weights = torch.tensor([1e2, 1e4, 1e5, 1e8]).reshape(4, 1, 1, 1).expand_as(y)
    hint = total_variation_hint(GEOMETRY, y, weights)
    np.testing.assert_allclose(hint.strength, [0.01**0.4, 0.1**0.4, 1, 100**0.4], rtol=1e-5)
    assert hint.least_iterations == 1
    np.testing.assert_allclose(total_variation_hint(GEOMETRY, y, None).strength, [10**0.4] * 4, rtol=1e-5)
    for share, least in ((0.985, 1), (0.975, 100)):
        limited = GEOMETRY.replace(angular_range=share * math.pi)
        assert total_variation_hint(limited, y, None).least_iterations == least
    fan = FanGeometry.for_image((16, 16), 1.0, 30)
    assert total_variation_hint(fan, y, None).least_iterations == 40
    assert total_variation_hint(fan.replace(angular_range=2.0), y, None).least_iterations == 100
    assert total_variation_hint(ConeGeometry.for_image((8, 8, 8), 1.0, 10), y, None).least_iterations == 40


def test_views_repeat_after_half_a_turn_of_a_centred_detector() -> None:
    assert view_period(GEOMETRY) == math.pi
    for offset, period in ((0.009, math.pi), (-0.009, math.pi), (0.011, 2 * math.pi), (-0.011, 2 * math.pi)):
        assert view_period(GEOMETRY.replace(detector_offset_mm=offset)) == period
        assert view_period(GEOMETRY.replace(axis_offset_mm=offset)) == period
    assert view_period(FanGeometry.for_image((16, 16), 1.0, 30)) == 2 * math.pi
    angles = np.radians([0, 10, 10, 190, 350, 170])
    assert distinct_views(GEOMETRY.replace(angles=angles, views=None)) == 3
    assert distinct_views(GEOMETRY.replace(angles=angles, views=None, detector_offset_mm=1.0)) == 5
    assert distinct_views(GEOMETRY.replace(angles=np.zeros(3), views=None)) == 1


@pytest.mark.parametrize(
    ("geometry", "iterations"),
    [
        (ParallelGeometry.for_image((8, 8), 1.0, 10), 1), (FanGeometry.for_image((8, 8), 1.0, 10), 40),
        (ParallelGeometry.for_image((8, 8), 1.0, 10).replace(views=10, angular_range=math.radians(120)), 100),
        (ConeGeometry.for_image((4, 8, 8), 1.0, 10), 40),
    ],
    ids=["parallel", "fan", "limited", "cone"],
)  # fmt: skip
def test_strength_and_iterations_of_a_quick_reconstruction(geometry: Any, iterations: int) -> None:
    """A power of 0.4 of the photons over 1e5, within 1e3 to 1e7 of them."""
    operator = RayTransform(geometry)
    y = torch.rand(3, 1, *geometry.sinogram_shape, generator=torch.Generator().manual_seed(0))
    photons = torch.tensor([1e2, 1e4, 1e8]).reshape(3, *(1,) * (y.ndim - 1))
    hint = operator.regularisation_hint(y, photons * torch.exp(-y))
    assert hint.least_iterations == iterations
    np.testing.assert_allclose(hint.strength, [0.01**0.4, 0.1**0.4, 100**0.4], rtol=1e-4)
    np.testing.assert_allclose(operator.regularisation_hint(y, None).strength, [10**0.4] * 3, rtol=1e-5)


def test_photons_that_noise_is_equivalent_to() -> None:
    """The geometric mean over the rays that are seen at all."""
    y = torch.rand(2, 1, 4, 5, generator=torch.Generator().manual_seed(1))
    weights = 1e4 * torch.exp(-y) * torch.exp(torch.randn(y.shape, generator=torch.Generator().manual_seed(2)))
    weights[0, 0, 1] = 0
    logs = np.log(weights.numpy().astype(float), where=weights.numpy() > 0, out=np.zeros(y.shape)) + y.numpy()
    expected = [np.exp(logs[i][weights[i].numpy() > 0].mean()) for i in range(2)]
    np.testing.assert_allclose(equivalent_photons(y, weights), expected, rtol=1e-6)
    assert equivalent_photons(y, torch.zeros_like(y)).tolist() == [1.0, 1.0]
    assert equivalent_photons(y, None).tolist() == [1e6, 1e6]


@pytest.mark.parametrize(
    ("name", "least"), [("metal_ratio", 6.0), ("noise_ratio", 4.0), ("saturated_share", 0.02)]
)  # fmt: skip
def test_both_sides_of_each_ratio(monkeypatch: pytest.MonkeyPatch, name: str, least: float) -> None:
    y = body()[:, None]
    weights = torch.ones_like(y)
    sound = diagnose_scan(y, GEOMETRY, weights).findings
    counts = []
    for factor in (0.99, 1.01):
        monkeypatch.setattr(
            diagnosis.plausibility, name, lambda lines, *_, f=factor: torch.full((len(lines),), f * least)
        )
        counts.append(len(diagnose_scan(y, GEOMETRY, weights).findings))
    assert counts == [len(sound), len(sound) + 1]
