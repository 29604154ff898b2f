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
from deft_ct.evaluation.runner import Comparison
from deft_ct.methods.registry import method_class
from deft_ct.methods.registry import methods as known_methods
from deft_ct.problems.ct import CTProblem
from deft_ct.reconstructor import Reconstructor
from deft_ct.report import FOOTER
from deft_ct.runtime.atomic import atomic_file

DEFAULT_SCANS = ("parallel60_1e5", "parallel20_1e5", "parallel60_1e5_120deg")


def compare(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the results; run again to go on.")],
    data: opt.Data = "val",
    every: opt.Every = 10,
    scans: Annotated[
        list[str] | None,
        typer.Option("--scan", help=f"Scan by name. Repeat for several. Default: {', '.join(DEFAULT_SCANS)}."),
    ] = None,
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
        typer.Option(help="Presets of scripts/tune_methods.py, SCAN/METHOD.json; they go before the shipped ones."),
    ] = None,
    device: opt.Device = "cpu",
    precision: opt.PrecisionName = "float32",
    progress: Annotated[bool, typer.Option(help="Show progress bars.")] = True,
) -> None:
    """Compare methods on several scans: quality with intervals over slices, network evaluations, time and memory.

    Without --method every method is run that applies to CT and whose networks are at hand, and DEFT with both of its
    estimates; methods that train for every slice are run only when named. Every finished pair of scan and method is
    kept in OUT, so an interrupted comparison loses nothing. Writes comparison.md and comparison.json.
    """
    with one_line_errors(interrupted="what was measured is kept; run the same command again to go on"):
        console = Console()
        chosen = [Scan.from_name(name) for name in dict.fromkeys(scans or DEFAULT_SCANS)]
        builder = opt.Builder(
            opt.Networks(
                prior=prior,
                htransform=htransform,
                models=opt.parse_models(model),
                device=device,
                precision=opt.parse_precision(precision),
            )
        )
        solvers: dict[str, dict[str, Reconstructor]] = {scan.name: {} for scan in chosen}
        if preset_folder is not None and not preset_folder.is_dir():
            raise FileNotFoundError(f"there is no folder {preset_folder} with presets")
        for text in methods or default_methods():
            try:
                for scan in chosen:
                    solvers[scan.name][text], preset = _with_preset(builder, text, scan, presets, preset_folder)
                    if preset is not None:
                        console.print(f"[dim]{escape(text)}: preset {preset}[/]")
            except FileNotFoundError as error:
                if methods:
                    raise
                console.print(f"[yellow]left out:[/] {escape(text)} ({escape(str(error))})", soft_wrap=True)
        pack = opt.read_pack(data, every)
        problems = [CTProblem(pack, scan, seed=seed, batch_size=batch_size, device=device) for scan in chosen]
        comparison = Comparison(problems, samples=samples)
        comparison.run(solvers, out, progress=progress, log=lambda line: console.print(f"[dim]{escape(line)}[/]"))
        with atomic_file(out / "comparison.json") as part:
            part.write_text(json.dumps(comparison.to_dict(), indent=1, allow_nan=False) + "\n")
        with atomic_file(out / "comparison.md") as part:
            part.write_text(comparison.markdown() + f"\n{FOOTER}.\n")
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
    builder: opt.Builder, text: str, scan: Scan, presets: bool, folder: Path | None
) -> tuple[Reconstructor, str | None]:
    """The method of ``"name:option=value"`` with the preset of a folder, or else the shipped one, if there is one."""
    name, options = opt.parse_method(text)
    path = folder / scan.name / f"{name}.json" if folder is not None and presets else None
    if path is not None and path.is_file():
        return builder.build(name, options, preset=str(path)), str(path)
    return builder.for_scan(text, scan, presets=presets)
