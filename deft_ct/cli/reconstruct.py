"""``deft-ct reconstruct``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from deft_ct.cli import options as opt
from deft_ct.cli.config_file import ConfigFile
from deft_ct.cli.errors import one_line_errors
from deft_ct.cli.groups import grouped
from deft_ct.cli.output import print_measured, print_patient, print_run, print_volume, refuse_failed
from deft_ct.cli.projection_options import ProjectionOptions, parse_raw
from deft_ct.ct.scan import Scan
from deft_ct.datasets.ldct_projection import is_projection_folder
from deft_ct.datasets.measured_scan import MEASURED_SUFFIXES
from deft_ct.datasets.scan_description import read_scan_description
from deft_ct.io import Chosen
from deft_ct.methods.method_text import parse_method, split_methods
from deft_ct.workflows.cohort import CohortTask, reconstruct_cohort
from deft_ct.workflows.projection_series import Slices
from deft_ct.workflows.reconstruct_measured import MeasuredSettings, reconstruct_measured
from deft_ct.workflows.reconstruct_projections import ON_THE_HELIX, HelixSettings, reconstruct_projections
from deft_ct.workflows.reconstruct_series import SparseView, reconstruct_series
from deft_ct.workflows.series_output import Output

_DEFAULTS = SparseView()
_RAW = ProjectionOptions()
_RESUME = "finished slices of a series are kept; run the same command again to resume"


@grouped
def reconstruct(
    out: opt.Out,
    series_folder: Annotated[
        Path | None,
        typer.Argument(
            help="One axial CT series: a folder, .zip, .tar.gz, DICOMDIR, .nii.gz, .mha or .nrrd; or a folder of "
            "raw data, see --projections."
        ),
    ] = None,
    simulated: opt.ScanOptions = opt.ScanOptions(),
    raw: ProjectionOptions = _RAW,
    method: opt.Methods = None,
    samples: opt.Samples = _DEFAULTS.samples,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METHODS",
            help=f"Methods to compare with, separated by commas. '' for none. Default: {','.join(_DEFAULTS.compare)}.",
        ),
    ] = None,
    series: Annotated[
        str | None, typer.Option(metavar="UID", help="SeriesInstanceUID, if the folder holds several series.")
    ] = None,
    phase: Annotated[
        str | None, typer.Option(metavar="VALUE", help="Scan phase, if the series holds several. The error lists them.")
    ] = None,
    allow_gaps: Annotated[
        bool, typer.Option("--allow-gaps", help="Accept missing slices and unequal distances of slices.")
    ] = False,
    seed: opt.Seed = _DEFAULTS.seed,
    slices: Annotated[
        str | None,
        typer.Option(
            metavar="FIRST:LAST", help="Slices of a series, from feet to head, counted from 1; all if left out."
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            help="Pixels of a side. Larger slices are averaged down to it, others padded with air. Default: the size "
            "of the series, from 256 to 1024. For helices it is 256, for other projections the number of detector "
            "elements.",
            min=1,
        ),
    ] = _DEFAULTS.size,
    max_memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Most memory, such as 3G. Default: most of what is free."),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            help="Many patients: SERIES_FOLDER holds a folder or file for each, and so many are worked on at once.",
            min=1,
        ),
    ] = None,
    ray: opt.RayAddress = None,
    config: ConfigFile = None,
    device: opt.Device = _DEFAULTS.device,
    precision: opt.PrecisionName = _DEFAULTS.precision,
    prior: opt.PriorName = None,
    htransform: opt.HTransformName = None,
    model: opt.ModelNames = None,
    parametric_map: Annotated[
        bool, typer.Option(help="Also write the posterior standard deviation as a DICOM Parametric Map.")
    ] = False,
    unmeasured_map: Annotated[
        bool, typer.Option(help="Also write a map of what the scan did not measure. Takes seconds per slice.")
    ] = False,
    also: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT",
            help="Also write as DICOM and NIfTI, separated by commas: compared (the other methods), samples (each "
            "posterior sample).",
        ),
    ] = None,
    deidentify: Annotated[
        bool,
        typer.Option("--deidentify", help="Drop or replace what identifies the patient, by DICOM PS3.15, Annex E."),
    ] = False,
    allow_burned_in: Annotated[
        bool, typer.Option("--allow-burned-in", help="De-identify although the images are known to show text.")
    ] = False,
    overwrite: opt.Overwrite = False,
    progress: opt.Progress = True,
) -> None:
    """Reconstruct a CT series, or measured projections.

    Example: `deft-ct reconstruct SERIES_FOLDER --views 60 --method deft --samples 4 --out OUT`

    A sparse-view scan of the series is simulated. Writes the posterior mean and the posterior standard deviation in HU
    as DICOM series and as NIfTI. Also writes a comparison figure, a report and run.json. OUT must be new or empty.
    Finished slices are kept in OUT.unfinished: run the same command again to resume. Measured projections need no
    simulated scan: `deft-ct reconstruct --projections FILE --out OUT --method fbp`. Many patients: `deft-ct reconstruct
    COHORT --out OUT --jobs 2`, or --ray. Research only, not for clinical use.
    """
    del config  # it has set the defaults of the others
    with one_line_errors(interrupted=_RESUME):
        output = Output(
            overwrite=overwrite, parametric_map=parametric_map, unmeasured_map=unmeasured_map, deidentify=deidentify,
            allow_burned_in=allow_burned_in, **opt.further_output(also),
        )  # fmt: skip
        given = parse_raw(raw.raw)
        source = _raw_data(series_folder, raw)
        if source is not None:
            is_file = not source.is_dir()
            _check_raw(
                simulated,
                {
                    "--compare": compare, "--series": series, "--phase": phase, "--allow-gaps": allow_gaps,
                    "--unmeasured-map": unmeasured_map, "--slices": slices, "--jobs": jobs, "--ray": ray,
                    "--max-memory": max_memory, "--also": also,
                },
                has_file=is_file,
            )  # fmt: skip
            given.check_for("file" if is_file else "helix")
            name, options = parse_method(opt.only(method or [HelixSettings().method], "--method"))
            common: dict[str, Any] = {
                "method": name, "options": options, "seed": seed, "device": device, "precision": precision,
                "prior": prior, "htransform": htransform, "models": opt.parse_models(model),
            }  # fmt: skip
            if is_file:
                measured = MeasuredSettings(
                    scan=None if simulated.geometry is None else read_scan_description(Path(simulated.geometry)),
                    chosen=given.chosen, center=given.center, align=given.align, rings=given.rings,
                    continue_truncated=given.truncation, size=size, fov_mm=given.fov, slice_mm=given.step,
                    calibration=given.calibration, photons=simulated.photons, samples=samples, **common,
                )  # fmt: skip
                print_measured(reconstruct_measured(source, out, measured, output=output, progress=progress))
                return
            helix = HelixSettings(
                rebin=given.rebin,
                slices=Slices(
                    size=Slices().size if size is None else size, fov_mm=given.fov, slice_mm=given.step, z_range=given.z
                ),
                mu_water=given.mu_water,  # type: ignore[arg-type]  # check_for refuses the word
                reverse_rows=given.reversed,
                photons=simulated.photons or 0.0,
                samples=samples if name not in ON_THE_HELIX else 1,
                **common,
            )
            print_volume(reconstruct_projections(source, out, helix, output=output, progress=progress))
            return
        if series_folder is None:
            raise ValueError("name the folder of a series, or that of raw data with --projections")
        if raw.raw is not None:
            raise ValueError(f"--raw is for raw data, and {series_folder} holds none")
        main, *others = [
            parse_method(text) for text in (opt.only(method or [_DEFAULTS.method], "--method"), *_compared(compare))
        ]
        scan = opt.only(simulated.scans(), "--scan")
        if scan.detectors != Scan().detectors:
            raise ValueError("the detector follows from the series: leave the part with 'bins' out of --scan")
        settings = SparseView(
            method=main[0],
            compare=tuple(name for name, _ in others),
            options=_options([*others, main]),
            views=scan.views,
            photons=scan.photons or 0.0,
            geometry=scan.geometry,
            degrees=scan.degrees,
            start=scan.start,
            samples=samples,
            seed=seed,
            size=size,
            device=device,
            precision=precision,
            prior=prior,
            htransform=htransform,
            models=opt.parse_models(model),
            max_bytes=None if max_memory is None else opt.bytes_of(max_memory),
        )
        chosen = Chosen(
            series_uid=series, phase=phase, allow_gaps=allow_gaps,
            slices=None if slices is None else opt.slices_of(slices),
        )  # fmt: skip
        if jobs is not None or ray is not None:
            if series is not None:
                raise ValueError("--series is of one patient, and --jobs is for many: leave one of them out")
            task = CohortTask(settings=settings, output=output, chosen=chosen, jobs=jobs or 1, ray=ray)
            refuse_failed(reconstruct_cohort(series_folder, out, task, say=print_patient), out)
            return
        run = reconstruct_series(series_folder, out, settings, output=output, chosen=chosen, progress=progress)
    print_run(run, settings)


def _raw_data(series_folder: Path | None, raw: ProjectionOptions) -> Path | None:
    """The folder or file of raw data, if that is what was named."""
    if raw.projections is not None and series_folder is not None:
        raise ValueError("name one folder: a series, or raw data with --projections")
    if raw.projections is not None:
        return raw.projections
    if series_folder is None:
        return None
    is_raw = is_projection_folder(series_folder) or series_folder.suffix.lower() in MEASURED_SUFFIXES
    return series_folder if is_raw else None


def _check_raw(simulated: opt.ScanOptions, more: dict[str, Any], *, has_file: bool) -> None:
    """Refuse what belongs to a simulated scan. A file may have a geometry file beside it."""
    described = has_file and (simulated.geometry or "").lower().endswith(opt.GEOMETRY_SUFFIXES)
    free = {"photons", "geometry"} if described else {"photons"}
    given = [f"--{name}" for name, value in vars(simulated).items() if value is not None and name not in free]
    given += [name for name, value in more.items() if value not in (None, False)]
    if given:
        raise ValueError(f"leave out {', '.join(given)}: raw data have a scan of their own, and no truth")


def _compared(texts: list[str] | None) -> list[str]:
    return list(_DEFAULTS.compare) if texts is None else split_methods(texts)


def _options(methods: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """The options of every method that has some; a method may be there again without them."""
    found: dict[str, dict[str, Any]] = {}
    for name, options in methods:
        if options and found.setdefault(name, options) != options:
            raise ValueError(f"{name} is there twice with different options: every method runs once")
    return found
