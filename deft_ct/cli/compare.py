"""``deft-ct compare``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from deft_ct.cli import options as opt
from deft_ct.cli.errors import one_line_errors
from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import read_pack
from deft_ct.evaluation.runner import Comparison
from deft_ct.methods.method_text import parse_method
from deft_ct.methods.presets import load_preset
from deft_ct.methods.registry import Networks, method_class
from deft_ct.methods.registry import methods as known_methods
from deft_ct.problems.by_name import DEFAULT_SCANS
from deft_ct.problems.ct import CTProblem, build_for_scan
from deft_ct.reconstructor import Reconstructor
from deft_ct.report import FOOTER
from deft_ct.runtime.atomic import occupy_folder, write_text


def compare(
    out: opt.Out,
    data: opt.Data = "val",
    every: opt.Every = 10,
    scans: opt.Scans = None,
    methods: opt.Methods = None,
    samples: opt.Samples = 4,
    seed: opt.Seed = 0,
    batch_size: opt.BatchSize = 8,
    prior: opt.PriorName = None,
    htransform: opt.HTransformName = None,
    model: opt.ModelNames = None,
    presets: opt.Presets = True,
    preset_folder: Annotated[
        Path | None,
        typer.Option(help="Folder of presets that override the shipped ones: OUT/presets of `deft-ct tune`."),
    ] = None,
    device: opt.Device = "cpu",
    precision: opt.PrecisionName = "float32",
    overwrite: opt.Overwrite = False,
    progress: opt.Progress = True,
) -> None:
    """Compare methods on several scans: quality with intervals over slices, network evaluations, time and memory.

    Without --scan, three common scans are used. Without --method, all methods run that apply to CT and whose networks
    are available. Methods that train for each slice run only if they are named. Writes comparison.md and
    comparison.json. Results are kept in OUT: run the same command again to resume.
    """
    resume = "finished measurements are kept; run the same command again to resume"
    with one_line_errors(interrupted=resume), occupy_folder(out):
        console = Console()
        chosen = [Scan.from_name(name) for name in dict.fromkeys(scans or DEFAULT_SCANS)]
        networks = Networks(
            prior=prior, htransform=htransform, models=opt.parse_models(model), device=device, precision=precision
        )
        solvers: dict[str, dict[str, Reconstructor]] = {scan.name: {} for scan in chosen}
        if preset_folder is not None and not preset_folder.is_dir():
            raise FileNotFoundError(f"there is no folder {preset_folder} with presets")
        for text in methods or default_methods():
            try:
                for scan in chosen:
                    solvers[scan.name][text], preset = _with_preset(networks, text, scan, presets, preset_folder)
                    if preset is not None:
                        console.print(f"[dim]{escape(text)}: preset {preset}[/]")
            except FileNotFoundError as error:
                if methods:
                    raise
                console.print(f"[yellow]left out:[/] {escape(text)} ({escape(str(error))})", soft_wrap=True)
        pack = read_pack(data, every)
        problems = [CTProblem(pack, scan, seed=seed, batch_size=batch_size, device=device) for scan in chosen]
        comparison = Comparison(problems, samples=samples)
        comparison.run(
            solvers, out, overwrite=overwrite, progress=progress,
            log=lambda line: console.print(f"[dim]{escape(line)}[/]"),
        )  # fmt: skip
        write_text(out / "comparison.json", json.dumps(comparison.to_dict(), indent=1, allow_nan=False) + "\n")
        write_text(out / "comparison.md", comparison.markdown() + f"\n{FOOTER}.\n")
        for table in comparison.rich_tables():
            console.print(table)
        console.print(comparison.conventions(), soft_wrap=True)
        console.print(f"written to [bold]{escape(str(out))}[/]", soft_wrap=True)
        console.print(f"[bold]{FOOTER}.[/]")


def default_methods() -> list[str]:
    """Every method that applies to CT and does not train for every slice, and both estimates of DEFT."""
    names = [
        name
        for name in known_methods()
        if name != "deft_online" and getattr(method_class(name), "needs", "any") != "svd"
    ]
    return [*names, "deft:estimate=samples"]


def _with_preset(
    networks: Networks, text: str, scan: Scan, presets: bool, folder: Path | None
) -> tuple[Reconstructor, str | None]:
    """The method of ``"name:option=value"`` with the preset of a folder, or else the shipped one, if there is one."""
    name, options = parse_method(text)
    path = folder / scan.name / f"{name}.json" if folder is not None and presets else None
    if path is not None and path.is_file():
        tuned = load_preset(name, path)
        if tuned.scan != scan.name:
            raise ValueError(
                f"{path} was tuned for {tuned.scan}, not for {scan.name}: move it to the folder {tuned.scan}"
            )
        return networks.build(name, options, preset=str(path)), str(path)
    return build_for_scan(networks, name, options, scan, presets=presets)
