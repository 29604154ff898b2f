"""``deft-ct data``: what data are there."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from deft_ct.cli import options as opt
from deft_ct.cli.commands import CheckedCommand
from deft_ct.cli.errors import REFUSED, one_line, one_line_errors
from deft_ct.datasets.check import check_data
from deft_ct.datasets.findings import DataFindings, State
from deft_ct.datasets.lodopab import LoDoPaB
from deft_ct.evaluation.picture_sets import INCEPTION, INCEPTION_SHA256, SUBSETS
from deft_ct.methods.method_text import parse_method
from deft_ct.methods.registry import Networks, method_class
from deft_ct.problems.by_name import KINDS
from deft_ct.problems.ct import build_for_scan
from deft_ct.problems.ct_lodopab import lodopab_scan
from deft_ct.runtime.atomic import occupy_folder
from deft_ct.workflows.export_scaffolds import export_motifbench
from deft_ct.workflows.lodopab_challenge import write_submission
from deft_ct.workflows.picture_distance import folder_distance

app = typer.Typer(no_args_is_help=True, help="Look at data: what is there, and what is missing.")

_STYLES: dict[State, str] = {"found": "green", "missing": "bold red", "damaged": "bold red", "left out": "dim"}


@app.command(cls=CheckedCommand)
def check(
    path: Annotated[Path, typer.Argument(help="A folder or file: a data set, DICOM, NIfTI, HDF5, measured scans.")],
) -> None:
    """Say what data a folder or file holds, and what is missing or damaged, file by file.

    Example: `deft-ct data check FOLDER`

    Exit status: 0 complete, 2 something is missing, damaged or unknown.
    """
    with one_line_errors():
        found = check_data(path.expanduser())
        _show(found, path)
    if not found.complete:
        raise typer.Exit(code=REFUSED)


@app.command(cls=CheckedCommand)
def kinds() -> None:
    """List the kinds of data that have a name, for --data KIND:FOLDER[:WORD][:OPTION=VALUE].

    Example: `deft-ct data kinds`
    """
    table = Table("name", "words", "options", "what")
    for kind, one in KINDS.items():
        options = " ".join(f"{option}=..." for option in one.options)
        table.add_row(f"{kind}:FOLDER", " ".join(one.words), options, one.help)
    photographs = "photographs, for tasks such as sr4: see docs/photographs.md"
    table.add_row(Text("photos:FOLDER[@LIST][:SIZE]"), "", "", photographs)
    Console().print(table)


@app.command(cls=CheckedCommand)
def challenge(
    root: Annotated[Path, typer.Argument(help="Folder with observation_challenge_*.hdf5.")],
    out: opt.Out,
    method: opt.Methods = None,
    seed: opt.Seed = 0,
    batch_size: opt.BatchSize = 8,
    prior: opt.PriorName = None,
    htransform: opt.HTransformName = None,
    model: opt.ModelNames = None,
    device: opt.Device = "cpu",
) -> None:
    """Reconstruct the challenge set of LoDoPaB-CT and write the archive that the challenge takes.

    Example: `deft-ct data challenge FOLDER --method fbp --out OUT`

    Run the same command again to resume: finished files of 128 images are kept.
    """
    with one_line_errors(interrupted="finished files are kept; run the same command again to resume"):
        console = Console()
        name, options = parse_method(opt.only(method or ["fbp"], "--method"))
        method_class(name)
        networks = Networks(prior=prior, htransform=htransform, models=opt.parse_models(model), device=device)
        networks.load_named()
        data = LoDoPaB(root.expanduser(), "challenge")
        solver, preset = build_for_scan(networks, name, options, lodopab_scan(data.views), presets=True)
        if preset is not None:
            console.print(f"[dim]{escape(name)}: preset {escape(preset)}[/]")
        with occupy_folder(out):
            path = write_submission(
                data, solver, out, batch_size=batch_size, seed=seed, device=device,
                log=lambda line: console.print(f"[dim]{escape(line)}[/]"),
            )  # fmt: skip
        console.print(f"written to [bold]{escape(str(path))}[/]", soft_wrap=True)


@app.command(cls=CheckedCommand)
def motifbench(
    results: Annotated[
        list[str], typer.Argument(metavar="CASE=RESULT...", help="Names of test cases and folders of their results.")
    ],
    out: opt.Out,
    overwrite: opt.Overwrite = False,
) -> None:
    """Export results of `deft-ct scaffold` to the folders of MotifBench, for sequence design and structure prediction.

    Example: `deft-ct data motifbench 01_1LDB=result --out OUT`

    Chains have C-alpha atoms alone: use the CA model of ProteinMPNN. OUT/fixed_positions.jsonl keeps the motif.
    """
    with one_line_errors():
        named = {}
        for text in results:
            case, _, folder = text.partition("=")
            if not folder or case in named:
                raise ValueError(f"results are named once each, as 01_1LDB=FOLDER, got {text!r}")
            named[case] = Path(folder).expanduser()
        files = export_motifbench(named, out, overwrite=overwrite)
        Console().print(f"{len(files)} files written to [bold]{escape(str(out))}[/]", soft_wrap=True)


@app.command(cls=CheckedCommand)
def distance(
    truth: Annotated[Path, typer.Argument(metavar="TRUE_FOLDER", help="Folder with true pictures.")],
    restored: Annotated[Path, typer.Argument(metavar="RESTORED_FOLDER", help="Folder with restored pictures.")],
    inception: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help=f"The file {INCEPTION} of NVIDIA. Default: the one in PyTorch's cache."),
    ] = None,
    device: opt.Device = "cpu",
) -> None:
    """Measure how far two sets of pictures are from each other: FID and KID.

    Example: `deft-ct data distance OUT/pictures/sr4/truth OUT/pictures/sr4/tv --inception FILE`

    `deft-ct benchmark --pictures` writes such folders. Folders are read with their sub-folders. Nothing is downloaded.
    """
    with one_line_errors():
        console = Console()
        found = folder_distance(
            truth.expanduser(), restored.expanduser(), inception=inception, device=device,
            say=lambda line: console.print(f"[dim]{escape(one_line(line))}[/]", soft_wrap=True),
        )  # fmt: skip
        lines = (
            f"FID {found.fid:.4g}",
            f"KID {found.kid:.4g} +- {found.kid_std:.2g} (mean and standard deviation of {SUBSETS} subsets of "
            f"{found.subset_size} pictures)",
            f"{found.counts[0]} true and {found.counts[1]} restored pictures, {found.features} features",
            f"network: {INCEPTION}, SHA-256 {INCEPTION_SHA256}",
        )
        for line in lines:
            console.print(Text(line), soft_wrap=True)


def _show(found: DataFindings, path: Path) -> None:
    console = Console()
    count = Counter(file.state for file in found.files)
    table = Table(title=Text(f"{one_line(path)}: {found.kind}"), title_justify="left")
    for heading in ("file", "state", "what"):
        table.add_column(heading, overflow="fold")
    problems = [file for file in found.files if file.state in ("missing", "damaged")]
    # Problems come last, where a long list ends on the screen.
    shown = [*(file for file in found.files if file not in problems), *problems]
    for file in shown:
        table.add_row(Text(one_line(file.path)), Text(file.state, _STYLES[file.state]), Text(one_line(file.what)))
    console.print(table)
    for note in found.notes:
        console.print(Text(f"- {one_line(note)}"), soft_wrap=True)
    states = ", ".join(f"{count[state]} {state}" for state in _STYLES if count[state])
    console.print(Text(f"{'complete' if found.complete else 'NOT complete'}: {states}"), soft_wrap=True)
    if found.complete or count["found"]:
        for command in found.commands:
            console.print(Text(f"  {one_line(command)}"), soft_wrap=True)
