"""``deft-ct reconstruct``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from deft_ct.cli.errors import one_line_errors
from deft_ct.cli.options import ModelNames, PrecisionName, parse_method, parse_models, parse_precision, split_methods
from deft_ct.cli.output import print_run
from deft_ct.workflows.reconstruct_series import SparseView, reconstruct_series

_DEFAULTS = SparseView()


def reconstruct(
    series_folder: Annotated[Path, typer.Argument(help="Folder, .zip or DICOMDIR with one axial CT series.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results; new or empty.")],
    views: Annotated[int, typer.Option(help="Simulated views.")] = _DEFAULTS.views,
    photons: Annotated[float, typer.Option(help="Photons per detector element and view.")] = _DEFAULTS.photons,
    method: Annotated[
        str,
        typer.Option(
            metavar="METHOD", help="NAME or NAME:option=value,option=value; `deft-ct info` lists the methods."
        ),
    ] = _DEFAULTS.method,
    samples: Annotated[int, typer.Option(help="Posterior samples of every slice.")] = _DEFAULTS.samples,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METHODS",
            help="Methods to run beside it, separated by commas or repeated; '' for none. "
            f"Default: {','.join(_DEFAULTS.compare)}.",
        ),
    ] = None,
    geometry: Annotated[str, typer.Option(help="parallel or fan.")] = _DEFAULTS.geometry,
    degrees: Annotated[
        float | None, typer.Option(help="Angular range of the views; 180 (parallel) or 360 (fan) by default.")
    ] = _DEFAULTS.degrees,
    start: Annotated[float, typer.Option(help="Angle of the first view in degrees.")] = _DEFAULTS.start,
    series: Annotated[str | None, typer.Option(metavar="UID", help="SeriesInstanceUID, if there are several.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of noise and sampling.")] = _DEFAULTS.seed,
    size: Annotated[int, typer.Option(help="Slices are averaged down to this side.")] = _DEFAULTS.size,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = _DEFAULTS.device,
    precision: PrecisionName = _DEFAULTS.precision,
    prior: Annotated[str | None, typer.Option(help="Diffusion prior: folder or shipped name.")] = None,
    htransform: Annotated[str | None, typer.Option(help="h-transform: folder or shipped name.")] = None,
    model: ModelNames = None,
    parametric_map: Annotated[bool, typer.Option(help="Write the spread as DICOM Parametric Map, too.")] = False,
    unmeasured_map: Annotated[
        bool, typer.Option(help="Write a map of what the scan did not measure, too; seconds a slice.")
    ] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier result in OUT.")] = False,
    progress: Annotated[bool, typer.Option(help="Show progress bars.")] = True,
) -> None:
    """Simulate a sparse-view scan of a CT series and reconstruct it.

    Writes derived DICOM series of the posterior mean and of its spread in HU, both as NIfTI, a comparison figure, a
    report and run.json. Research only, not for clinical use.
    """
    with one_line_errors():
        main, *others = [parse_method(text) for text in (method, *_compared(compare))]
        settings = SparseView(
            method=main[0],
            compare=tuple(name for name, _ in others),
            options=_options([*others, main]),
            views=views,
            photons=photons,
            geometry=geometry,
            degrees=degrees,
            start=start,
            samples=samples,
            seed=seed,
            size=size,
            device=device,
            precision=parse_precision(precision),
        )
        run = reconstruct_series(
            series_folder,
            out,
            settings,
            series_uid=series,
            prior=prior,
            htransform=htransform,
            models=parse_models(model),
            overwrite=overwrite,
            parametric_map=parametric_map,
            unmeasured_map=unmeasured_map,
            progress=progress,
        )
    print_run(run, settings)


def _compared(texts: list[str] | None) -> list[str]:
    return list(_DEFAULTS.compare) if texts is None else split_methods(texts)


def _options(methods: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """The options of every method that has some; a method may be there again without them."""
    found: dict[str, dict[str, Any]] = {}
    for name, options in methods:
        if options and found.setdefault(name, options) != options:
            raise ValueError(f"{name} is there twice with different options: every method runs once")
    return found
