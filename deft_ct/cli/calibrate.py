"""``deft-ct calibrate``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from deft_ct.cli import options as opt
from deft_ct.cli.errors import one_line_errors
from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import CTPack, pack_path, read_pack
from deft_ct.evaluation.problem import refuse_test_data
from deft_ct.evaluation.spread_fit import calibrate_spread as fit
from deft_ct.evaluation.spread_fit import draw, report, report_markdown
from deft_ct.methods.deft import SpreadNetwork, save_spread_network
from deft_ct.methods.deft.reconstructor import DEFT
from deft_ct.methods.deft.spread_calibration import SpreadCalibration
from deft_ct.methods.method_text import parse_method
from deft_ct.methods.registry import Networks
from deft_ct.problems.ct import CTProblem, build_for_scan
from deft_ct.reconstructor import USUAL_SAMPLES
from deft_ct.report import FOOTER, calibration_figure, save_png
from deft_ct.runtime.atomic import occupy_folder, write_text
from deft_ct.workflows.train_spread import calibrated_network, judged_folds

_USUAL_SCAN = "parallel60_1e5"


def calibrate(
    out: opt.Out,
    method: Annotated[
        str, typer.Argument(help="deft, with options if you like: 'deft:steps=10,grid=log_snr'.")
    ] = "deft",
    data: opt.Data = "val",
    every: opt.Every = 10,
    also: Annotated[
        list[str] | None, typer.Option("--report", help="Also report on these slices. Repeat it for several data sets.")
    ] = None,
    scan: opt.Scans = None,
    samples: opt.Samples = None,
    seed: opt.Seed = 0,
    floor: Annotated[bool, typer.Option(help="Fit a smallest standard deviation in addition to the factor.")] = True,
    calibration: Annotated[
        Path | None,
        typer.Option(help="Report on this calibration file instead of fitting one. Test data are allowed then."),
    ] = None,
    folds_of: Annotated[
        Path | None,
        typer.Option(help="Of deft:spread=network: output of `deft-ct train spread --folds`, to fit on its slices."),
    ] = None,
    fold_data: Annotated[str | None, typer.Option(help="With --folds-of: the slices of that training.")] = None,
    batch_size: opt.BatchSize = 8,
    prior: opt.PriorName = None,
    htransform: opt.HTransformName = None,
    presets: opt.Presets = True,
    device: opt.Device = "cpu",
    precision: opt.PrecisionName = "float32",
    progress: opt.Progress = True,
) -> None:
    """Calibrate the posterior standard deviation of DEFT.

    Example: `deft-ct calibrate deft --data val --every 20 --samples 4 --report test_volumes --out OUT`

    Measures it on slices first. Writes OUT/calibration-SCAN.json, spread.json, spread.md and a figure for each data
    set. The scan is parallel60_1e5 by default. Copy the calibration file into the folder of the h-transform.
    Reconstructions of that scan with the same settings are then calibrated. Needs two samples or more.

    deft:spread=network fits the intervals of the spread network instead, for all scans (repeat --scan) at once and
    without samples. Copy the files of OUT/spread into the folder of the h-transform. --folds-of adds the patients of
    the training, each judged by a network that has not seen this patient.
    """
    with one_line_errors(), occupy_folder(out):
        console = Console()
        count = USUAL_SAMPLES if samples is None else samples
        name, options = parse_method(method)
        if name != "deft":
            raise ValueError(f"only deft can be calibrated, got {name!r}")
        networks = Networks(prior=prior, htransform=htransform, device=device, precision=precision)
        by_network = options.get("spread") == "network"
        if (folds_of is None) != (fold_data is None) or (folds_of is not None and not by_network):
            raise ValueError("--folds-of and --fold-data go together, and with deft:spread=network")
        if by_network:
            slices = [read_pack(text, every) for text in dict.fromkeys([data, *(also or ())])]
            scans = [Scan.from_name(text) for text in scan or [_USUAL_SCAN]]

            def scanned(pack: CTPack) -> list[CTProblem]:
                return [CTProblem(pack, one, seed=seed, batch_size=batch_size, device=device) for one in scans]

            method_at_hand = networks.build("deft", options)
            assert isinstance(method_at_hand, DEFT)
            unseen = []
            if folds_of is not None and fold_data is not None:
                unseen = judged_folds(folds_of, pack_path(fold_data), method_at_hand, scanned, every=every)
            network, found = calibrated_network(
                method_at_hand, [scanned(pack) for pack in slices], unseen, progress=progress
            )
            settings = {"every": every, "seed": seed, "network_precision": precision}
            _write_intervals(console, out, network, found, settings)
            return
        if count < 2:
            raise ValueError(f"--samples must be at least 2 for a standard deviation of samples, got {count}")
        chosen = Scan.from_name(opt.only(scan or [_USUAL_SCAN], "--scan"))
        packs = {text: read_pack(text, every) for text in dict.fromkeys([data, *(also or ())])}
        fitted = None if calibration is None else SpreadCalibration.read(calibration)
        built, preset = build_for_scan(networks, name, options, chosen, presets=presets)
        if preset is not None:
            console.print(f"[dim]{escape(method)}: preset {escape(preset)}[/]")
        assert isinstance(built, DEFT)
        config = replace(built.config, calibrated=False, spread="samples")
        solver = DEFT(built.prior, built.htransform, config, built.spread_network)
        problems = {
            text: CTProblem(pack, chosen, seed=seed, batch_size=batch_size, device=device)
            for text, pack in packs.items()
        }
        if fitted is None:
            refuse_test_data(problems[data])
        else:
            differences = fitted.differences(
                htransform_sha256=solver.htransform.content_hash(), prior_sha256=solver.prior.content_hash(),
                settings=solver.sampling, samples=count,
            )  # fmt: skip
            differences += ["another scan"] if fitted.scan.get("name") != chosen.name else []
            if differences:
                raise ValueError(
                    f"{calibration} was fitted for {', '.join(differences)} than this run has: use the same, or leave "
                    "out --calibration to fit a new one"
                )
        pictures = _names({text: Path(problem.data).stem for text, problem in problems.items()})
        reports = {}
        for text, problem in problems.items():
            console.print(f"[dim]{escape(problem.data)}: {len(problem)} slices, {count} samples each[/]")
            draws = draw(problem, solver, samples=count, progress=progress)
            if fitted is None:
                fitted = fit(problem, draws, solver, floor=floor)
                size = "" if fitted.image_shape == solver.prior.image_shape[-2:] else f"-{fitted.image_shape[0]}px"
                fitted.write(out / f"calibration-{chosen.name}{size}.json")
                console.print(f"factor {fitted.factor:.3f}, floor {fitted.floor_hu:.1f} HU")
            reports[text] = report(problem, draws, fitted)
            title = f"{problem.data}, every {every}: {chosen}; {count} samples, seed {seed}"
            save_png(calibration_figure(reports[text], title=title), out / f"spread-{pictures[text]}.png")
        record = {
            "scan": chosen.to_dict(), "settings": solver.sampling, "every": every, "samples": count,
            "seed": seed, "network_precision": solver.prior.precision, "packs": reports,
        }  # fmt: skip
        write_text(out / "spread.json", json.dumps(record, indent=1, allow_nan=False) + "\n")
        table = report_markdown(reports)
        write_text(out / "spread.md", f"{table}\n{FOOTER}.\n")
        console.print(escape(table), soft_wrap=True)
        console.print(f"written to [bold]{escape(str(out))}[/]", soft_wrap=True)
        console.print(f"[bold]{FOOTER}.[/]")


def _write_intervals(
    console: Console, out: Path, network: SpreadNetwork, reports: Mapping[str, Any], settings: Mapping[str, Any]
) -> None:
    """The network with its intervals, and what they are worth."""
    save_spread_network(network, out / "spread")
    record = {**settings, "reports": reports}
    write_text(out / "report.json", json.dumps(record, indent=1, allow_nan=False) + "\n")
    for number, (title, found) in enumerate(reports.items(), 1):
        figure = calibration_figure(found, title=f"{title}; no samples, seed {settings['seed']}")
        save_png(figure, out / f"report-{number:02d}.png")
    table = report_markdown(reports)
    write_text(out / "report.md", f"{table}\n{FOOTER}.\n")
    widths = {one.image_shape: one.half_widths for one in network.intervals}
    console.print(f"half widths in units of the predicted scale: {widths}")
    console.print(escape(table), soft_wrap=True)
    console.print(f"written to [bold]{escape(str(out))}[/]", soft_wrap=True)
    console.print(f"[bold]{FOOTER}.[/]")


def _names(stems: Mapping[str, str]) -> dict[str, str]:
    """A name of its own for each data set: the stem of its file, with a number where two files have the same."""
    found: dict[str, str] = {}
    for text, stem in stems.items():
        same = sum(other == stem for other in list(stems.values())[: len(found)])
        found[text] = f"{stem}-{same + 1}" if same else stem
    return found
