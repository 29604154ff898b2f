"""Values that callers leave out, and what classes say of themselves.

The result of a call without an option depends on its default, so a default is part of the interface as a name is. The
numbers are those of the docstrings and of the papers that they name. Nothing is run here: signatures are looked at.
"""

from __future__ import annotations

import math
import pkgutil
from typing import Any

import declared
import pytest
import torch

from deft_ct.operators.image_values import ImageValues

RANGE = (-1.0, 1.0)
POWER: dict[str, Any] = {"iterations": 50, "tolerance": 1e-5}
CLINICAL: dict[str, Any] = {"source_to_center_mm": 595.0, "source_to_detector_mm": 1085.6}
FILTER: dict[str, Any] = {"filter": "ram-lak", "cutoff": 1.0}

SIGNATURES: dict[str, dict[str, Any]] = {
    "algebra.add": {"sign": 1},
    "algebra.scale": {"inverse": False},
    "algebra.stack": {"axis": 0},
    "base.Operator.norm": POWER,
    "base.Operator.norms": POWER,
    "combinations.Adjoint.norm": POWER,
    "combinations.Adjoint.norms": POWER,
    "combinations.Stack": {"axis": 0},
    "scaled.Scaled.norm": POWER,
    "scaled.Scaled.norms": POWER,
    "solvers.largest_singular_value": POWER,
    "solvers.conjugate_gradient": {"batch_ndim": 1, "x0": None, "iterations": 50, "tolerance": 1e-6},
    "svd.SingularValueDecomposition": {"per_image": False},
    "svd.SingularValueDecomposition.inverse_values": {"cutoff": 1e-3},
    "svd.SingularValueDecomposition.pseudo_inverse": {"cutoff": 1e-3},
    "interop.as_linear_operator": {"dtype": torch.float32},
    "interop.FromDeepinv": {"matched": True},
    "ct.alignment.align_scan": {
        "parameters": ("axis_offset_mm",), "levels": (8, 4, 2), "iterations": 12, "smoothness": 1e-4,
        "angle_error": math.radians(1.0),
    },
    "ct.backends.make_backend": {"kernel": "joseph"},
    "ct.backends.matrix.matrix_pair": {"kernel": "joseph"},
    "ct.backends.matrix.MatrixBackend": {"kernel": "joseph"},
    "ct.backprojection.fbp": FILTER,
    "ct.backprojection.FilteredBackprojection": FILTER,
    "ct.fdk.fdk": FILTER,
    "ct.helical_fbp.helical_fbp": FILTER,
    "ct.filters.ramp_response": {"equiangular": False},
    "ct.cone.ConeGeometry.for_image": CLINICAL,
    "ct.geometry.FanGeometry.for_image": CLINICAL | {"detector": "flat"},
    "ct.geometry.FanGeometry.for_volume": CLINICAL | {"detector": "flat"},
    "ct.geometry.ParallelGeometry.lodopab": {"views": 1000},
    "ct.geometry.ParallelGeometry.aapm_sparse": {"views": 60},
    "ct.convert.to_astra_3d": {"slices": 1},
    "ct.convert.to_tomosipo": {"slices": 1},
    "ct.extrapolation.continue_rows": {"reach": 0.5},
    "ct.presets.dm4ct": {"image_shape": (512, 512), "pixel_mm": 1.0},
    "ct.presets.genregbench": {"wedge": False, "pixel_mm": 1.0},
    "ct.presets.htc2022": {"degrees": 360.0, "start_degrees": 0.0, "image_shape": (512, 512)},
    "ct.presets.transmittance_scale": {"mean": 0.5},
    "ct.ray_transform.RayTransform": {"backend": "auto", "kernel": "joseph"},
    "image.bkse.BKSEGenerator": {"channels": 3, "features": 64, "front_blocks": 10, "back_blocks": 20},
    "image.bkse.sample_code": {"seed": 42, "scale": 1.2, "code_channels": 512},
    "image.blur.Blur": {"boundary": "reflect"},
    "image.blur.SeparableBlur": {"boundary": "reflect"},
    "image.blur.GaussianBlur": {"kernel_size": 61, "std": 3.0, "boundary": "reflect", "truncate": 4.0},
    "image.blur.MotionBlur": {"kernel_size": 61, "intensity": 0.5, "boundary": "reflect"},
    "image.blur_kernels.gaussian_taps": {"truncate": 4.0},
    "image.blur_kernels.motion_kernel": {"steps": 2000},
    "image.colorization.Colorization": {"weights": "mean"},
    "image.compressed_sensing.CompressedSensing": {"transform": "hadamard"},
    "image.hdr.HDR": {"gain": 2.0, "value_range": RANGE},
    "image.jpeg.JPEG": {"quality": 10, "subsampling": "4:2:0", "value_range": RANGE},
    "image.masked_fourier.MaskedFourier": {"complex_valued": False},
    "image.masked_fourier.cartesian_mask": {"centre": 0.08},
    "image.masks.box_mask": {"margin": 0},
    "image.masks.half_mask": {"side": "right"},
    "image.masks.expand_mask": {"kept": 0.25},
    "image.masks.lattice_mask": {"rows": 2, "columns": 2},
    "image.masks.freeform_mask": {"coverage": (0.2, 0.3)},
    "image.nonlinear_blur.NonlinearBlur": {"value_range": RANGE},
    "image.nonlinear_blur.NonlinearBlur.camera": {
        "kernel_size": 41, "intensity": 0.5, "exposure": 1.25, "value_range": RANGE,
    },
    "image.nonlinear_blur.NonlinearBlur.bkse": {"value_range": RANGE},
    "image.nonlinear_blur.CameraShake": {"kernel_size": 41, "intensity": 0.5, "exposure": 1.25},
    "image.phase_retrieval.PhaseRetrieval": {
        "oversample": 2.0, "value_range": RANGE, "amplitude_range": (0.0, 1.0),
    },
    "image.phase_retrieval.PhaseRetrieval.hybrid_input_output": {"iterations": 300, "reductions": 50, "beta": 0.95},
    "image.quantisation.Quantisation": {"bits": 2, "value_range": RANGE},
    "image.super_resolution.SuperResolution": {"scale": 4, "kernel": "average"},
}  # fmt: skip

