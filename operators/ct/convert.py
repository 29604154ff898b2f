"""Conversion of geometries to and from ASTRA, tomosipo and ODL.

All of them describe the same lines: an object that is turned with its scan keeps its sinogram. The other libraries are
imported when they are used; ASTRA's geometries are plain dictionaries and need no import.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from deft_ct.operators.ct.geometry import FanGeometry, ParallelGeometry, PlanarGeometry
from deft_ct.operators.ct.rays import Array
from deft_ct.operators.ct.scan import VolumeRays
from deft_ct.operators.ct.vectors import AnyGeometry, Geometry, ScanVectors, geometry_from_vectors, scan_vectors

__all__ = ["from_astra", "from_odl", "from_tomosipo", "import_tomosipo", "to_astra", "to_astra_3d", "to_odl",
           "to_tomosipo"]  # fmt: skip


def to_astra(geometry: AnyGeometry) -> tuple[dict[str, Any], dict[str, Any]]:
    """ASTRA's volume and projection geometry of a scan, in mm.

    Args:
        geometry: a parallel geometry, a fan geometry with a flat detector, a cone geometry, or one by vectors.

    Returns:
        (volume geometry, projection geometry); the latter by vectors where there are offsets. Two-dimensional for
        parallel and fan beams; for cones see :func:`to_astra_3d`.

    Raises:
        ValueError: ASTRA has no such geometry (curved detector).
    """
    if isinstance(geometry, VolumeRays):
        return to_astra_3d(geometry)
    vectors = scan_vectors(geometry)
    projection: dict[str, Any] = {"DetectorCount": geometry.detectors}
    centred = isinstance(geometry, PlanarGeometry) and geometry.detector_offset_mm == geometry.axis_offset_mm == 0
    if isinstance(geometry, PlanarGeometry) and centred:
        projection |= {"DetectorWidth": geometry.detector_mm, "ProjectionAngles": geometry.angle_array}
    else:
        parts = (vectors.beam, vectors.center, vectors.column_step)
        projection["Vectors"] = np.concatenate([part[:, :2] for part in parts], -1)
    projection["type"] = ("parallel" if vectors.parallel else "fanflat") + ("" if centred else "_vec")
    if centred and isinstance(geometry, FanGeometry):
        projection["DistanceOriginSource"] = geometry.source_to_center_mm
        projection["DistanceOriginDetector"] = geometry.source_to_detector_mm - geometry.source_to_center_mm
    return _astra_volume(geometry.image_shape, geometry.pixel_rc), projection


def to_astra_3d(geometry: AnyGeometry, slices: int = 1) -> tuple[dict[str, Any], dict[str, Any]]:
    """ASTRA's three-dimensional volume and projection geometry, by vectors.

    ASTRA's 3D data are ``(detector rows, views, detector columns)`` and its volumes ``(slices, rows, columns)``. The
    geometries describe the same lines in space. But rows count upwards in ASTRA's volumes, and downwards in its
    two-dimensional images and in ours. So flip the rows of the arrays.

    Args:
        geometry: any scan but one with a curved detector. Two-dimensional ones become one slice 1 mm thick.
        slices: for parallel beams, how many slices and detector rows: a batch.

    Raises:
        ValueError: a curved detector, or several slices of a divergent beam.
    """
    vectors = scan_vectors(geometry)
    rows, columns = vectors.detectors
    if isinstance(geometry, VolumeRays):
        shape, voxel = geometry.image_shape, geometry.voxel_zyx
    else:
        shape, voxel = (slices, *geometry.image_shape), (1.0, *geometry.pixel_rc)
    if slices != 1:
        if not vectors.parallel:
            raise ValueError(f"only slices of a parallel beam can be stacked; got slices = {slices} for {geometry}")
        rows = slices
    parts = (vectors.beam, vectors.center, vectors.column_step, vectors.row_step)
    kind = "parallel3d_vec" if vectors.parallel else "cone_vec"
    projection = {
        "type": kind, "DetectorRowCount": rows, "DetectorColCount": columns,
        "Vectors": np.concatenate(parts, -1),
    }  # fmt: skip
    volume = _astra_volume(shape[1:], voxel[1:])
    half = 0.5 * shape[0] * voxel[0]
    volume["GridSliceCount"] = shape[0]
    volume["option"] |= {"WindowMinZ": -half, "WindowMaxZ": half}
    return volume, projection


def from_astra(volume: Mapping[str, Any], projection: Mapping[str, Any]) -> Geometry:
    """The scan that a pair of ASTRA geometries describes, in the unit of theirs: the inverse of :func:`to_astra`.

    Args:
        volume: of ``astra.create_vol_geom``, centred at the origin.
        projection: of ``astra.create_proj_geom``: ``parallel``, ``fanflat``, ``parallel3d``, ``cone`` or the ``_vec``
            form of one of them.

    Raises:
        ValueError: another type, a volume off centre, or a scan that is not on a circle or helix.
    """
    shape, voxel = _from_astra_volume(volume)
    kind = projection.get("type")
    angles = np.asarray(projection.get("ProjectionAngles", ()), dtype=np.float64)
    image: dict[str, Any] = {"image_shape": shape[1:], "pixel_mm": voxel[1:]}
    if kind in ("parallel", "fanflat"):
        width = float(projection["DetectorWidth"])
        image |= {"angles": angles, "detectors": int(projection["DetectorCount"]), "detector_mm": width}
        if kind == "parallel":
            return ParallelGeometry(**image)
        to_center = float(projection["DistanceOriginSource"])
        to_detector = to_center + float(projection["DistanceOriginDetector"])
        return FanGeometry(**image, source_to_center_mm=to_center, source_to_detector_mm=to_detector)
    if kind in ("parallel_vec", "fanflat_vec"):
        given = np.asarray(projection["Vectors"], dtype=np.float64).reshape(-1, 3, 2)
        beam, center, step = np.pad(given, [(0, 0), (0, 0), (0, 1)]).transpose(1, 0, 2)
        up, detectors = np.broadcast_to([0.0, 0.0, 1.0], beam.shape), (1, int(projection["DetectorCount"]))
    elif kind in ("parallel3d", "cone", "parallel3d_vec", "cone_vec"):
        given = _vectors_3d(projection, angles) if kind in ("parallel3d", "cone") else projection["Vectors"]
        beam, center, step, up = np.asarray(given, dtype=np.float64).reshape(-1, 4, 3).transpose(1, 0, 2)
        detectors = int(projection["DetectorRowCount"]), int(projection["DetectorColCount"])
    else:
        raise ValueError(f"ASTRA geometries of type {kind!r} cannot be converted")
    vectors = ScanVectors(
        parallel=str(kind).startswith("parallel"), beam=beam, center=center, column_step=step, row_step=up,
        detectors=detectors,
    )  # fmt: skip
    return geometry_from_vectors(vectors, shape, voxel)


def to_tomosipo(geometry: AnyGeometry, slices: int = 1) -> tuple[Any, Any]:
    """The volume and projection geometry of tomosipo (of 3D vectors); see :func:`to_astra_3d` for the arguments.

    Raises:
        ImportError: tomosipo is not installed.
        ValueError: a curved detector, or several slices of a divergent beam.
    """
    ts = import_tomosipo()
    volume, projection = to_astra_3d(geometry, slices)
    return ts.from_astra(volume), ts.from_astra(projection)


def from_tomosipo(volume: Any, projection: Any) -> Geometry:
    """The scan of a pair of tomosipo geometries: the inverse of :func:`to_tomosipo`.

    Raises:
        ValueError: a volume off centre or turned, or a scan that is not on a circle or helix.
    """
    return from_astra(volume.to_astra(), projection.to_vec().to_astra())


def import_tomosipo() -> Any:
    """The ``tomosipo`` module.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import tomosipo
    except ImportError as error:
        raise ImportError(
            "this needs tomosipo, which is not on PyPI: pip install deft-ct[tomosipo] "
            '"tomosipo @ git+https://github.com/cicwi/tomosipo.git@v0.7.0"'
        ) from error
    return tomosipo


