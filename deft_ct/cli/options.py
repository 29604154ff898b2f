"""Options that several commands share, and what their values mean."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import CTPack, data_root
from deft_ct.methods.registry import load_reconstructor, method_class
from deft_ct.methods.supervised.model import TrainedReconstructor
from deft_ct.networks.precision import Precision, check_precision

Views = Annotated[int, typer.Option(help="Views of the simulated scan.", min=1)]
Geometry = Annotated[str, typer.Option(help="parallel or fan.")]
Degrees = Annotated[
    float | None, typer.Option(help="Angular range; 180 of parallel beams and 360 of a fan if left out.")
]
Detectors = Annotated[int, typer.Option(help="Detector elements of a parallel scan, one pixel wide each.", min=1)]
Photons = Annotated[float, typer.Option(help="Photons per detector element and view; 0 for noise-free data.")]
Data = Annotated[str, typer.Option(help="Pack of slices: a path, or val, test_volumes, test_singles.")]
Every = Annotated[int, typer.Option(help="Take every k-th slice.", min=1)]
Samples = Annotated[int, typer.Option(help="Posterior samples of each slice.", min=1)]
Seed = Annotated[int, typer.Option(help="Seed of noise and sampling.")]
BatchSize = Annotated[int, typer.Option(help="Slices at once.", min=1)]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")]
PrecisionName = Annotated[
    str, typer.Option("--precision", help="Of network evaluations: float32, bfloat16 or float16.")
]
PriorName = Annotated[str | None, typer.Option("--prior", help="Diffusion prior: folder or shipped name.")]
HTransformName = Annotated[str | None, typer.Option("--htransform", help="h-transform: folder or shipped name.")]
ModelNames = Annotated[
    list[str] | None,
    typer.Option("--model", metavar="METHOD=FOLDER", help="Trained model of a supervised method. Repeat for several."),
]
Methods = Annotated[
    list[str] | None,
    typer.Option("--method", help="Method with options, e.g. 'fbp:filter=hann'. Repeat for several."),
]
Presets = Annotated[
    bool, typer.Option("--presets/--no-presets", help="Use the shipped preset of the scan, or of the most similar one.")
]


def scan_of(views: int, geometry: str, degrees: float | None, photons: float, detectors: int = 364) -> Scan:
    """The scan of the options; 0 photons stand for noise-free data, None for all the degrees of the geometry."""
    arc = {} if degrees is None else {"degrees": degrees}
    return Scan(views=views, geometry=geometry, photons=photons or None, detectors=detectors, **arc)


def pack_path(data: str) -> Path:
    """A path to an HDF5 file as it is, and a name as a pack of the data root."""
    return Path(data) if data.endswith((".h5", ".hdf5")) else data_root() / "ct256" / f"{data}.h5"


def read_pack(data: str, every: int) -> CTPack:
    """The pack of the options."""
    return CTPack(pack_path(data), every=every)


def parse_options(items: Sequence[str], *, where: str) -> dict[str, Any]:
    """``["a=1", "b=x"]`` as ``{"a": 1, "b": "x"}``.

    Raises:
        ValueError: an item is of another form.
    """
    options: dict[str, Any] = {}
    for item in items:
        key, separator, value = item.partition("=")
        if not separator:
            raise ValueError(f"expected option=value in {where!r}, got {item!r}")
        try:
            options[key.strip()] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[key.strip()] = value
    return options


OF_THE_COMMAND = frozenset(signature(load_reconstructor).parameters)
"""What ``load_reconstructor`` takes beside the fields of a method's configuration."""


def parse_method(text: str) -> tuple[str, dict[str, Any]]:
    """``"name"`` or ``"name:option=value,option=value"`` as a name and options.

    Raises:
        ValueError: the text is of another form, or an option is one of the command.
    """
    name, _, rest = text.partition(":")
    options = parse_options([item for item in rest.split(",") if item], where=text)
    if taken := sorted(set(options) & OF_THE_COMMAND):
        raise ValueError(f"{', '.join(taken)} in {text!r} is an option of the command, not of a method")
    return name, options


def split_methods(texts: Sequence[str]) -> list[str]:
    """``["fbp,tv:strength=80,iterations=20", "dds"]`` as ``["fbp", "tv:strength=80,iterations=20", "dds"]``."""
    found: list[str] = []
    for item in (part.strip() for text in texts for part in text.split(",")):
        if found and ":" in found[-1] and "=" in item and ":" not in item:
            found[-1] += f",{item}"
        elif item:
            found.append(item)
    return found


def parse_models(items: Sequence[str] | None) -> dict[str, str]:
    """``["fbp_unet=folder"]`` as a dictionary.

    Raises:
        ValueError: an item is of another form, or names a method without a model.
    """
    found = {}
    for item in items or ():
        name, separator, folder = item.partition("=")
        if not separator:
            raise ValueError(f"--model expects METHOD=FOLDER, got {item!r}")
        if not issubclass(method_class(name), TrainedReconstructor):
            raise ValueError(f"{name} takes no trained model; --model is for the supervised methods")
        found[name] = folder
    return found


def parse_precision(name: str) -> Precision:
    """A precision by name."""
    return check_precision(cast(Precision, name))
