"""Posterior samples of known slices: how far their spread can be believed, and the calibration that follows."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import CTPack
from deft_ct.evaluation.metrics import psnr
from deft_ct.evaluation.problem import prepare
from deft_ct.evaluation.spread import LEVELS, Draws, spread_report
from deft_ct.methods.deft.reconstructor import DEFT
from deft_ct.methods.deft.spread_calibration import SpreadCalibration


@dataclass(frozen=True, kw_only=True)
class SpreadProtocol:
    """How samples of a pack are drawn.

    Args:
        every: every how many slices the pack was read; for the record.
        samples: of each slice.
        seed: of noise and sampling.
        refine: grid refinement of the simulation.
        batch_size: slices at once.
        device: where to compute.

    Raises:
        ValueError: fewer than two samples.
    """

    every: int = 1
    samples: int = 4
    seed: int = 0
    refine: int = 2
    batch_size: int = 8
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise ValueError(f"a spread needs at least two samples, got {self.samples}")


def refuse_test_data(pack: CTPack) -> None:
    """Calibrations are fitted on validation data.

    Raises:
        ValueError: the pack is a test set.
    """
    if "test" in pack.path.stem.lower():
        raise ValueError(f"{pack.path.name} is a test set: the spread is calibrated on validation data only (val)")


def draw(pack: CTPack, scan: Scan, solver: DEFT, protocol: SpreadProtocol, *, progress: bool = False) -> Draws:
    """Simulate a scan of every slice and draw samples of it.

    Args:
        pack: the slices.
        scan: what is simulated.
        solver: the method.
        protocol: how many samples, and of what seed.
        progress: show progress bars.
    """
    problem = prepare(
        pack, scan, seed=protocol.seed, refine=protocol.refine, batch_size=protocol.batch_size, device=protocol.device
    )
    centre, samples = [], []
    for y, measurement, names in problem.batches:
        found = solver.reconstruct(
            y, measurement, num_samples=protocol.samples, seed=protocol.seed, image_ids=names, progress=progress
        )
        assert found.in_units.samples is not None
        centre.append(found.in_units.mean[:, 0].cpu().numpy())
        samples.append(found.in_units.samples[:, :, 0].cpu().numpy())
    return Draws(
        truth=problem.truth, centre=np.concatenate(centre), samples=np.concatenate(samples), body=problem.body,
        around_samples=solver.config.estimate == "samples",
    )  # fmt: skip


def calibrate_spread(
    pack: CTPack, draws: Draws, scan: Scan, solver: DEFT, protocol: SpreadProtocol, *, floor: bool = True
) -> SpreadCalibration:
    """Fit factor and floor on the samples of a validation pack.

    Args:
        pack: that the samples are of.
        draws: from :func:`draw`.
        scan: what was simulated.
        solver: the method.
        protocol: how the samples were drawn.
        floor: whether to fit a floor, too.

    Raises:
        ValueError: the pack is a test set, or no factor reaches the level.
    """
    refuse_test_data(pack)
    factor, floor_hu = fit_spread(draws, floor=floor)
    fitted = SpreadCalibration(
        factor=factor, floor_hu=floor_hu, samples=draws.count, around_samples=draws.around_samples,
        scan=scan.to_dict(), settings=solver.config.sampling,
        htransform_sha256=solver.htransform.content_hash(), prior_sha256=solver.prior.content_hash(),
    )  # fmt: skip
    return SpreadCalibration(
        **{
            **vars(fitted),
            "provenance": {
                "data": pack.path.name, "every": protocol.every, "slices": len(pack), "seed": protocol.seed,
                "simulation_refinement": protocol.refine, "network_precision": solver.prior.precision,
                "coverage_90_raw": spread_report(draws)["coverage"]["body"]["0.9"],
                "coverage_90_calibrated": spread_report(draws, fitted)["coverage"]["body"]["0.9"],
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "versions": {"deft_ct": version("deft-ct"), "python": platform.python_version()},
            },
        }
    )  # fmt: skip


def report(draws: Draws, calibration: SpreadCalibration | None = None) -> dict[str, Any]:
    """Raw and calibrated :func:`~deft_ct.evaluation.spread.spread_report`, with the PSNR (range 2000 HU)."""
    found: dict[str, Any] = {
        "psnr_db": float(psnr(draws.centre, draws.truth, data_range=2000.0).mean()),
        "raw": spread_report(draws),
    }
    if calibration is not None:
        found["calibrated"] = spread_report(draws, calibration)
    return found


def report_markdown(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """Coverage by region and level of packs, raw and calibrated, and the correlation of spread and error.

    Args:
        reports: name of the pack -> :func:`report`.
    """
    head = ["pack", "spread", "region", *(f"{100 * level:g} %" for level in LEVELS), "Pearson", "Spearman"]
    lines = [head, ["---"] * 3 + ["---:"] * (len(head) - 3)]
    notes = []
    for name, whole in reports.items():
        for kind in ("raw", "calibrated"):
            if kind not in whole:
                continue
            found = whole[kind]
            for region, covered in found["coverage"].items():
                related = found["correlation"][region]
                values = [f"{100 * covered[f'{level:g}']:.1f}" for level in LEVELS]
                lines.append([name, kind, region, *values, *(_two(related[k]) for k in ("pearson", "spearman"))])
            ends = [found["coverage_90"][end] for end in ("low", "high")]
            span = " to ".join("-" if end is None else f"{100 * end:.1f}" for end in ends)
            blocks = found["correlation"]["blocks"]
            notes.append(
                f"{name}, {kind}: {found['slices']} slices, {found['samples']} samples, RMS spread "
                f"{found['rms_spread_hu']:.1f} HU, RMSE {found['rmse_hu']:.1f} HU; 90 % coverage, mean over slices, "
                f"{100 * found['coverage_90']['mean']:.1f} % (95 % interval {span}); over 16 x 16 blocks spread and "
                f"error correlate by {_two(blocks['pearson'])} (Pearson)."
            )
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return table + "\n\n" + "\n".join(f"- {note}" for note in notes) + "\n"


def _two(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def fit_spread(draws: Draws, *, level: float = 0.9, floor: bool = True) -> tuple[float, float]:
    """Factor and floor with which the central interval of ``level`` covers that share of the body pixels.

    For a given floor the factor is a quantile, in closed form. Of all floors the one is taken whose intervals have the
    lowest interval score, width plus ``2 / (1 - level)`` times the miss, which is proper: the narrowest intervals that
    are honest pixel by pixel, as far as the spread tells pixels apart (Gneiting and Raftery 2007, eq. 43).

    Args:
        draws: samples of known slices.
        level: nominal coverage that is met.
        floor: whether to fit one; 0 otherwise.

    Returns:
        ``(factor, floor in HU)``.

    Raises:
        ValueError: there is no body pixel, or the spread is zero in so many that no factor reaches the level.
    """
    if not draws.body.any():
        raise ValueError("there is no body pixel to fit the spread on")
    width = draws.factor(level)
    needed = (draws.error[draws.body].astype(np.float64) / width) ** 2
    variance = draws.std[draws.body].astype(np.float64) ** 2

    def factor(floor_hu: float) -> float:
        rest = np.maximum(needed - floor_hu**2, 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(rest > 0, rest / variance, 0.0)
        return float(np.quantile(ratio, level, method="higher")) ** 0.5

    def score(floor_hu: float) -> float:
        scale = factor(floor_hu)
        if not np.isfinite(scale):
            return np.inf
        half = width * np.sqrt(scale**2 * variance + floor_hu**2)
        miss = np.maximum(width * np.sqrt(needed) - half, 0.0)
        return float((2 * half + 2 / (1 - level) * miss).mean())

    best = 0.0
    if floor:
        highest = float(np.quantile(needed, level, method="higher")) ** 0.5  # covers with no spread at all
        grid = np.linspace(0.0, highest, 17)
        k = int(np.argmin([score(value) for value in grid]))
        around = (grid[max(k - 1, 0)], grid[min(k + 1, len(grid) - 1)])
        found = minimize_scalar(score, bounds=around, method="bounded", options={"maxiter": 25})
        best = float(found.x) if found.fun < score(0.0) else 0.0
    scale = factor(best)
    if not np.isfinite(scale):
        raise ValueError(
            "the samples agree exactly in too many pixels for a factor to widen them: draw more samples, or fit a floor"
        )
    return scale, best