def to_odl(geometry: PlanarGeometry) -> tuple[Any, Any]:
    """ODL's space of images (float32) and its tomographic geometry.

    ODL's first axis is its x; here it stays the row. So its angles are a quarter of a turn ahead of ours, and its
    arrays are the same as ours.

    Args:
        geometry: parallel or fan, flat or curved; the angles must ascend.

    Raises:
        ImportError: ODL is not installed.
        ValueError: the angles do not ascend.
        TypeError: a cone geometry.
    """
    from deft_ct.operators.interop import import_odl

    if not isinstance(geometry, ParallelGeometry | FanGeometry):
        raise TypeError(f"to_odl needs a parallel or fan geometry, got {type(geometry).__name__}")
    if (np.diff(geometry.angle_array) <= 1e-9).any():
        raise ValueError("ODL needs ascending angles: sort the views, geometry.replace(angles=sorted(...))")
    odl = import_odl()
    tomo: Any = importlib.import_module("odl.applications.tomo")
    corner = [0.5 * n * d for n, d in zip(geometry.image_shape, geometry.pixel_rc, strict=True)]
    space = odl.uniform_discr([-c for c in corner], corner, geometry.image_shape, dtype="float32")
    views = _odl_angles(odl, geometry.angle_array + math.pi / 2)
    half, offset = 0.5 * geometry.detectors * geometry.detector_mm, geometry.detector_offset_mm
    if isinstance(geometry, ParallelGeometry):
        offset -= geometry.axis_offset_mm
        line = odl.uniform_partition(offset - half, offset + half, geometry.detectors)
        return space, tomo.Parallel2dGeometry(views, line)
    curved = geometry.detector == "curved"
    unit = geometry.source_to_detector_mm if curved else 1.0
    line = odl.uniform_partition((offset - half) / unit, (offset + half) / unit, geometry.detectors)

    def shift(distance: float) -> Any:
        return lambda angle: np.stack([0.0 * np.asarray(angle), 0.0 * np.asarray(angle) + distance], -1)

    offset = geometry.axis_offset_mm
    return space, tomo.FanBeamGeometry(
        views,
        line,
        src_radius=geometry.source_to_center_mm,
        det_radius=geometry.source_to_detector_mm - geometry.source_to_center_mm,
        det_curvature_radius=geometry.source_to_detector_mm if curved else None,
        # Both move by -offset along the detector; ODL's tangent points the other way at the detector.
        src_shift_func=shift(-offset) if offset else None,
        det_shift_func=shift(offset) if offset else None,
    )


