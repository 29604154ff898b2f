"""Helsinki Tomography Challenge 2022: MEASURED fan-beam sinograms of perforated discs.

Zenodo 6984868 and 7418878. A MATLAB file holds a struct ``CtDataFull`` (721 views over 360 degrees) or
``CtDataLimited`` (a wedge of 30 to 90 degrees) with the fields ``sinogram`` (views x detectors, already the negative
logarithm) and ``parameters``. Both encodings of MATLAB files occur: version 5, and 7.3 (HDF5, arrays transposed).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
import torch
from numpy.typing import NDArray
from scipy.io.matlab import MatReadError, matfile_version
from torch import Tensor

from deft_ct.operators.ct import FanGeometry

STRUCTS = ("CtDataLimited", "CtDataFull")
_HDF5_VERSION = 2  # of matfile_version: MATLAB 7.3


@dataclass(frozen=True, eq=False)
class HTCScan:
    """One measured scan.

    Attributes:
        sinogram: (1, 1, views, detectors) float32 line integrals, dimensionless.
        geometry: the central fan, with the angles, distances and detector that the file names.
        limited: whether the file calls it a limited-angle scan.
        parameters: everything else that the file says about the scanner.
    """

    sinogram: Tensor
    geometry: FanGeometry
    limited: bool
    parameters: dict[str, Any]


def read_htc2022(
    path: str | Path, *, image_shape: tuple[int, int] = (512, 512), pixel_mm: float | None = None
) -> HTCScan:
    """Read a scan and its geometry from a file of the challenge.

    Args:
        path: a ``.mat`` file of either encoding.
        image_shape: (H, W) of the images to reconstruct.
        pixel_mm: width of their pixels; the file's effective pixel size at the isocentre (0.148 mm) when None.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a MATLAB file, no challenge struct in it, fields that are missing, or a sinogram whose size does
            not match its angles and detector.
    """
    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(f"no such file: {source}")
    name, fields = _read_struct(source)
    parameters = fields.get("parameters")
    if "sinogram" not in fields or not isinstance(parameters, dict):
        raise ValueError(f"{source}: {name} lacks 'sinogram' or 'parameters'; is it a file of the challenge?")
    missing = [key for key in _NEEDED if key not in parameters]
    if missing:
        raise ValueError(f"{source}: {name}.parameters lacks {missing}")
    angles = np.atleast_1d(np.asarray(parameters["angles"], float))
    detectors = int(parameters["numDetectorsPost"])
    sinogram = np.asarray(fields["sinogram"], np.float32)
    if sinogram.shape != (len(angles), detectors):
        raise ValueError(
            f"{source}: sinogram is {sinogram.shape}, expected ({len(angles)} angles, {detectors} detectors)"
        )
    if not np.isfinite(sinogram).all():
        raise ValueError(f"{source}: the sinogram holds values that are not finite")
    if str(parameters.get("distanceUnit", "mm")) != "mm":
        raise ValueError(f"{source}: distances are in {parameters['distanceUnit']}, expected mm")
    geometry = FanGeometry(
        image_shape=image_shape,
        pixel_mm=float(parameters["effectivePixelSizePost"]) if pixel_mm is None else pixel_mm,
        angles=np.radians(angles),
        detectors=detectors,
        detector_mm=float(parameters["pixelSizePost"]),
        source_to_center_mm=float(parameters["distanceSourceOrigin"]),
        source_to_detector_mm=float(parameters["distanceSourceDetector"]),
    )
    return HTCScan(torch.from_numpy(sinogram)[None, None], geometry, name == "CtDataLimited", parameters)


def challenge_score(segmentation: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float:
    """The score of the challenge: Matthews' correlation coefficient of two segmentations (B. W. Matthews, 1975).

    Args:
        segmentation: (H, W), True where there is material.
        reference: (H, W), the same.

    Returns:
        1 for equal, -1 for opposite ones, about 0 for a guess; 0 where one of them has a single class.

    Raises:
        TypeError: not Boolean.
        ValueError: shapes that differ.
    """
    for name, mask in (("segmentation", segmentation), ("reference", reference)):
        if mask.dtype != np.bool_:
            raise TypeError(f"challenge_score: {name} must be Boolean, got {mask.dtype}; threshold the image first")
    if segmentation.shape != reference.shape:
        raise ValueError(f"challenge_score: shapes differ: {segmentation.shape} and {reference.shape}")
    both = float((segmentation & reference).mean())
    a, b = float(segmentation.mean()), float(reference.mean())
    spread = (a * (1 - a) * b * (1 - b)) ** 0.5
    return (both - a * b) / spread if spread else 0.0


_NEEDED = (
    "angles", "numDetectorsPost", "pixelSizePost", "effectivePixelSizePost", "distanceSourceOrigin",
    "distanceSourceDetector",
)  # fmt: skip


def _read_struct(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        version, _ = matfile_version(path, appendmat=False)
        content = _read_hdf5(path) if version == _HDF5_VERSION else _read_matlab5(path)
    except (ValueError, TypeError, MatReadError, OSError) as error:
        raise ValueError(f"{path} is not a MATLAB file ({error}); is the download complete?") from error
    for name in STRUCTS:
        if name in content:
            return name, content[name]
    raise ValueError(f"{path} holds {sorted(content)}, expected one of the structs {list(STRUCTS)}")


def _read_matlab5(path: Path) -> dict[str, Any]:
    content = scipy.io.loadmat(path, squeeze_me=True, struct_as_record=False)
    return {key: _plain(value) for key, value in content.items() if not key.startswith("__")}


def _plain(value: Any) -> Any:
    if hasattr(value, "_fieldnames"):
        return {name: _plain(getattr(value, name)) for name in value._fieldnames}
    return value


def _read_hdf5(path: Path) -> dict[str, Any]:
    with h5py.File(path, "r") as file:
        return {key: _from_hdf5(file[key]) for key in file if not key.startswith("#")}


def _from_hdf5(node: Any) -> Any:
    if isinstance(node, h5py.Group):
        return {key: _from_hdf5(node[key]) for key in node}
    if node.attrs.get("MATLAB_empty", 0):
        return np.empty(0)
    array = np.asarray(node).T  # MATLAB stores columns first
    if node.attrs.get("MATLAB_class", b"") == b"char" or array.dtype == np.uint16:
        return "".join(chr(code) for code in array.ravel())
    squeezed = array.squeeze()
    return squeezed.item() if squeezed.ndim == 0 else squeezed
