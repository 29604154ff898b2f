"""Options of ``deft-ct reconstruct`` for raw data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer


@dataclass(frozen=True, kw_only=True)
class ProjectionOptions:
    """Raw data instead of a series."""

    projections: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Helical raw data instead of a series: one DICOM-CT-PD series of projections. Unverified on a real "
            "file.",
        ),
    ] = None
    rebin: Annotated[
        bool | None,
        typer.Option(
            "--rebin/--helix",
            help="Raw data: rebin to parallel-beam slices, or work on the true rays. Default: the true rays for fbp, "
            "cgls, sirt and tikhonov.",
        ),
    ] = None
    fov: Annotated[float | None, typer.Option(help="Raw data: width of a slice in mm. Default: all.")] = None
    slice_distance: Annotated[
        float | None, typer.Option(help="Raw data: distance of the slices in mm. Default: that of the detector rows.")
    ] = None
    z_range: Annotated[
        str | None,
        typer.Option(metavar="LOW:HIGH", help="Raw data: slices along the table of the files in mm. Default: all."),
    ] = None
    mu_water: Annotated[
        float | None, typer.Option(help="Raw data: attenuation of water in 1/mm. Default: that of the files.")
    ] = None
    reverse_rows: Annotated[
        bool, typer.Option("--reverse-rows", help="Raw data: the detector rows count against the table position.")
    ] = False

    @property
    def given(self) -> list[str]:
        """The options that were given, as they are written."""
        default = ProjectionOptions()
        changed = [name for name, value in vars(self).items() if value != getattr(default, name)]
        return [f"--{name.replace('_', '-')}" for name in changed]


def parse_z_range(text: str | None) -> tuple[float, float] | None:
    """``"LOW:HIGH"`` in mm as numbers.

    Raises:
        ValueError: another form.
    """
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(":"))
    except ValueError:
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(f"--z-range expects LOW:HIGH in mm, the smaller first, got {text!r}")
    return low, high