def from_odl(space: Any, scan: Any) -> ParallelGeometry | FanGeometry:
    """The scan that an ODL geometry makes of images in a space: the inverse of :func:`to_odl`.

    Args:
        space: a two-dimensional ``uniform_discr`` space, centred at the origin; its first axis is the row.
        scan: a ``Parallel2dGeometry`` or ``FanBeamGeometry``.

    Raises:
        ValueError: another geometry, a space off centre, a detector that is not uniform or not curved about the
            source, or shifts that differ from view to view.
    """
    name = type(scan).__name__
    if name not in ("Parallel2dGeometry", "FanBeamGeometry") or len(space.shape) != 2:
        raise ValueError(f"from_odl needs a 2D space and a parallel or fan beam geometry, got {name}")
    _require_centred(np.asarray(space.min_pt) + np.asarray(space.max_pt))
    if not scan.det_partition.is_uniform:
        raise ValueError("the detector elements of the ODL geometry must be equally wide")
    angles = np.asarray(scan.angles, dtype=np.float64)
    axis, center = _ours(scan.det_axis(angles)), _ours(scan.det_refpoint(angles))
    # Vectors of the detector's reference point; where its elements lie from there follows below.
    parallel = name == "Parallel2dGeometry"
    width, offset = float(scan.det_partition.cell_sides[0]), float(scan.det_partition.mid_pt[0])
    beam = np.stack([-axis[:, 1], axis[:, 0], axis[:, 2]], -1) if parallel else _ours(scan.src_position(angles))
    vectors = ScanVectors(
        parallel=parallel, beam=beam, center=center, column_step=width * axis,
        row_step=np.broadcast_to([0.0, 0.0, 1.0], axis.shape), detectors=(1, int(scan.det_partition.shape[0])),
    )  # fmt: skip
    voxel = (1.0, *(float(side) for side in space.cell_sides))
    geometry = geometry_from_vectors(vectors, (1, *(int(n) for n in space.shape)), voxel)  # type: ignore[arg-type]
    assert isinstance(geometry, ParallelGeometry | FanGeometry)
    radius = None if parallel else scan.det_curvature_radius
    if radius is None or not isinstance(geometry, FanGeometry):
        return geometry.replace(detector_offset_mm=geometry.detector_offset_mm + offset)
    about_source = math.isclose(radius, geometry.source_to_detector_mm, rel_tol=1e-6)
    if not about_source or abs(geometry.detector_offset_mm) > 1e-6:
        raise ValueError("a curved detector must be centred on the source, as on a circle around it")
    return geometry.replace(detector="curved", detector_mm=radius * width, detector_offset_mm=radius * offset)


