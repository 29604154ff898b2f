"""Small files of measured projections in every layout, from a phantom whose line integrals are known exactly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
from PIL import Image

from deft_ct.datasets.phantoms import Ellipse, EllipsePhantom
from deft_ct.operators.ct import FanGeometry, ParallelGeometry

WATER = 0.02
PHANTOM = EllipsePhantom(
    (
        Ellipse(value=WATER, center_mm=(3.0, -2.0), half_axes_mm=(22.0, 17.0)),
        Ellipse(value=0.01, center_mm=(-4.0, 6.0), half_axes_mm=(5.0, 3.0)),
        Ellipse(value=-WATER, center_mm=(12.0, -4.0), half_axes_mm=(4.0, 4.0)),
    )
)
"""Water with something dense above on the left and a hole below on the right."""
HOLE = (12.0, -4.0, 2.5)
FLUID = (0.0, -8.0, 5.0)
"""Places ``(x, y, radius)`` in mm of nothing but air, and of nothing but water."""

PARALLEL = ParallelGeometry(image_shape=(64, 64), pixel_mm=1.0, views=90, detectors=80, detector_mm=1.0)
FAN = FanGeometry(
    image_shape=(64, 64), pixel_mm=1.0, views=120, detectors=96, detector_mm=1.5, source_to_center_mm=200.0,
    source_to_detector_mm=400.0,
)  # fmt: skip
PARALLEL_YAML = "beam: parallel\ndetector_mm: 1\n"
FAN_YAML = "beam: fan\ndetector_mm: 1.5\nsource_to_center_mm: 200\nsource_to_detector_mm: 400\n"


def lines(geometry: ParallelGeometry | FanGeometry, slices: int | None = None) -> np.ndarray:
    """``(views, detectors)`` float32 line integrals; with ``slices`` a stack, slice ``k`` times ``1 + k``."""
    one = PHANTOM.sinogram(geometry)[0].numpy()
    return one if slices is None else np.stack([(1 + k) * one for k in range(slices)])


@dataclass(frozen=True)
class Counts:
    """Counts with their fields, ``(views, slices, detectors)`` and ``(frames, slices, detectors)``."""

    data: np.ndarray
    flats: np.ndarray
    darks: np.ndarray


def counts(stack: np.ndarray) -> Counts:
    """Noise-free counts of ``(slices, views, detectors)`` line integrals, with uneven flats and darks."""
    rng = np.random.default_rng(0)
    shape = stack.shape[0], stack.shape[2]
    flats, darks = rng.uniform(2e4, 3e4, (3, *shape)), rng.uniform(80, 150, (2, *shape))
    beam = flats.mean(0) - darks.mean(0)
    return Counts(darks.mean(0) + beam * np.exp(-stack.transpose(1, 0, 2)), flats, darks)


def write_data_exchange(path: Path, *, center: float | None = None, slices: int = 2) -> Path:
    geometry = PARALLEL if center is None else PARALLEL.replace(axis_offset_mm=center - 39.5)
    made = counts(lines(geometry, slices))
    with h5py.File(path, "w") as file:
        file["exchange/data"], file["exchange/data_white"], file["exchange/data_dark"] = (
            made.data,
            made.flats,
            made.darks,
        )
        file["exchange/theta"] = np.degrees(geometry.angle_array)
        file["exchange/theta"].attrs["units"] = "degrees"
    return path


def write_htc(path: Path) -> Path:
    parameters = {
        "distanceSourceOrigin": 200.0, "distanceSourceDetector": 400.0, "distanceUnit": "mm",
        "angles": np.degrees(FAN.angle_array), "numDetectorsPost": 96, "pixelSizePost": 1.5,
        "effectivePixelSizePost": 0.75,
    }  # fmt: skip
    scipy.io.savemat(path, {"CtDataFull": {"type": "2d", "sinogram": lines(FAN), "parameters": parameters}})
    return path


def write_cil(path: Path, frames: int = 3) -> Path:
    with h5py.File(path, "w") as file:
        data = file.create_dataset("entry1/tomo_entry/data/data", data=lines(FAN, frames))
        data.attrs.update({
            "data_type": "AcquisitionData", "dim0": "channel", "dim1": "angle", "dim2": "horizontal", "dimension": "2D",
            "geometry": "cone", "panel_origin": "bottom-left", "pixel_size_h": 1.5,
        })  # fmt: skip
        config = file.create_group("entry1/tomo_entry/config")
        config["source/position"], config["detector/position"] = [0.0, 200.0], [0.0, -200.0]
        config["rotation_axis/position"], config["detector/direction_x"] = [0.0, 0.0], [1.0, 0.0]
        config["angles"] = np.degrees(FAN.angle_array)
        config["angles"].attrs["angle_unit"] = "degree"
    return path


def write_plain(path: Path, *, fan: bool = False, **more: Any) -> tuple[Path, Path]:
    """A file without any geometry, by its suffix, and a geometry file beside it; ``more`` goes into ``.npz``."""
    data = lines(FAN if fan else PARALLEL)
    if path.suffix == ".npy":
        np.save(path, data)
    elif path.suffix == ".npz":
        np.savez(path, sinogram=data, **more)
    elif path.suffix == ".tif":
        Image.fromarray(data).save(path)
    else:
        scipy.io.savemat(path, {"sinogram": data})
    yaml = path.with_suffix(".yaml")
    yaml.write_text(FAN_YAML if fan else PARALLEL_YAML)
    return path, yaml
