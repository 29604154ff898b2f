"""Options that several commands share, each with one type and one help text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from deft_ct.ct.scan import Scan
from deft_ct.methods.registry import method_class
from deft_ct.methods.supervised.model import TrainedReconstructor
from deft_ct.networks.precision import Precision
from deft_ct.runtime.atomic import check_writable
from deft_ct.runtime.printable import printable

T = TypeVar("T")
_BYTES = re.compile(r"(?P<number>\d+(\.\d+)?)\s*(?P<unit>[KMGT])(i?B)?", re.IGNORECASE)
_FURTHER = ("compared", "samples")

BEAMS = ("parallel", "fan")
GEOMETRY_SUFFIXES = (".yaml", ".yml", ".json")


def output_folder(text: str | Path) -> Path:
    """The folder for results, checked before any work: every command has its own way to notice late.

    Raises:
        ValueError: the name is empty, or none that a folder can have.
        FileExistsError: there is a file in the way.
        PermissionError: nothing can be written there.
    """
    if not str(text).strip():
        raise ValueError("--out is empty: name a folder for the results ('.' for this one)")
    if "\0" in str(text):
        raise ValueError("--out holds a null character, which no name of a folder may")
    path = Path(text).expanduser()
    if not (path.suffix.lower() == ".png" and path.is_file()):  # a picture that restore may replace, and nobody else
        check_writable(text, overwrite=True)
    return path


def beam(text: str) -> str:
    """A kind of beam, or the name of a geometry file.

    Raises:
        typer.BadParameter: neither.
    """
    if text in BEAMS or text.lower().endswith(GEOMETRY_SUFFIXES):
        return text
    raise typer.BadParameter(f"{printable(text)!r} is not one of 'parallel', 'fan', and names no geometry file (.yaml)")


def bytes_of(text: str) -> int:
    """The number of bytes of a text such as ``3G``, ``500M`` or ``1.5GiB``, in powers of 1024.

    Raises:
        ValueError: it has another form, or is not above 0.
    """
    found = _BYTES.fullmatch(text.strip())
    value = float(found["number"]) * 1024 ** " KMGT".index(found["unit"].upper()) if found else 0.0
    if value < 1:
        raise ValueError(f"--max-memory expects a size such as 3G or 500M, got {text!r}")
    return int(value)


def further_output(text: str | None) -> dict[str, bool]:
    """The fields of ``Output`` that a text such as ``compared,samples`` sets.

    Raises:
        ValueError: something else is named.
    """
    names = [] if text is None else [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in _FURTHER]:
        raise ValueError(f"--also knows {' and '.join(_FURTHER)}, got {printable(unknown[0])!r}")
    return dict.fromkeys(names, True)


def slices_of(text: str) -> tuple[int, int]:
    """First and last slice of a text such as ``10:40``.

    Raises:
        ValueError: it has another form.
    """
    first, separator, last = text.partition(":")
    if not (separator and first.strip().isdecimal() and last.strip().isdecimal()):
        raise ValueError(f"--slices expects FIRST:LAST, for example 10:40, got {text!r}")
    return int(first), int(last)


Out = Annotated[
    Path, typer.Option("--out", "-o", parser=output_folder, metavar="FOLDER", help="Folder for the results.")
]
Data = Annotated[
    str,
    typer.Option(
        help="Slices: an HDF5 file, or a name: train, val, test_volumes or test_singles. compare and benchmark also "
        "take KIND:FOLDER, see deft-ct data kinds. Training also takes a folder with DICOM, NIfTI or HDF5 files. "
        "Photographs are photos:FOLDER[:SIZE] or photos:FILE.h5."
    ),
]
Every = Annotated[int, typer.Option(help="Use every k-th slice.", min=1)]
Limit = Annotated[
    int | None, typer.Option(help="Keep at most so many slices of each data set, spread over its patients.", min=1)
]
Panels = Annotated[
    int | None,
    typer.Option(
        help="Images of each problem that the page shows with every method and its error, the first of each patient; "
        "1 if the suite does not say.",
        min=0,
        max=8,
    ),
]
Pictures = Annotated[
    bool,
    typer.Option(
        "--pictures", help="Photographs: write every restored picture, and the true ones, as PNG to OUT/pictures."
    ),
]
Scans = Annotated[
    list[str] | None,
    typer.Option(
        "--scan",
        help="Scan by name, for example parallel60_1e5 or parallel60_1e5_120deg. Repeat it in commands that take "
        "several scans.",
    ),
]
Views = Annotated[int | None, typer.Option(help="Number of views. Default: 60.", min=1)]
Geometry = Annotated[
    str | None,
    typer.Option(
        parser=beam,
        metavar="parallel|fan|FILE.yaml",
        help="Geometry of the beam: parallel or fan. reconstruct --projections takes a geometry file in YAML instead, "
        "see docs/projections.md. Default: parallel.",
    ),
]
Degrees = Annotated[
    float | None, typer.Option(help="Angular range of the views in degrees. Default: 180 for parallel, 360 for fan.")
]
Start = Annotated[float | None, typer.Option(help="Angle of the first view in degrees. Default: 0.")]
Photons = Annotated[
    float | None, typer.Option(help="Photons per detector element and view. 0: noise-free data. Default: 100000.")
]
Detectors = Annotated[
    int | None,
    typer.Option(
        help="Detector elements of a parallel scan, each one pixel wide. Default: as in the scan names.", min=1
    ),
]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        metavar="METHOD",
        help="Method, with options if you like: deft or 'tv:strength=80,iterations=20'. `deft-ct info` lists the "
        "methods. Repeat it in commands that take several methods.",
    ),
]
Samples = Annotated[
    int | None,
    typer.Option(
        help="Posterior samples of each image. Default: 4; reconstruct and demo draw none for a method that gives mean "
        "and spread without, such as deft; restore and tune draw 1, scaffold 8.",
        min=0,
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of all random numbers.")]
BatchSize = Annotated[int, typer.Option(help="Slices in one batch.", min=1)]
OperatorName = Annotated[
    str | None,
    typer.Option(
        "--operator",
        metavar="NAME[:KEY=VALUE,...]",
        help="Degradation of photographs: sr4, gaussian_blur:sigma=2, dps/sr4, ... An unknown name lists all. Where "
        "several may be, they are joined: sr4+denoise.",
    ),
]
PriorName = Annotated[
    str | None, typer.Option("--prior", help="Diffusion prior: a folder, a shipped name or hf:OWNER/NAME.")
]
HTransformName = Annotated[
    str | None, typer.Option("--htransform", help="h-transform: a folder, a shipped name or hf:OWNER/NAME.")
]
ModelNames = Annotated[
    list[str] | None,
    typer.Option(
        "--model", metavar="METHOD=FOLDER", help="Trained model of a supervised method. Repeat it for several methods."
    ),
]
Presets = Annotated[
    bool, typer.Option("--presets/--no-presets", help="Use the tuned parameters for the scan, or for a similar scan.")
]
Device = Annotated[str, typer.Option(help="Device of PyTorch: cpu, cuda, cuda:1, ...")]
PrecisionName = Annotated[
    Precision, typer.Option("--precision", help="Number format of the networks. Everything else is float32.")
]
MaxMinutes = Annotated[
    float | None, typer.Option(help="Stop after this time. Run the same command again to resume.", min=0)
]
RayAddress = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Run on a Ray cluster; `local` starts one on this machine.")
]
Overwrite = Annotated[bool, typer.Option(help="Replace an earlier result in OUT.")]
Progress = Annotated[bool, typer.Option(help="Show progress bars.")]


@dataclass(frozen=True, kw_only=True)
class ScanOptions:
    """Simulated scans: by name, or one scan by its values."""

    scan: Scans = None
    views: Views = None
    geometry: Geometry = None
    degrees: Degrees = None
    start: Start = None
    photons: Photons = None

    def scans(self) -> list[Scan]:
        """The scans, at least one.

        Raises:
            ValueError: there are names and values, or a value is out of range.
        """
        given = {k: v for k, v in vars(self).items() if k != "scan" and v is not None}
        if self.scan and given:
            listed = ", ".join(f"--{name}" for name in given)
            raise ValueError(f"--scan says the whole scan: leave out {listed}, or leave out --scan")
        if self.scan:
            return [Scan.from_name(name) for name in dict.fromkeys(self.scan)]
        if "photons" in given:
            given["photons"] = given["photons"] or None
        return [Scan(**given)]


def only(values: Sequence[T], option: str) -> T:
    """The single value of an option that other commands take several times.

    Raises:
        ValueError: there are several.
    """
    if len(values) != 1:
        raise ValueError(f"this command takes {option} once, got it {len(values)} times")
    return values[0]


def parse_models(items: Sequence[str] | None) -> dict[str, str]:
    """``["fbp_unet=folder"]`` as a dictionary.

    Raises:
        ValueError: an item is of another form, names a method without a model, or one that is there twice.
    """
    found: dict[str, str] = {}
    for item in items or ():
        name, separator, folder = item.partition("=")
        if not separator:
            raise ValueError(f"--model expects METHOD=FOLDER, got {item!r}")
        if not issubclass(method_class(name), TrainedReconstructor):
            raise ValueError(f"{name} takes no trained model; --model is for the supervised methods")
        if name in found:
            raise ValueError(f"--model names {name} twice, as {found[name]!r} and {folder!r}: name it once")
        found[name] = folder
    return found