def _ours(points: Any) -> Array:
    """ODL's (x, y), where x counts rows downwards, as our (x, y, 0)."""
    given = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    return np.stack([given[:, 1], -given[:, 0], np.zeros(len(given))], -1)


def _odl_angles(odl: Any, angles: Array) -> Any:
    """A uniform partition where the angles are, so that the space of sinograms has constant weights."""
    step = (angles[-1] - angles[0]) / (len(angles) - 1) if len(angles) > 1 else math.pi
    if np.allclose(np.diff(angles), step, rtol=0, atol=1e-9):
        return odl.uniform_partition(angles[0] - step / 2, angles[-1] + step / 2, len(angles))
    return odl.nonuniform_partition(angles)


def _astra_volume(shape: tuple[int, ...], pixel: tuple[float, ...]) -> dict[str, Any]:
    half_y, half_x = (0.5 * n * d for n, d in zip(shape, pixel, strict=True))
    window = {"WindowMinX": -half_x, "WindowMaxX": half_x, "WindowMinY": -half_y, "WindowMaxY": half_y}
    return {"GridRowCount": shape[0], "GridColCount": shape[1], "option": window}


def _from_astra_volume(volume: Mapping[str, Any]) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    counts = [int(volume.get(f"Grid{name}Count", 1)) for name in ("Slice", "Row", "Col")]
    window = volume["option"]
    low, high = (np.array([window.get(f"Window{end}{axis}", fallback) for axis in "ZYX"], dtype=np.float64)
                 for end, fallback in (("Min", -0.5), ("Max", 0.5)))  # fmt: skip
    _require_centred(low + high)
    size = (high - low) / counts
    return (counts[0], counts[1], counts[2]), (float(size[0]), float(size[1]), float(size[2]))


def _require_centred(twice_center: Array) -> None:
    if np.abs(twice_center).max() > 1e-6:
        raise ValueError(f"the image must be centred on the rotation axis, but its centre is {twice_center / 2}")


def _vectors_3d(projection: Mapping[str, Any], angles: Array) -> Array:
    """ASTRA's own ``parallel3d`` and ``cone`` scans by vectors, from its documentation of the two."""
    cos, sin, zero = np.cos(angles), np.sin(angles), np.zeros_like(angles)
    along, across = np.stack([sin, -cos, zero], -1), np.stack([cos, sin, zero], -1)
    up = np.stack([zero, zero, zero + float(projection["DetectorSpacingY"])], -1)
    step = float(projection["DetectorSpacingX"]) * across
    if projection["type"] == "parallel3d":
        return np.concatenate([along, 0 * along, step, up], -1)
    source = float(projection["DistanceOriginSource"]) * along
    center = -float(projection["DistanceOriginDetector"]) * along
    return np.concatenate([source, center, step, up], -1)
