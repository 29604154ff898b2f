"""A volume to scroll through, as a part of a page that needs no network and no other program.

The viewer is ``assets/report/viewer.js``, some hundred lines on a 2D canvas. Two libraries were considered. niivue 0.69
adds 2.9 MB of script to every report and needs WebGL 2, which remote desktops often lack. It holds float volumes, so
five layers of 100 slices of 512 x 512 pixels do not fit into a page of 30 MB. Cornerstone 3D needs workers and
WebAssembly, which a page from the disk may not load. Both leave layers, metrics of a slice, keys and touch to the page.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any, Literal

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

from deft_ct.report.slice_pictures import Fineness, ToneCurve, decoded, encoded, shrunk

MOST_BYTES = 26_000_000
"""Of the pictures in a page; the figures beside them and the text need some MB more."""
LayerKind = Literal["image", "difference", "map"]
_COLORS = {"image": "gray", "difference": "RdBu_r", "map": "magma"}
_FINENESS = tuple(  # of the image, of its error, of other layers
    (Fineness(*image), Fineness(*error), Fineness(*other))
    for image, error, other in (
        ((1, 98), (1, 95), (1, 92)), ((1, 97), (1, 92), (1, 85)), ((1, 96), (1, 90), (1, 75)),
        ((1, 96), (1, 92), (2, 92)), ((1, 95), (1, 90), (2, 85)), ((1, 92), (1, 85), (2, 80)),
        ((1, 90), (1, 75), (2, 75)), ((1, 85), (2, 90), (2, 75)), ((2, 92), (2, 92), (2, 85)),
        ((2, 85), (2, 85), (4, 85)), ((2, 75), (2, 75), (4, 75)), ((4, 85), (4, 85), (4, 80)),
        ((4, 60), (4, 60), (8, 60)),
    )
)  # fmt: skip
_TISSUE = ((-960.0, 0.01), (-200.0, 0.36), (300.0, 0.83), (1300.0, 0.96))
"""HU, and the share of codes up to it."""
_SAMPLE = 5


@dataclass(frozen=True, kw_only=True)
class ViewWindow:
    """A preset of grey levels.

    Attributes:
        name: shown in the list.
        level: centre, in the unit of the image.
        width: from black to white.
        limit: end of the colours of differences and maps.
    """

    name: str
    level: float
    width: float
    limit: float


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One volume of values.

    Attributes:
        key: short name, in addresses of the page.
        title: shown.
        kind: "image" in grey, "difference" with a sign, or "map" from 0 up.
        unit: of the values.
        volume: reads ``(Z, H, W)``; called once or twice, so that no more than one layer is in memory.
        subtracted: of a difference: title of the image that was subtracted from the first layer; it is shown, too.
        primary: whether it is kept in full resolution longer than others, as the first layer is.
    """

    key: str
    title: str
    kind: LayerKind
    unit: str
    volume: Callable[[], NDArray[np.float32]]
    subtracted: str | None = None
    primary: bool = False


@dataclass(frozen=True, kw_only=True)
class VolumeView:
    """What the viewer shows.

    Attributes:
        layers: the image first.
        spacing_zyx: distances of slices, rows and columns, in one unit.
        windows: presets, the first one shown first.
        directions: letters of the patient's axes towards which (column, row, slice) grow, such as ``("L", "P", "H")``;
            empty if there is no patient.
        names: of the slices; "slice N" if there are none.
        worst: number of the slice that is worst, from 0, and by what.
        metrics: method -> heading -> values, slice by slice.
        stacked: whether the slices are a volume, which has coronal and sagittal planes.
    """

    layers: Sequence[Layer]
    spacing_zyx: tuple[float, float, float]
    windows: Sequence[ViewWindow]
    directions: tuple[str, ...] = ()
    names: Sequence[str] = ()
    worst: tuple[int, str] | None = None
    metrics: Mapping[str, Mapping[str, Sequence[str]]] | None = None
    stacked: bool = True


def axis_letters(affine: NDArray[np.floating]) -> tuple[str, str, str]:
    """The letters towards which column, row and slice grow, of an affine to LPS millimetres."""
    letters = ("LR", "PA", "HF")
    found = []
    for axis in range(3):
        step = affine[:3, axis]
        largest = int(np.abs(step).argmax())
        found.append(letters[largest][int(step[largest] < 0)])
    return found[0], found[1], found[2]


