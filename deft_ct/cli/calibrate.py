"""``deft-ct calibrate``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from deft_ct.cli import options as opt
from deft_ct.cli.errors import one_line_errors
from deft_ct.ct.scan import Scan
from deft_ct.evaluation.problem import refuse_test_data
from deft_ct.evaluation.spread_fit import calibrate_spread as fit
from deft_ct.evaluation.spread_fit import draw, report, report_markdown
from deft_ct.methods.deft.reconstructor import DEFT
from deft_ct.methods.deft.spread_calibration import SpreadCalibration
from deft_ct.problems.ct import CTProblem
from deft_ct.report import FOOTER, calibration_figure, save_png
from deft_ct.runtime.atomic import atomic_file


def calibrate(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the report.")],
    method: Annotated[str, typer.Argument(help="deft with its options, e.g. 'deft:steps=20,grid=log_snr'.")] = "deft",
    data: opt.Data = "val",
    every: opt.Every = 10,
    also: Annotated[
        list[str] | None,
        typer.Option("--report", help="Report on this pack, too: a path or a name. Repeat for several."),
    ] = None,
    scan: Annotated[str, typer.Option(help="Scan, e.g. parallel60_1e5, parallel60_1e5_120deg.")] = "parallel60_1e5",
    samples: Annotated[int, typer.Option(help="Posterior samples of each slice.", min=2)] = 4,
    seed: opt.Seed = 0,
    floor: Annotated[bool, typer.Option(help="Fit a floor beside the factor.")] = True,
    calibration: Annotated[
        Path | None, typer.Option(help="Report on this calibration instead of fitting one: --data may be a test pack.")
    ] = None,
    batch_size: opt.BatchSize = 8,
    prior: opt.PriorName = None,
    htransform: opt.HTransformName = None,
    presets: opt.Presets = True,
    device: opt.Device = "cpu",
    precision: opt.PrecisionName = "float32",
    progress: Annotated[bool, typer.Option(help="Show progress bars.")] = True,
) -> None:
    """Measure how far the spread of DEFT can be believed, and fit its calibration on validation slices.

    Writes OUT/calibration-SCAN.json, spread.json, spread.md and a figure for each pack. Copy the first beside the
    weights of the h-transform, and every reconstruction of that scan with these settings is calibrated.
    """
    with one_line_errors():
        console = Console()
        name, _ = opt.parse_method(method)
        if name != "deft":
            raise ValueError(f"calibrations are of deft, got {name!r}")
        chosen = Scan.from_name(scan)
        networks = opt.Networks(
            prior=prior, htransform=htransform, models={}, device=device, precision=opt.parse_precision(precision)
        )
        builder = opt.Builder(networks)
        built, preset = builder.for_scan(method, chosen, presets=presets)
        if preset is not None:
            console.print(f"[dim]{escape(method)}: preset {preset}[/]")
        assert isinstance(built, DEFT)
        solver = DEFT(built.prior, built.htransform, replace(built.config, calibrated=False))
        problems = {
            text: CTProblem(opt.read_pack(text, every), chosen, seed=seed, batch_size=batch_size, device=device)
            for text in dict.fromkeys([data, *(also or ())])
        }
        fitted = None if calibration is None else SpreadCalibration.read(calibration)
        if fitted is None:
            refuse_test_data(problems[data])
        reports = {}
        for text, problem in problems.items():
            console.print(f"[dim]{escape(problem.data)}: {len(problem)} slices, {samples} samples each[/]")
            draws = draw(problem, solver, samples=samples, progress=progress)
            if fitted is None:
                fitted = fit(problem, draws, solver, floor=floor)
                out.mkdir(parents=True, exist_ok=True)
                fitted.write(out / f"calibration-{chosen.name}.json")
                console.print(f"factor {fitted.factor:.3f}, floor {fitted.floor_hu:.1f} HU")
            reports[text] = report(problem, draws, fitted)
            out.mkdir(parents=True, exist_ok=True)
            with atomic_file(out / f"spread-{problem.pack.path.stem}.png") as part:
                title = f"{problem.data}, every {every}: {chosen}; {samples} samples, seed {seed}"
                save_png(calibration_figure(reports[text], title=title), part)
        record = {
            "scan": chosen.to_dict(), "settings": solver.config.sampling, "every": every, "samples": samples,
            "seed": seed, "network_precision": solver.prior.precision, "packs": reports,
        }  # fmt: skip
        with atomic_file(out / "spread.json") as part:
            part.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
        table = report_markdown(reports)
        with atomic_file(out / "spread.md") as part:
            part.write_text(f"{table}\n{FOOTER}.\n")
        console.print(escape(table), soft_wrap=True)
        console.print(f"written to [bold]{escape(str(out))}[/]", soft_wrap=True)
        console.print(f"[bold]{FOOTER}.[/]")