FIELDS: dict[str, dict[str, Any]] = {
    "ct.cone.ConeGeometry": {
        "start_angle": 0.0, "angular_range": 2 * math.pi, "detector_offset_mm": (0.0, 0.0), "axis_offset_mm": 0.0,
        "pitch_mm": 0.0,
    },
    "ct.geometry.FanGeometry": {
        "start_angle": 0.0, "angular_range": 2 * math.pi, "detector_offset_mm": 0.0, "axis_offset_mm": 0.0,
        "detector": "flat",
    },
    "ct.geometry.ParallelGeometry": {
        "start_angle": 0.0, "angular_range": math.pi, "detector_offset_mm": 0.0, "axis_offset_mm": 0.0,
    },
    "ct.faults.DeadDetectors": {"detector_ndim": 1, "fraction": 0.01, "value": 0.0},
    "ct.faults.RingArtefact": {"detector_ndim": 1, "fraction": 0.25, "amplitude": 0.05},
    "ct.helix.VolumeGrid": {"z_mm": 0.0},
    "ct.presets.ScanPreset": {"fault": None},
    "feature_images.FeatureImage": {"of_estimate": False, "dimensionless": False, "absent": 0.0},
    "findings.Finding": {"repaired": False},
    "findings.Diagnosis": {"findings": (), "repaired": None},
    "image_noise.PhotonNoise": {"low": -1.0, "high": 1.0},
    "image_values.ImageValues": {"contrast": 1.0, "nonnegative": False},
    "noise.GaussianNoise": {"relative": False},
    "noise.PoissonNoise": {"photons": 1e5, "electronic": 0.0, "post_log": True, "floor": 0.1},
}  # fmt: skip

BOTH_TYPES = (torch.float32, torch.float64)

