"""Faults of detector elements: told apart, bridged, and named."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from smooth_lines import DETECTORS, GEOMETRY, VIEWS, body, transmittances

from deft_ct.datasets.ellipsoids import EllipsoidPhantom
from deft_ct.operators.ct import ConeGeometry, ParallelGeometry, RayTransform, diagnosis
from deft_ct.operators.ct import bad_elements as bad
from deft_ct.operators.ct.bad_elements import _NEIGHBOURS, _around, bad_elements
from deft_ct.operators.ct.diagnosis import detector_lines, diagnose_scan
from deft_ct.operators.ct.plausibility import (
    looks_unlogged,
    metal_ratio,
    noise_ratio,
)
from deft_ct.operators.ct.truncation import truncation
from deft_ct.operators.noise import PoissonNoise


def faulty(element: int, kind: str, size: float, width: int = 1) -> torch.Tensor:
    """One line with a fault of a size in parts of its scale, which is 2 / 1.4 here."""
    lines = body()
    noise = torch.randn(VIEWS, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    where = slice(element, element + width)
    if kind == "dead":
        lines[0, :, where] = size
    elif kind == "noisy":
        lines[0, :, where] += size * noise
    else:
        lines[0, :, where] += size
    return lines


@pytest.mark.parametrize("element", [10, 20, 35, 60])
def test_faults_are_told_apart(element: int) -> None:
    for kind, size in (("dead", 5.0), ("noisy", 1.0), ("offset", 0.6), ("offset", -0.6)):
        found = bad_elements(faulty(element, kind, size))
        masks = {"dead": found.dead, "noisy": found.noisy, "offset": found.offset}
        hits = {name: mask[0].nonzero()[:, 0].tolist() for name, mask in masks.items()}
        assert hits == {name: [element] if name == kind else [] for name in masks}, (kind, size)
        assert found.any[0].nonzero()[:, 0].tolist() == [element] and found.repaired.tolist() == [True]
        between = 0.5 * (body()[0, :, element - 1] + body()[0, :, element + 1])
        torch.testing.assert_close(found.data[0, :, element], between)
        kept = torch.arange(DETECTORS) != element
        assert torch.equal(found.data[..., kept], body()[..., kept])


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_faults_do_not_depend_on_the_unit(scale: float) -> None:
    """Of each fault a size that is just found and one that is not, in parts of the largest line integral."""
    for kind, sizes in (
        ("dead", (1.7, 1.95, 5.0)), ("noisy", (0.05, 0.1, 0.2, 1.0)), ("offset", (0.04, 0.08, 0.16, 0.6)),
    ):  # fmt: skip
        seen = []
        for size in sizes:
            one = bad_elements(faulty(35, kind, size))
            other = bad_elements(scale * faulty(35, kind, size))
            for name in ("dead", "noisy", "offset", "repaired"):
                assert torch.equal(getattr(one, name), getattr(other, name)), (kind, size, name)
            torch.testing.assert_close(other.data, scale * one.data)
            seen.append(bool(one.any.any()))
        assert seen[-1] and (kind == "dead" or not seen[0]), (kind, seen)
    ends = faulty(35, "dead", 5.0)
    ends[..., 0] = 0.5
    assert torch.equal(bad_elements(scale * ends).dead, bad_elements(ends).dead)
    wide = body(2, detectors=140)
    weights = torch.ones_like(wide)
    torch.testing.assert_close(noise_ratio(scale * wide, weights / scale**2), noise_ratio(wide, weights))
    torch.testing.assert_close(metal_ratio(scale * body(2), GEOMETRY), metal_ratio(body(2), GEOMETRY))
    assert torch.equal(looks_unlogged(scale * transmittances()), looks_unlogged(transmittances()))
    cut = body(2)
    cut[0, :4, :3] += 0.3
    found, same = truncation(cut, GEOMETRY), truncation(scale * cut, GEOMETRY)
    assert found is not None and same is not None and found.views == same.views > 0
    assert found.level == pytest.approx(same.level)


@pytest.mark.parametrize(("width", "repaired"), [(2, True), (3, True), (4, False)])
def test_gaps_are_bridged_by_a_straight_line(width: int, repaired: bool) -> None:
    """Three of 70 elements are less than 5 %, four are more."""
    found = bad_elements(faulty(30, "dead", 7.0, width))
    assert found.dead[0].nonzero()[:, 0].tolist() == list(range(30, 30 + width))
    assert found.repaired.tolist() == [repaired]
    low, high = body()[0, :, 29], body()[0, :, 30 + width]
    if not repaired:
        torch.testing.assert_close(found.data, faulty(30, "dead", 7.0, width))
        return
    for step in range(1, width + 1):
        expected = low + (high - low) * step / (width + 1)
        torch.testing.assert_close(found.data[0, :, 29 + step], expected)


@pytest.mark.parametrize(("width", "repaired"), [(4, True), (5, False)])
def test_four_elements_side_by_side_are_repaired(width: int, repaired: bool) -> None:
    lines = body(detectors=140)
    lines[..., 60 : 60 + width] = 7.0
    found = bad_elements(lines)
    assert found.dead[0].nonzero()[:, 0].tolist() == list(range(60, 60 + width))
    assert found.repaired.tolist() == [repaired]


def test_small_scans_and_sound_lines_are_left_alone() -> None:
    lines = torch.cat([faulty(30, "dead", 7.0), body()])
    assert bad_elements(lines).repaired.tolist() == [True, False]
    assert bad_elements(lines[:, :8]).repaired.tolist() == [True, False]
    assert bad_elements(lines[..., :64]).repaired.tolist() == [True, False]
    for small in (lines[:, :7], lines[..., :63]):
        found = bad_elements(small)
        assert found.data is small and not found.any.any() and found.repaired.tolist() == [False, False]
    assert not bad_elements(torch.ones(2, VIEWS, DETECTORS)).any.any(), "a line of one constant is no fault of elements"
    assert bad_elements(lines[:0]).data.shape == (0, VIEWS, DETECTORS)


def wire(views: int, order: torch.Tensor) -> tuple[ParallelGeometry, torch.Tensor]:
    """A thin dense rod near the axis in a disc, and its noise-free data: it dwells on few elements for many views."""
    place = (torch.arange(64) - 31.5) / 64
    disc = (place[:, None] ** 2 + place**2 <= 0.16).double()
    disc[33:36, 31:34] += 3.0
    angles = (math.pi * torch.arange(views) / views)[order]
    geometry = ParallelGeometry(
        image_shape=(64, 64), pixel_mm=4.0, angles=angles.numpy(), detectors=92, detector_mm=4.0
    )  # fmt: skip
    return geometry, RayTransform(geometry)(disc.float()[None, None] * 0.004)


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_rod_that_passes_by_is_not_noise(shuffled: bool) -> None:
    """Noise differs from view to view, whatever order the views came in; then a noisy element is still found."""
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0)) if shuffled else torch.arange(60)
    geometry, y = wire(60, order)
    assert diagnosis.NOISY not in {finding.name for finding in diagnose_scan(y, geometry).findings}
    noise = torch.randn(60, generator=torch.Generator().manual_seed(1))
    y[0, 0, :, 20] += 0.5 * y.max() * noise
    found = diagnose_scan(y, geometry)
    assert found.record["bad_elements"] == {diagnosis.NOISY: [20]}
    assert found.repaired is not None and torch.equal(found.repaired[..., 44:50], y[..., 44:50])


@pytest.mark.parametrize(("views", "size", "voxel"), [(24, 64, 1.8), (24, 48, 4.0), (36, 64, 1.8)])
def test_edges_that_move_fast_through_a_panel_are_no_fault(views: int, size: int, voxel: float) -> None:
    """The thin shell of a phantom moves by an element or more a view; noise in one element is still found."""
    geometry = ConeGeometry.for_image((size,) * 3, (voxel,) * 3, views=views)
    y = EllipsoidPhantom.head(0.85 * voxel * size).line_integrals(geometry.rays()).float()[None, None]
    noisy = PoissonNoise(photons=5e3).sample(y, [torch.Generator().manual_seed(0)])
    assert bad_elements(detector_lines(noisy, geometry), None).noisy.any(), "the rows beside have to tell"
    for data in (y, noisy):
        assert diagnose_scan(data, geometry).findings == ()
    noise = torch.randn(2, views, generator=torch.Generator().manual_seed(1))
    rows, columns = geometry.detectors
    noisy[0, 0, :, rows // 2, columns // 3] += 0.5 * y.max() * noise[0]
    found = diagnose_scan(noisy, geometry)
    assert [finding.name for finding in found.findings] == [diagnosis.NOISY]
    assert found.record["bad_elements"] == {diagnosis.NOISY: [columns // 3]}


def test_a_noisy_column_of_a_panel_is_found() -> None:
    """Its elements lie beside each other, and their noise has nothing in common."""
    panel = ConeGeometry.for_image((8, 8, 8), 1.0, 60).replace(detectors=(5, DETECTORS))
    y = body(5, views=60).reshape(1, 1, 5, 60, DETECTORS).movedim(2, 3).contiguous()
    noise = torch.randn(60, 5, generator=torch.Generator().manual_seed(0), dtype=y.dtype)
    y[0, 0, :, :, 30] += noise
    assert diagnose_scan(y, panel).record["bad_elements"] == {diagnosis.NOISY: [30]}
    y[0, 0, :, :, 30] += noise[:, :1] - noise  # one signal in all rows is of the object
    assert diagnosis.NOISY not in diagnose_scan(y, panel).record["bad_elements"]


def test_dead_elements_at_the_ends() -> None:
    """Air reads zero there; another constant is a fault, and so is a zero beside rays through an object."""
    lines = body()
    lines[..., :5] = 0.01 * torch.randn(VIEWS, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    lines[..., 0] = 0.0
    assert not bad_elements(lines).dead.any()
    lines[..., 0] = 0.5
    assert bad_elements(lines).dead[0].nonzero().tolist() == [[0]]
    found = bad_elements(lines)
    torch.testing.assert_close(found.data[..., 0], lines[..., 1])
    cut = body(detectors=100)[..., 20:]
    cut[..., 0] = 0.0
    assert bad_elements(cut).dead[0].nonzero().tolist() == [[0]]
    assert bad_elements(cut.flip(-1)).dead[0].nonzero().tolist() == [[79]]
    for count in (4, 5):
        cut[..., :count] = 0.0
        for line in (cut, cut.flip(-1)):
            assert int(bad_elements(line).dead.sum()) == (4 if count == 4 else 0)


def test_elements_are_listed_up_to_eight() -> None:
    wide = GEOMETRY.replace(detectors=400)
    for count, listed in ((8, "10, 20, 30, 40, 50, 60, 70, 80 read"), (9, "10, 20, 30, 40, 50, 60, 70, 80, ... read")):
        y = body(detectors=400)[:, None]
        y[..., 10 : 10 * count + 1 : 10] = 7.0
        (finding,) = diagnose_scan(y, wide).findings
        assert finding.name == diagnosis.DEAD and f"elements {listed} one constant in all views" in finding.text
        assert finding.repaired and finding.text.endswith("repaired by interpolation between their neighbours")
    assert diagnose_scan(y, wide).record["bad_elements"] == {diagnosis.DEAD: list(range(10, 91, 10))}


# --- the rest of the diagnosis ----------------------------------------------------------------------------------------


def test_rows_of_a_panel_are_lines() -> None:
    panel = ConeGeometry.for_image((8, 8, 8), 1.0, 10)
    views, rows, columns = panel.sinogram_shape
    y = torch.arange(2.0 * views * rows * columns).reshape(2, 1, views, rows, columns)
    lines = detector_lines(y, panel)
    assert lines.shape == (2 * rows, views, columns)
    for n in range(2 * rows):
        assert torch.equal(lines[n], y[n // rows, 0, :, n % rows])
    flat = torch.arange(3.0 * VIEWS * DETECTORS).reshape(3, 1, VIEWS, DETECTORS)
    assert torch.equal(detector_lines(flat, GEOMETRY), flat[:, 0])


def test_a_repaired_panel_has_its_shape() -> None:
    panel = ConeGeometry.for_image((8, 8, 8), 1.0, 12).replace(detectors=(3, DETECTORS))
    y = body(6).reshape(2, 3, VIEWS, DETECTORS).movedim(1, 2)[:, None].contiguous()
    broken = y.clone()
    broken[1, 0, :, 2, 30] = 7.0
    found = diagnose_scan(broken, panel)
    assert found.repaired is not None and found.repaired.shape == y.shape
    changed = (found.repaired != broken).nonzero()[:, [0, 1, 3, 4]].unique(dim=0).tolist()
    assert changed == [[1, 0, 2, 30]]
    torch.testing.assert_close(found.repaired[1, 0, :, 2, 30], 0.5 * (y[1, 0, :, 2, 29] + y[1, 0, :, 2, 31]))
    assert "of 1 of 6 slices" in found.findings[0].text


@pytest.mark.parametrize("count", [5, 9, 40])
def test_the_neighbours_of_an_element_are_those_beyond_the_next_one(count: int) -> None:
    values = torch.rand(2, count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    width = min(_NEIGHBOURS, count - 1)
    padded = np.pad(values.numpy(), ((0, 0), (width, width)), mode="edge")
    for n in range(count):
        window = np.concatenate([padded[:, n : n + width - 1], padded[:, n + width + 2 : n + 2 * width + 1]], 1)
        middle = np.sort(window, 1)[:, (window.shape[1] - 1) // 2]
        np.testing.assert_array_equal(_around(values)[:, n], middle)


@pytest.mark.parametrize("ends", [1, 2])
def test_an_end_beside_the_only_element_that_varies_is_not_dead(ends: int) -> None:
    """Air reads zero at both ends; one element between them says nothing of that."""
    line = torch.zeros(12, 2 * ends + 1)
    line[:, ends] = torch.linspace(1, 2, 12)
    constant = torch.ones(2 * ends + 1, dtype=torch.bool)
    constant[ends] = False
    found = bad._dead(line, constant, 1.0).tolist()
    assert found[0] is False and found[-1] is False and not found[ends]
    assert all(found[1:ends]) and all(found[ends + 1 : -1])


def test_the_scale_is_a_high_reading_of_the_elements_that_vary() -> None:
    """The reading that nine of ten views do not exceed; of the elements that vary, all but two of a hundred."""
    lines = torch.rand(2, 20, 100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    lines[0, :, 10:30] = 5.0
    span = torch.full((2, 100), 1.0, dtype=torch.float64)
    span[0, 10:30] = 0
    high = np.sort(abs(lines.numpy()), 1)[:, 17]
    expected = [np.sort(np.delete(high[0], np.s_[10:30]))[77], np.sort(high[1])[97]]
    np.testing.assert_array_equal(bad._scale(lines, span), expected)


@pytest.mark.parametrize("radius", [14.0, 15.3, 17.65, 20.2, 22.9])
def test_the_edge_of_a_cylinder_on_the_axis_is_no_fault(radius: float) -> None:
    """It lies on the same two elements in every view, as a fault does; beyond it there is air."""
    chord = 4 * 0.02 * (radius**2 - (torch.arange(DETECTORS) - (DETECTORS - 1) / 2).square()).clamp_min(0).sqrt()
    rates = 4096 * torch.exp(-chord).expand(8, 120, DETECTORS).double()
    counts = torch.poisson(rates, generator=torch.Generator().manual_seed(0)).clamp_min(0.1)
    found = bad_elements(-(counts / 4096).log())
    assert not bool(found.any.any())


def _lower_median(values: np.ndarray) -> float:
    """PyTorch's median: the lower of two in the middle."""
    return float(np.sort(values)[(len(values) - 1) // 2])


def _outliers(line: np.ndarray, scale: float) -> tuple[list[int], list[int]]:
    """Noisy and shifted elements of a line ``(views, detectors)``, element by element."""
    inner = range(1, line.shape[1] - 1)
    residual = np.stack([line[:, j] - (line[:, j - 1] + line[:, j + 1]) / 2 for j in inner], 1)
    middle = np.array([_lower_median(r) for r in residual.T])
    spread = np.array([1.4826 * _lower_median(abs(r - m)) for r, m in zip(residual.T, middle, strict=True)])
    count = len(middle)
    noisy, shifted = [], []
    for j in range(count):
        around = [spread[min(max(j + k, 0), count - 1)] for k in range(-8, 9) if abs(k) > 1]
        usual = _lower_median(np.array(around)) + 0.002 * scale
        limited = np.clip(residual[:, j] - middle[j], -3 * spread[j], 3 * spread[j])
        slow = (limited[1:] * limited[:-1]).sum() / (limited**2).sum() > 0.5
        loudest = spread[max(0, j - 2) : j + 3].max()
        if spread[j] > 4 * usual and spread[j] > 0.05 * scale and spread[j] > 0.75 * loudest and not slow:
            noisy.append(j + 1)
        sides = [middle[(j + k) % count] for k in (-1, 1)]
        if (
            abs(middle[j]) > 2 * usual
            and abs(middle[j]) > 0.04 * scale
            and all(side * middle[j] < 0 and abs(middle[j]) > 1.4 * abs(side) > 0.28 * abs(middle[j]) for side in sides)
        ):
            shifted.append(j + 1)
    return noisy, shifted


@pytest.mark.parametrize("seed", range(12))
def test_noisy_and_shifted_elements_are_those_of_a_second_program(seed: int) -> None:
    """Noise and offsets of sizes about the thresholds, over objects that vary slowly and fast."""
    rng = np.random.default_rng(seed)
    lines = np.concatenate([body(2).numpy(), body(2, peak=0.5).numpy()])
    for line in lines:
        views, detectors = line.shape
        line += 0.004 * rng.standard_normal(line.shape)
        for j in rng.choice(detectors, 14, replace=False):
            kind, size = rng.integers(3), rng.uniform(0.02, 0.3)
            if kind == 0:
                line[:, j] += size * rng.standard_normal(views)
            elif kind == 1:
                line[:, j] += size * rng.choice([-1, 1])
            else:
                line[:, j] += size * np.sin(np.arange(views) * rng.uniform(0.3, 1.6))
    scale = rng.uniform(0.5, 1.5, len(lines))
    loud, shifted = bad._outliers(torch.from_numpy(lines), torch.from_numpy(scale))
    for n, line in enumerate(lines):
        expected = _outliers(line, scale[n])
        assert (loud[n].nonzero()[:, 0].tolist(), shifted[n].nonzero()[:, 0].tolist()) == expected, n


def test_the_second_program_meets_every_kind() -> None:
    found = [bad._outliers(faulty(30, kind, size), torch.tensor([1.4])) for kind, size in (("noisy", 1), ("hot", 0.6))]
    assert found[0][0].any() and found[1][1].any()


@pytest.mark.parametrize("seed", range(6))
def test_dead_elements_are_those_of_a_second_program(seed: int) -> None:
    """Constants of sizes about the thresholds, inside and at the ends of the line."""
    rng = np.random.default_rng(seed)
    line, scale = body()[0].numpy().copy(), 1.5
    line[:, :4] += 0.3 * rng.uniform(0, 1, (VIEWS, 4))
    chosen = sorted({*rng.choice(DETECTORS, 12, replace=False).tolist(), *range(seed % 3), *([69] * (seed % 2))})
    for j in chosen:
        line[:, j] = rng.choice([0.0, 0.07, 0.08, line[:, j].mean() + 0.06, line[:, j].mean() + 0.1, 3.0])
    constant = line.max(0) == line.min(0)
    varying = np.flatnonzero(~constant)
    expected = []
    for j in np.flatnonzero(constant):
        sides = [*varying[varying < j][-1:], *varying[varying > j][:1]]
        reading = line[0, j]
        if len(sides) == 1 and abs(reading) <= 0.05 * scale:
            dead = _lower_median(abs(line[:, sides[0]])) > 0.2 * scale
        else:
            dead = min(((line[:, k] - reading) ** 2).mean() ** 0.5 for k in sides) > 0.05 * scale
        expected.append(dead)
    found = bad._dead(torch.from_numpy(line), torch.from_numpy(constant), scale)
    assert found[constant].tolist() == expected and not found[~constant].any()


@pytest.mark.parametrize("seed", range(4))
def test_bridges_are_those_of_numpy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lines = rng.standard_normal((3, 5, 20))
    faults = rng.random((3, 20)) < (0.2, 0.5, 0.9)[seed % 3]
    faults[2], faults[0, :2], faults[0, 5] = seed == 3, True, False
    expected = lines.copy()
    for line, where in zip(expected, faults, strict=True):
        if not where.all():
            for view in line:
                view[where] = np.interp(np.flatnonzero(where), np.flatnonzero(~where), view[~where])
    given = torch.from_numpy(lines)
    np.testing.assert_allclose(bad._bridged(given, torch.from_numpy(faults)), expected, atol=1e-12)
    assert bad._bridged(given, torch.zeros(3, 20, dtype=torch.bool)) is given


def test_the_longest_run_is_counted_to_five() -> None:
    patterns = ["11110111", "11111000", "00011111", "10101010", "11101111", "00000000", "01111110"]
    where = torch.tensor([[c == "1" for c in pattern] for pattern in patterns])
    assert (bad._longest_run(where) > 4).tolist() == [False, True, True, False, False, False, True]
