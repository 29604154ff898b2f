"""``deft-ct scaffold``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from deft_ct.cli import options as opt
from deft_ct.cli.errors import one_line_errors
from deft_ct.methods.method_text import parse_method
from deft_ct.workflows.scaffold import NOTICE, ScaffoldSettings, scaffold_motif


def scaffold(
    motif: Annotated[Path, typer.Argument(metavar="MOTIF", help="A PDB or mmCIF file that holds the motif.")],
    out: opt.Out,
    contig: Annotated[
        str, typer.Option(help="Numbers of free residues and segments of the motif, in order: 10-30,A23-35,10-30.")
    ],
    length: Annotated[
        str | None, typer.Option(metavar="N[-M]", help="Residues of a chain. Default: as the contig allows.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="How closely the motif is held: standard deviation of a coordinate in angstrom.")
    ] = 0.1,
    method: opt.Methods = None,
    samples: opt.Samples = None,
    seed: opt.Seed = 0,
    likelihood: Annotated[
        bool,
        typer.Option("--likelihood", help="Add how likely CA-ProteinMPNN finds its own sequences for a chain."),
    ] = False,
    device: opt.Device = "cpu",
    prior: opt.PriorName = None,
    htransform: opt.HTransformName = None,
    model: opt.ModelNames = None,
    overwrite: opt.Overwrite = False,
    progress: opt.Progress = True,
) -> None:
    """Draw protein backbones that carry a motif (C-alpha atoms).

    Example: `deft-ct scaffold motif.pdb --contig "10-30,A23-35,10-30" --out result`

    Writes a PDB file for each chain, scaffolds.csv, scaffolds.png, index.html and run.json. The chains are
    judged by geometry. Whether a sequence folds into a chain is not asked.
    """
    with one_line_errors():
        name, options = parse_method(opt.only(method or ["deft"], "--method"))
        settings = ScaffoldSettings(
            contig=contig, length=length, tolerance=tolerance, method=name, options=options,
            samples=ScaffoldSettings.samples if samples is None else samples, seed=seed, device=device, prior=prior,
            htransform=htransform, models=opt.parse_models(model), likelihood=likelihood,
        )  # fmt: skip
        found = scaffold_motif(motif, out, settings, overwrite=overwrite, progress=progress)
    console = Console(soft_wrap=True, highlight=False)
    good = sum(one.scores.solved for one in found)
    best = min(one.scores.motif_rmsd for one in found)
    console.print(f"{len(found)} chains, {good} well formed with the motif; smallest motif RMSD {best:.2f} A")
    console.print(f"[dim]{escape(NOTICE)}[/]")
    console.print(f"written to [bold]{escape(str(out))}[/]")
