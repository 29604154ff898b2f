"""Computed tomography: scan geometries, the ray transform and filtered back-projection."""

from deft_ct.operators.ct.backprojection import FilteredBackprojection, fbp
from deft_ct.operators.ct.geometry import FanGeometry, ParallelGeometry, geometry_from_dict
from deft_ct.operators.ct.ray_transform import RayTransform

__all__ = [
    "FanGeometry",
    "FilteredBackprojection",
    "ParallelGeometry",
    "RayTransform",
    "fbp",
    "geometry_from_dict",
]
