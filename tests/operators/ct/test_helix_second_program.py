"""Rebinning and filtered back-projection of a helix, ray by ray in NumPy."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from deft_ct.operators.ct import backends
from deft_ct.operators.ct.filters import apply_filter, ramp_response
from deft_ct.operators.ct.helical_fbp import helical_fbp
from deft_ct.operators.ct.helix import HelicalScan, VolumeGrid
from deft_ct.operators.ct.helix_orientation import row_order_evidence
from deft_ct.operators.ct.helix_rebinning import ParallelBeams, rebin_slices


def helix(*, spot: tuple[float, ...] = (0.0, 0.0, 0.0), falling: bool = False, rows: int = 4) -> HelicalScan:
    """Two turns of 30 views that are not quite evenly spaced, of a source that is not quite on a circle."""
    rng = np.random.default_rng(0)
    angles = 0.3 + (np.arange(60) + rng.uniform(-0.2, 0.2, 60)) * 2 * math.pi / 30
    sign = np.where(np.arange(60) % 2, -1.0, 1.0)
    return HelicalScan(
        angles=-angles if falling else angles, z_mm=14.0 * angles / (2 * math.pi) + rng.uniform(-0.1, 0.1, 60),
        radius_mm=300 + rng.uniform(-0.5, 0.5, 60), source_shifts=sign[:, None] * np.array(spot),
        source_to_detector_mm=520.0, detectors=(rows, 9), detector_mm=(6.0, 22.0), central=(1.4, 4.25),
    )  # fmt: skip


SCANS: dict[str, dict[str, Any]] = {
    "plain": {}, "two spots": {"spot": (0.02, 1.0, 2.0)}, "falling": {"falling": True}, "one row": {"rows": 1},
}  # fmt: skip


class Line(NamedTuple):
    """Some rays of a parallel view, in a bin."""

    turned: bool
    angle: float
    readings: np.ndarray
    z: float
    start: float
    length: float
    axial: float


def keys(distance: np.ndarray) -> np.ndarray:
    t = np.abs(distance)
    inner, outer = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    return np.where(t <= 1, inner, np.where(t < 2, outer, 0.0))


def taps(at: float, count: int) -> list[tuple[int, float]]:
    low = min(math.floor(at), count - 2)
    return [(min(max(k, 0), count - 1), float(keys(np.array(at - k)))) for k in range(low - 1, low + 3)]


def layout(scan: HelicalScan) -> tuple[int, float, np.ndarray]:
    """Views in half a turn, width of a bin, places of the bins."""
    half_turn = round(scan.views_per_turn / 2)
    width = scan.detector_mm[1] * scan.radius_mm.mean() / scan.source_to_detector_mm
    count = scan.states()
    reach = max(abs(scan.spot(n, count).lateral).max() for n in range(count))
    side = math.ceil(reach / width)
    return half_turn, width, np.arange(-side, side + 1) * width


def parallel_views(data: np.ndarray, scan: HelicalScan, number: int) -> Iterator[list[Line]]:
    """All views of one direction, bin by bin."""
    half_turn, _, places = layout(scan)
    step, count, columns = math.pi / half_turn, scan.states(), np.arange(9)
    for state in range(count):
        spot = scan.spot(state, count)
        views = np.arange(len(scan.angles))[state::count]
        views = views[np.argsort(scan.angles[views])]
        known = scan.angles[views]
        for k in range(-200, 200):
            angle = k * step
            complete = known[0] + spot.turn.max() - 1e-9 <= angle <= known[-1] + spot.turn.min() + 1e-9
            if k % half_turn != number or not complete:
                continue
            lines = []
            for place in places:
                column = float(np.interp(place, spot.lateral, columns))
                readings = np.zeros(scan.detectors[0])
                for c, share in taps(column, 9):
                    at = float(np.interp(angle - spot.turn[c], known, np.arange(len(known))))
                    for v, part in taps(at, len(known)):
                        readings += share * part * data[views[v], :, c]
                z = np.interp(column, columns, np.interp(angle - spot.turn, known, scan.z_mm[views]))
                start, length = (float(np.interp(column, columns, x)) for x in (spot.start, spot.length))
                lines.append(Line(k // half_turn % 2 == 1, angle, readings, float(z), start, length, spot.axial))
            yield lines


def oblique(line: Line, scan: HelicalScan) -> np.ndarray:
    return line.readings * line.length / np.hypot(line.length, scan.heights - line.axial)


def row_of(line: Line, scan: HelicalScan, z: float, depth: float = 0.0) -> float:
    height = line.axial + (z - line.z - line.axial) * line.length / (depth - line.start)
    return height / scan.detector_mm[0] + scan.central[0]


def weight_of(row: float, rows: int) -> tuple[float, float]:
    """The weight of a row, and that with the last row in place of those beyond."""
    off = abs(row - (rows - 1) / 2) / (rows / 2)
    fall = min(max((off - 0.6) / 0.4, 0), 1)
    weight = 1 - fall**2 * (3 - 2 * fall)
    return weight, max(weight, 1e-3) if off <= 1.5 else 0.0


def value_at(values: np.ndarray, row: float) -> float:
    return float(np.interp(row, np.arange(len(values)), values))


def of_lines(data: np.ndarray, scan: HelicalScan, z: float, number: int) -> list[list[tuple[float, float]]]:
    """Of each line of a direction in a slice: values and rows of all rays that see it."""
    found: list[list[tuple[float, float]]] = [[] for _ in layout(scan)[2]]
    for lines in parallel_views(data, scan, number):
        for j, line in enumerate(lines):
            row = row_of(line, scan, z)
            found[len(lines) - 1 - j if line.turned else j].append((value_at(oblique(line, scan), row), row))
    return found


def random_data(scan: HelicalScan) -> torch.Tensor:
    return torch.rand(scan.data_shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("kind", SCANS)
def test_slices_are_those_of_a_second_program(kind: str) -> None:
    scan = helix(**SCANS[kind])
    data, rows = random_data(scan), scan.detectors[0]
    middle = float(scan.z_mm.mean())
    grid = VolumeGrid(image_shape=(3, 4, 5), voxel_zyx=(9.0, 2.0, 3.0), z_mm=middle)
    y, geometry, missing = rebin_slices(data, scan, grid)
    half_turn, width, places = layout(scan)
    expected, gone = np.zeros((3, half_turn, len(places))), np.zeros(3)
    for n in range(half_turn):
        for s, z in enumerate(grid.z):
            for j, rays in enumerate(of_lines(data.numpy(), scan, float(z), n)):
                shares = np.array([weight_of(row, rows)[1] for _, row in rays])
                if shares.sum():
                    expected[s, n, j] = (shares * [value for value, _ in rays]).sum() / shares.sum()
                gone[s] += sum(weight_of(row, rows)[0] for _, row in rays) <= 0
    np.testing.assert_allclose(y[:, 0], expected, atol=1e-9)
    np.testing.assert_allclose(missing, gone / (half_turn * len(places)), atol=1e-12)
    assert geometry.detectors == len(places) and geometry.detector_mm == pytest.approx(width)


def test_the_order_of_the_rows_is_judged_as_by_a_second_program() -> None:
    scan = helix(spot=(0.02, 1.0, 2.0))
    data = random_data(scan)

    def disagreement(readings: np.ndarray, central: float) -> float:
        given = HelicalScan(
            **{
                name: getattr(scan, name)
                for name in ("angles", "z_mm", "radius_mm", "source_shifts", "source_to_detector_mm", "detectors",
                             "detector_mm")
            },
            central=(central, scan.central[1]),
        )  # fmt: skip
        low, high = scan.z_mm.min(), scan.z_mm.max()
        squares = total = 0.0
        for n in sorted({int(k) for k in np.linspace(0, layout(given)[0] - 1, 12)}):
            for z in np.linspace(low + (high - low) / 4, high - (high - low) / 4, 9):
                for rays in of_lines(readings, given, float(z), n):
                    values, rows = np.array(rays).T
                    weights = np.array([weight_of(row, 4)[0] for row in rows])
                    mean = (weights * values).sum() / max(weights.sum(), 1e-12)
                    squares += (weights * (values - mean) ** 2).sum()
                    total += weights.sum()
        return float((squares / total) ** 0.5)

    found = row_order_evidence(data, scan)
    assert found.as_given == pytest.approx(disagreement(data.numpy(), 1.4), rel=1e-6)
    assert found.reversed == pytest.approx(disagreement(data.numpy()[:, ::-1], 3 - 1.4), rel=1e-6)


@pytest.mark.parametrize("numba", [True, False])
@pytest.mark.parametrize("kind", ["two spots", "one row"])
def test_the_volume_is_that_of_a_second_program(kind: str, numba: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not numba:
        monkeypatch.setitem(sys.modules, f"{backends.__name__}._helix_kernels", None)
        monkeypatch.delattr(backends, "_helix_kernels", raising=False)
    scan = helix(**SCANS[kind])
    data, rows = random_data(scan), scan.detectors[0]
    grid = VolumeGrid(image_shape=(2, 3, 4), voxel_zyx=(8.0, 70.0, 55.0), z_mm=float(scan.z_mm.mean()))
    half_turn, width, places = layout(scan)
    response = torch.from_numpy(ramp_response(len(places), width, "hann", 0.8))
    expected, missing = np.zeros(grid.image_shape), np.zeros(2)
    inside = np.hypot(grid.x, grid.y[:, None]) <= places[-1]
    for n in range(half_turn):
        sums = np.zeros((3, *grid.image_shape))
        for lines in parallel_views(data.numpy(), scan, n):
            raw = torch.from_numpy(np.stack([oblique(line, scan) for line in lines], 1))
            filtered = apply_filter(raw, response).numpy()  # (rows, bins)
            cos, sin = math.cos(lines[0].angle), math.sin(lines[0].angle)
            for s, r, c in zip(*np.nonzero(np.broadcast_to(inside, grid.image_shape)), strict=True):
                x, y = grid.x[c], grid.y[r]
                at = (x * cos + y * sin) / width + (len(places) - 1) / 2
                ray = lines[0]._replace(
                    **{k: float(np.interp(at, range(len(places)), [getattr(a, k) for a in lines]))
                       for k in ("z", "start", "length")}
                )  # fmt: skip
                row = row_of(ray, scan, float(grid.z[s]), y * cos - x * sin)
                weight, share = weight_of(row, rows)
                value = np.interp(at, range(len(places)), [value_at(column, row) for column in filtered.T])
                sums[:, s, r, c] += share * value, share, weight
        expected += np.divide(sums[0], sums[1], out=np.zeros_like(expected), where=sums[1] > 0) * math.pi / half_turn
        missing += [(one[inside] <= 0).mean() / half_turn for one in sums[2]]
    assert 0 < inside.sum() < inside.size
    found = helical_fbp(data, scan, grid, "hann", 0.8)
    np.testing.assert_allclose(found.volume, expected, atol=1e-9)
    np.testing.assert_allclose(found.missing, missing, atol=1e-9)


def test_bins_are_as_wide_as_columns_at_the_axis() -> None:
    for kind in SCANS.values():
        scan = helix(**kind)
        beams, (half_turn, width, places) = ParallelBeams(random_data(scan), scan), layout(scan)
        assert (beams.half_turn, beams.bins) == (half_turn, len(places)) and beams.bin_mm == pytest.approx(width)
        np.testing.assert_allclose(beams.position, places)
