"""Options that several commands share, and what their values mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, cast

import typer

from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import pack_path as pack_path
from deft_ct.datasets.packs import read_pack as read_pack
from deft_ct.methods.method_text import parse_method as parse_method
from deft_ct.methods.method_text import parse_options as parse_options
from deft_ct.methods.method_text import split_methods as split_methods
from deft_ct.methods.registry import load_reconstructor, method_class
from deft_ct.methods.supervised.model import TrainedReconstructor
from deft_ct.networks.precision import Precision, check_precision
from deft_ct.problems.ct import nearest_preset
from deft_ct.reconstructor import PriorReconstructor, Reconstructor

Views = Annotated[int, typer.Option(help="Views of the simulated scan.", min=1)]
Geometry = Annotated[str, typer.Option(help="parallel or fan.")]
Degrees = Annotated[
    float | None, typer.Option(help="Angular range; 180 of parallel beams and 360 of a fan if left out.")
]
Detectors = Annotated[
    int | None,
    typer.Option(help="Detector elements, one pixel wide each; enough to cover the image if left out.", min=1),
]
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


def scan_of(views: int, geometry: str, degrees: float | None, photons: float, detectors: int | None = None) -> Scan:
    """The scan of the options; 0 photons stand for noise-free data, None for all the degrees of the geometry."""
    arc = {} if degrees is None else {"degrees": degrees}
    return Scan(views=views, geometry=geometry, photons=photons or None, detectors=detectors, **arc)


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


@dataclass(frozen=True, kw_only=True)
class Networks:
    """Where the networks of the methods come from.

    Attributes:
        prior: path or name, or None for the shipped one.
        htransform: path or name, or None for the shipped one.
        models: method -> path or name.
        device: where to compute.
        precision: of the network evaluations.
    """

    prior: str | None = None
    htransform: str | None = None
    models: dict[str, str]
    device: str = "cpu"
    precision: Precision = "float32"


class Builder:
    """Builds methods and loads every network once.

    Args:
        networks: where they come from.
    """

    def __init__(self, networks: Networks) -> None:
        self.networks = networks
        self._loaded: dict[str, Any] = {}

    def build(self, name: str, options: dict[str, Any], *, preset: str | None = None) -> Reconstructor:
        """A method with some options; see :func:`~deft_ct.methods.registry.load_reconstructor`."""
        kept = self._loaded
        named = self.networks.htransform
        solver = load_reconstructor(
            name,
            prior=kept.get("prior", self.networks.prior),
            htransform=named if name == "deft_online" else kept.get("htransform", named),  # online: only if named
            model=kept.get(name, self.networks.models.get(name)),
            preset=preset,
            device=self.networks.device,
            precision=self.networks.precision,
            **options,
        )
        if isinstance(solver, PriorReconstructor):
            kept["prior"] = solver.prior
            if hasattr(solver, "htransform"):
                kept["htransform"] = solver.htransform
        if isinstance(solver, TrainedReconstructor):
            kept[name] = solver.model
        return solver

    def for_scan(self, text: str, scan: Scan, *, presets: bool) -> tuple[Reconstructor, str | None]:
        """The method of ``"name:option=value"`` with its shipped preset for a scan, or the one for the most similar.

        Returns:
            The method, and the name of the preset that was used; None where the method has none.
        """
        name, options = parse_method(text)
        method_class(name)
        preset = nearest_preset(name, scan) if presets else None
        return self.build(name, options, preset=preset), preset
