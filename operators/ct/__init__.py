"""Computed tomography: scan geometries, the ray transform and filtered back-projection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deft_ct.operators.ct.alignment import AlignmentResult, align_scan
from deft_ct.operators.ct.backprojection import FilteredBackprojection, fbp
from deft_ct.operators.ct.cone import ConeGeometry
from deft_ct.operators.ct.detector_offset import detector_shift
from deft_ct.operators.ct.differentiable import project
from deft_ct.operators.ct.faults import DeadDetectors, RingArtefact
from deft_ct.operators.ct.fdk import fdk
from deft_ct.operators.ct.geometry import FanGeometry, ParallelGeometry
from deft_ct.operators.ct.presets import ScanPreset, dm4ct, genregbench, htc2022
from deft_ct.operators.ct.ray_transform import RayTransform
from deft_ct.operators.ct.system_matrix import Geometry
from deft_ct.operators.ct.vector_geometry import VectorConeGeometry, VectorFanGeometry

__all__ = [
    "AlignmentResult",
    "ConeGeometry",
    "DeadDetectors",
    "FanGeometry",
    "FilteredBackprojection",
    "ParallelGeometry",
    "RayTransform",
    "RingArtefact",
    "ScanPreset",
    "VectorConeGeometry",
    "VectorFanGeometry",
    "align_scan",
    "detector_shift",
    "dm4ct",
    "fbp",
    "fdk",
    "genregbench",
    "geometry_from_dict",
    "htc2022",
    "project",
]


def geometry_from_dict(values: Mapping[str, Any]) -> Geometry:
    """Restore a geometry from its ``to_dict()``.

    Raises:
        ValueError: the kind is unknown.
    """
    kinds: tuple[type[Geometry], ...] = (
        ParallelGeometry, FanGeometry, ConeGeometry, VectorFanGeometry, VectorConeGeometry
    )  # fmt: skip
    for cls in kinds:
        if values.get("kind") == cls.kind:
            return cls.from_dict(values)
    known = ", ".join(f'"{cls.kind}"' for cls in kinds)
    raise ValueError(f"geometry kind must be one of {known}, got {values.get('kind')!r}")
