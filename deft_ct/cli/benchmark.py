"""``deft-ct benchmark``."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from deft_ct.benchmark import Scan, run_benchmark, scores_json
from deft_ct.cli.errors import one_line_errors
from deft_ct.datasets.packs import CTPack, data_root
from deft_ct.io import atomic_file
from deft_ct.reconstruct import load_reconstructor
from deft_ct.reconstructor import Reconstructor
from deft_ct.report import FOOTER, Row, metrics_table


def benchmark(
    data: Annotated[str, typer.Option(help="Pack of slices: a path, or val, test_volumes, test_singles.")] = "val",
    every: Annotated[int, typer.Option(help="Take every k-th slice.", min=1)] = 10,
    methods: Annotated[
        list[str] | None,
        typer.Option("--method", help="Method with options, e.g. 'fbp:filter=hann'. Repeat for several."),
    ] = None,
    views: Annotated[int, typer.Option(min=1)] = 60,
    geometry: Annotated[str, typer.Option(help="parallel or fan.")] = "parallel",
    degrees: Annotated[float, typer.Option(help="Angular range of a parallel scan.")] = 180.0,
    photons: Annotated[float, typer.Option(help="Photons per detector element and view; 0 for noise-free data.")] = 1e5,
    samples: Annotated[int, typer.Option(help="Posterior samples of each slice.", min=1)] = 4,
    seed: int = 0,
    prior: Annotated[str | None, typer.Option(help="Prior: path or name.")] = None,
    htransform: Annotated[str | None, typer.Option(help="H-transform: path or name.")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file for the values of every slice.")] = None,
) -> None:
    """Measure methods on a pack of slices: one simulated scan, one noise draw, the same metrics for all."""
    with one_line_errors():
        scan = Scan(views=views, geometry=geometry, degrees=degrees, photons=photons or None)
        path = Path(data) if data.endswith(".h5") else data_root() / "ct256" / f"{data}.h5"
        solvers = dict(parse_method(text, prior, htransform) for text in methods or ["fbp", "tv", "deft"])
        scores, _ = run_benchmark(CTPack(path, every=every), scan, solvers, samples=samples, seed=seed, progress=True)
        rows = [Row(method=s.label, metrics=s.metrics, seconds_per_slice=s.seconds_per_slice) for s in scores]
        console = Console()
        console.print(metrics_table(rows, title=f"{path.name}, every {every}: {scan}; {samples} samples, seed {seed}"))
        console.print(f"{FOOTER}.")
        if out is not None:
            record = scores_json(scores, pack=path, every=every, scan=scan, samples=samples, seed=seed)
            with atomic_file(out) as part:
                part.write_text(json.dumps(record, indent=1) + "\n")


def parse_method(text: str, prior: str | None, htransform: str | None) -> tuple[str, Reconstructor]:
    """``"name"`` or ``"name:option=value,option=value"`` as a label and a method.

    Raises:
        ValueError: the text is of another form, or the method or an option is unknown.
    """
    name, _, rest = text.partition(":")
    options: dict[str, Any] = {}
    for item in filter(None, rest.split(",")):
        key, separator, value = item.partition("=")
        if not separator:
            raise ValueError(f"expected option=value in {text!r}, got {item!r}")
        try:
            options[key.strip()] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[key.strip()] = value
    return text, load_reconstructor(name, prior=prior, htransform=htransform, **options)