ATTRIBUTES: dict[str, dict[str, Any]] = {
    "base.Operator": {"has_pseudo_inverse": False, "has_equivalents": False},
    "linear.LinearOperator": {
        "has_pseudo_inverse": True, "has_equivalents": False, "matched": True, "__array_ufunc__": None,
    },
    "image.hdr.HDR": {"has_pseudo_inverse": True},
    "image.jpeg.JPEG": {"has_pseudo_inverse": True},
    "image.quantisation.Quantisation": {"has_pseudo_inverse": True},
    "image.phase_retrieval.PhaseRetrieval": {"has_pseudo_inverse": False, "has_equivalents": True},
    "image.compressed_sensing.CompressedSensing": {"axis": -1},
    "points.selection.Selection": {"axis": -2},
    "ct.backends.base.Backend": {"matched": True, "dtypes": BOTH_TYPES},
    "ct.backends.astra.AstraBackend": {"name": "astra", "matched": True, "dtypes": (torch.float32,)},
    "ct.backends.joseph.JosephBackend": {"name": "joseph", "matched": True, "dtypes": BOTH_TYPES},
    "ct.backends.joseph_cone.JosephConeBackend": {"name": "joseph", "matched": True, "dtypes": BOTH_TYPES},
    "ct.backends.matrix.MatrixBackend": {"name": "matrix", "matched": True, "dtypes": BOTH_TYPES},
    "ct.backends.odl.OdlBackend": {"name": "odl", "matched": True, "dtypes": (torch.float32,)},
    "ct.backends.symmetric.SymmetricBackend": {"name": "symmetric", "matched": True, "dtypes": BOTH_TYPES},
    "ct.vector_geometry.VectorFanGeometry": {"axes": 2},
    "ct.vector_geometry.VectorConeGeometry": {"axes": 3},
}  # fmt: skip


CONSTANTS: dict[str, dict[str, Any]] = {
    "base": {"NOISE_FREE_STD": 0.01},
    "circulant": {"GRADIENT_STEP": 0.9, "POSITIVITY_STEP": 0.45},
    "image_values": {"ATTENUATION": ImageValues(contrast=0.02, nonnegative=True)},
    "ct._checks": {"MOST": 1_000_000},
    "ct.alignment": {"PARAMETERS": ("angles", "axis_offset_mm", "detector_offset_mm")},
    "ct.backends.batch_product": {"CHUNK": 16},
    "ct.backends.choice": {"SMALL_BYTES": 1_000_000_000},
    "ct.backends.matrix": {"STORED_BYTES": 2_000_000_000, "BLOCK_BYTES": 256_000_000, "KEPT_SHARE": 0.5},
    "ct.backprojection": {"STORED_BYTES": 2_000_000_000},
    "ct.bad_elements": {"LEAST_VIEWS": 8, "LEAST_DETECTORS": 64, "MOST_REPAIRED": 0.05, "LONGEST_RUN": 4},
    "ct.diagnosis": {"SHIFT_ELEMENTS": 0.15, "TRUNCATED_VIEWS": 0.05},
    "ct.extrapolation": {"REACH": 0.5},
    "ct.features": {"SCAN_FEATURES": 4, "DIRECTION_FEATURES": 2},
    "ct.helix": {"STATES": (1, 2, 4)},
    "ct.helix_orientation": {"CLEAR": 1.5},
    "ct.helix_rebinning": {"SMOOTH_FROM": 0.6, "LEAST_WEIGHT": 1e-3, "BEYOND": 1.5},
    "ct.photons": {"NOISE_FREE_PHOTONS": 1e6},
    "ct.plausibility": {"WRONG_SIGN": 0.75, "SATURATED": 0.02, "NOISE_RATIO": 4.0, "METAL_RATIO": 6.0},
    "ct.tv_hint": {"EXPONENT": 0.4, "ITERATIONS_FAN": 40, "ITERATIONS_LIMITED": 100},
    "image.phase_retrieval": {"FEATURE_ITERATIONS": 10, "FEATURE_REDUCTIONS": 2},
}
"""Thresholds and limits that the documentation states."""

# Imported before any test.
PATHS = [*SIGNATURES, *FIELDS, *ATTRIBUTES, *CONSTANTS]
OBJECTS = {path: pkgutil.resolve_name(f"deft_ct.operators.{path}") for path in PATHS}


@pytest.mark.parametrize("path", SIGNATURES)
def test_options_that_are_left_out(path: str) -> None:
    assert declared.defaults(OBJECTS[path], SIGNATURES[path]) == SIGNATURES[path]


@pytest.mark.parametrize("path", FIELDS)
def test_fields_that_are_left_out(path: str) -> None:
    assert declared.field_defaults(OBJECTS[path], FIELDS[path]) == FIELDS[path]


@pytest.mark.parametrize("path", ATTRIBUTES)
def test_what_a_class_says_of_itself(path: str) -> None:
    assert declared.attributes(OBJECTS[path], ATTRIBUTES[path]) == ATTRIBUTES[path]


@pytest.mark.parametrize("path", CONSTANTS)
def test_thresholds_and_limits(path: str) -> None:
    assert declared.attributes(OBJECTS[path], CONSTANTS[path]) == CONSTANTS[path]