def viewer_html(view: VolumeView, *, max_bytes: int = MOST_BYTES) -> str:
    """The viewer as a fragment of HTML with its styles, script and pictures.

    Pictures are as fine as ``max_bytes`` allows: first they are compressed more, then pixels of the maps and the
    differences are averaged, then those of the image.

    Args:
        view: what is shown.
        max_bytes: most bytes of the pictures.

    Returns:
        HTML; a sentence that says so where the volume is too large for a page.

    Raises:
        ValueError: there are no layers, the first is no image, or shapes differ.
    """
    if not view.layers or view.layers[0].kind != "image":
        raise ValueError("a viewer needs layers, the first one an image")
    layers = _layers(view, max_bytes)
    if layers is None:
        return "<p>The volume is too large for the viewer of this page: open the DICOM or NIfTI files.</p>"
    shape = layers[0]["shape"]
    data = {
        "layers": layers, "spacing": list(view.spacing_zyx), "shape": shape, "directions": list(view.directions),
        "windows": [asdict(window) for window in view.windows], "names": list(view.names), "worst": view.worst,
        "metrics": view.metrics or {}, "stacked": view.stacked and shape[0] > 1,
        "colors": {kind: _table(name) for kind, name in _COLORS.items()},
    }  # fmt: skip
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return (
        _asset("viewer.html")
        .replace("{{style}}", _asset("viewer.css"))
        .replace("{{label}}", escape(view.layers[0].title))
        .replace("{{script}}", _asset("viewer.js"))
        .replace("{{data}}", text)
    )


def _layers(view: VolumeView, max_bytes: int) -> list[dict[str, Any]] | None:
    """All layers as plain values, at the first fineness that fits."""
    curves: list[ToneCurve] = []
    samples: list[NDArray[np.float32]] = []
    shape: tuple[int, ...] = ()
    for layer in view.layers:
        volume = layer.volume()
        shape = shape or volume.shape
        if volume.ndim != 3 or volume.shape != shape:
            raise ValueError(f"layer {layer.key} has shape {volume.shape}, expected (Z, H, W), the same for all")
        curves.append(_curve(volume, layer))
        chosen = np.unique(np.linspace(0, len(volume) - 1, _SAMPLE).round().astype(int))
        samples.append(volume[chosen].copy())
        del volume
    for image, error, other in _FINENESS:
        given = [image, *(error if layer.primary else other for layer in view.layers[1:])]
        each = (
            sum(len(encoded(image, curve, fine)) for image in sample) / len(sample)
            for sample, curve, fine in zip(samples, curves, given, strict=True)
        )
        if shape[0] * sum(each) > max_bytes:
            continue
        found = [
            _plain(layer, curve, fine, sample)
            for layer, curve, fine, sample in zip(view.layers, curves, given, samples, strict=True)
        ]
        if sum(len(text) for one in found for text in one["slices"]) <= max_bytes:
            return found
    return None


def _plain(layer: Layer, curve: ToneCurve, fine: Fineness, sample: NDArray[np.float32]) -> dict[str, Any]:
    volume = layer.volume()
    return {
        "key": layer.key, "title": layer.title, "kind": layer.kind, "unit": layer.unit,
        # An image made of a difference would be blurred where the difference is.
        "subtracted": layer.subtracted if fine.shrink == 1 else None,
        "shrink": fine.shrink, "shape": list(volume.shape),
        "values": [float(f"{value:.6g}") for value in curve.values],
        "within": float(f"{_loss(sample, curve, fine):.2g}"),
        "slices": [encoded(image, curve, fine) for image in volume],
    }  # fmt: skip


def _loss(sample: NDArray[np.float32], curve: ToneCurve, fine: Fineness) -> float:
    """What 95 % of the pixels that are shown are within, of those that do not lie at the lower end (air)."""
    errors = []
    for image in sample:
        exact = shrunk(image, fine.shrink)
        inside = curve.codes(exact) > 2
        difference = np.abs(decoded(encoded(image, curve, fine), curve) - exact)
        errors.append(difference[inside] if inside.any() else difference.ravel())
    return float(np.percentile(np.concatenate(errors), 95))


def _curve(volume: NDArray[np.float32], layer: Layer) -> ToneCurve:
    """Fine in soft tissue and lungs for CT numbers, at the typical size of differences and maps, else even."""
    low, high = float(volume.min()), float(volume.max())
    if layer.kind == "image":
        high = max(high, low + 1e-6 * max(abs(low), 1.0))
        if layer.unit == "HU" and low < _TISSUE[0][0] and high > _TISSUE[-1][0]:
            return ToneCurve.through([(low, 0.0), *_TISSUE, (high, 1.0)])
        return ToneCurve.through([(low, 0.0), (high, 1.0)])
    reach = max(abs(low), abs(high)) or 1.0
    typical = max(float(np.sqrt(np.mean(np.square(volume, dtype=np.float64)))), 1e-3 * reach)
    return ToneCurve.around_zero(-reach if layer.kind == "difference" else 0.0, reach, typical)


@cache
def _table(name: str) -> list[int]:
    """256 colours as numbers 0xRRGGBB."""
    colors = (colormaps[name](np.linspace(0, 1, 256))[:, :3] * 255).round().astype(int)
    return [int(r) << 16 | int(g) << 8 | int(b) for r, g, b in colors]


@cache
def _asset(name: str) -> str:
    return files("deft_ct").joinpath("assets", "report", name).read_text(encoding="utf-8")
