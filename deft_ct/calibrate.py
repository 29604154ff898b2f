"""Posterior samples of known slices: how far their spread can be believed, and the calibration that follows."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np

from deft_ct.benchmark import prepare
from deft_ct.calibration import Calibration, fit_spread
from deft_ct.coverage import LEVELS, Draws, spread_report
from deft_ct.datasets.packs import CTPack
from deft_ct.metrics import psnr
from deft_ct.posterior.deft import DEFT
from deft_ct.scan import Scan


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
            y, measurement, num_samples=protocol.samples, seed=protocol.seed, keys=names, progress=progress
        )
        assert found.samples_hu is not None
        centre.append(found.mean_hu[:, 0].cpu().numpy())
        samples.append(found.samples_hu[:, :, 0].cpu().numpy())
    return Draws(
        truth=problem.truth, centre=np.concatenate(centre), samples=np.concatenate(samples), body=problem.body,
        around_samples=solver.config.estimate == "samples",
    )  # fmt: skip


def calibrate(
    pack: CTPack, draws: Draws, scan: Scan, solver: DEFT, protocol: SpreadProtocol, *, floor: bool = True
) -> Calibration:
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
    fitted = Calibration(
        factor=factor, floor_hu=floor_hu, samples=draws.count, around_samples=draws.around_samples,
        scan=scan.to_dict(), settings=solver.config.sampling,
        htransform_sha256=solver.htransform.content_hash(), prior_sha256=solver.prior.content_hash(),
    )  # fmt: skip
    return Calibration(
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


def report(draws: Draws, calibration: Calibration | None = None) -> dict[str, Any]:
    """Raw and calibrated :func:`~deft_ct.coverage.spread_report`, with the PSNR of the centre (range 2000 HU)."""
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
