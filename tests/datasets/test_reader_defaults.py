"""Facts of data sets and formats, limits of readers, and values that callers leave out.

The numbers are those of the papers, standards and docstrings. Nothing is run here: signatures and constants are looked
at.
"""

from __future__ import annotations

import dataclasses
import math
import pkgutil
from datetime import datetime
from typing import Any

import declared
import pytest

MIB, GIB = 2**20, 2**30
CONSTANTS: dict[str, dict[str, Any]] = {
    "datasets.dicom_folder": {"HU_RANGE": (-1024, 3071)},
    "datasets.htc2022_set": {"SIDE": 512},
    "datasets.ldct_geometry": {
        "_LPS_OF_SCANNER": {
            "HFS": (1.0, -1.0, -1.0), "FFS": (-1.0, -1.0, 1.0), "HFP": (-1.0, 1.0, -1.0), "FFP": (1.0, 1.0, 1.0),
        },
    },
    "datasets.lodopab": {
        "SAMPLES": {"train": 35820, "validation": 3522, "test": 3553, "challenge": 3678},
        "PATIENTS": {"train": 632, "validation": 60, "test": 60}, "SAMPLES_PER_FILE": 128,
        "IMAGE_SHAPE": (362, 362), "SINOGRAM_SHAPE": (1000, 513), "MU_WATER": 20.0, "MU_AIR": 0.02,
        "MU_MAX": pytest.approx(81.35858), "PHOTONS": 4096, "MIN_PHOTONS": 0.1,
    },
    "datasets.phantoms": {  # Toft 1996: value, half axes, centre and degrees on the square [-1, 1]^2
        "_SHEPP_LOGAN": (
            (1.0, 0.69, 0.92, 0, 0, 0), (-0.8, 0.6624, 0.874, 0, -0.0184, 0), (-0.2, 0.11, 0.31, 0.22, 0, -18),
            (-0.2, 0.16, 0.41, -0.22, 0, 18), (0.1, 0.21, 0.25, 0, 0.35, 0), (0.1, 0.046, 0.046, 0, 0.1, 0),
            (0.1, 0.046, 0.046, 0, -0.1, 0), (0.1, 0.046, 0.023, -0.08, -0.605, 0), (0.1, 0.023, 0.023, 0, -0.606, 0),
            (0.1, 0.023, 0.046, 0.06, -0.605, 0),
        ),
    },
    "datasets.photographs": {"SIZE": 64, "MOST_LIST_BYTES": 64 * MIB},
    "datasets.projection_arrays": {"TRANSMISSION_FLOOR": 1e-4, "MOST_DARK_ELEMENTS": 0.05},
    "datasets.two_detect": {
        "VIEWS": 3600, "ELEMENTS": 956, "SOURCE_TO_CENTER_MM": 431.019989, "SOURCE_TO_DETECTOR_MM": 529.000488,
        "ELEMENT_MM": 0.1496, "REFERENCE_SIDE": 1024, "MODES": (1, 2, 3), "TRANSMISSION_FLOOR": 1e-6,
        "_SHIFTED": (range(1, 2831), range(5521, 5871)),
    },
    "datasets.walnuts": {
        "VIEWS": 1200, "ORBITS": (1, 2, 3), "VOLUME_MM": 50.0, "VOLUME_WIDTH_MM": 50.1, "TRANSMISSION_FLOOR": 1e-6,
    },
    "io.archives": {"DEEPEST": 3},
    "io.child_reader": {"BLOCK_BYTES": 8 * MIB, "ATTRIBUTE_BYTES": MIB, "TEXT_BYTES": 2**16, "MOST_LINKS": 16},
    "io.deidentify": {"NO_DATE": datetime(1900, 1, 1)},
    "io.dicom_checks": {
        "DIRECTION_TOLERANCE": 1e-3, "SPACING_TOLERANCE": 0.2, "GRID_TOLERANCE": 0.25, "MOST_MM": 1e5,
        "MOST_TILT": 45.0, "MIN_AXIAL": pytest.approx(math.sqrt(0.5)),
    },
    "io.dicom_ct_pd": {  # from the manual of DICOM-CT-PD
        "COLUMN_SPACING": (0x7029, 0x1002), "ROW_SPACING": (0x7029, 0x1006), "DETECTOR_SHAPE": (0x7029, 0x100B),
        "DETECTOR_ROWS": (0x7029, 0x1010), "DETECTOR_COLUMNS": (0x7029, 0x1011), "FOCAL_ANGLE": (0x7031, 0x1001),
        "FOCAL_AXIAL": (0x7031, 0x1002), "FOCAL_RADIUS": (0x7031, 0x1003), "SOURCE_TO_DETECTOR": (0x7031, 0x1031),
        "CENTRAL_ELEMENT": (0x7031, 0x1033), "SHIFT_B": (0x7033, 0x100B), "SHIFT_C": (0x7033, 0x100C),
        "SHIFT_RADIAL": (0x7033, 0x100D), "FLYING_FOCAL_SPOT": (0x7033, 0x100E), "PHOTON_STATISTICS": (0x7033, 0x1065),
        "WATER_ATTENUATION": (0x7041, 0x1001),
    },
    "io.dicom_findings": {
        "AIR_HU": (-1100.0, -850.0), "LEAST_AIR": 1e-3, "MOST_HU": 3e4, "PADDING_HU": (-900.0, 3500.0),
    },
    "io.dicom_select": {"SAME_PLACE_MM": 0.01},
    "io.dicom_stream": {"PREFIX_END": 132, "MOST_NESTED": 32},
    "io.dicom_write": {"SERIES_NUMBER_OFFSET": 1000},
    "io.sinograms": {"TRANSMISSION_FLOOR": 1e-4},
    "io.reading_process": {"LINE_BYTES": 64 * MIB},
    "io.untrusted": {"BASE_BYTES": GIB, "SLOWEST_READ": 1e6},
    "io.zip_members": {"ENCRYPTED": 1},
}  # fmt: skip

EVERY: dict[str, Any] = {"every": 1}
SIGNATURES: dict[str, dict[str, Any]] = {
    "datasets.aapm.AAPMChallenge.slices": EVERY,
    "datasets.data_exchange.read_data_exchange": {"detector_mm": 1.0, "transmission_floor": 1e-3},
    "datasets.dicom_folder.CTFolder": {"size": 256, "every": 1},
    "datasets.htc2022.read_htc2022": {"image_shape": (512, 512)},
    "datasets.images.PhotoFolder": {"channels": 3},
    "datasets.ldct_images.LDCTImages.slices": EVERY,
    "datasets.ldct_projection.read_projections": {
        "every": 1, "reverse_rows": True, "swap_focal_shifts": False, "progress": False,
    },
    "datasets.lodopab.LoDoPaB": {"views": 1000},
    "datasets.packs.CTPack": EVERY,
    "datasets.packs.read_pack": EVERY,
    "datasets.patient_series.patient_slices": EVERY,
    "datasets.slices.SliceStack": EVERY,
    "datasets.phantoms.EllipsePhantom.disc": {"center_mm": (0.0, 0.0)},
    "datasets.phantoms.EllipsePhantom.shepp_logan": {"value": 0.02},
    "datasets.phantoms.EllipsePhantom.random": {"max_value": 0.02},
    "datasets.phantoms.EllipsePhantom.image": {"oversampling": 4},
    "io.deidentify.deidentified": {"allow_burned_in": False},
    "io.dicom_checks.check_positions": {"allow_gaps": False},
    "io.dicom_read.read_dicom_series": {"allow_gaps": False},
    "io.dicom_read.read_all_dicom_series": {"allow_gaps": False},
    "io.dicom_findings.value_findings": {"unchanged": True},
    "io.dicom_stream.read_stream": {"frames": 1},
    "io.dicom_write.write_dicom_series": {"overwrite": False},
    "io.nifti.write_nifti": {"frames": False},
    "io.series.Series.attenuation": {"nonnegative": False},
    "io.series.Series.resampled": {"factor": 2},
    "io.untrusted.HDF5File": {"depth": 2},
}  # fmt: skip

FIELDS: dict[str, dict[str, Any]] = {
    "datasets.aapm.AAPMChallenge": {"thickness_mm": 1},
    "datasets.lodopab.LoDoPaBSlices": EVERY,
    "datasets.measured_scan.MeasuredScan": {"numbers": (1,), "total": 1, "axis": "slices", "in_mm": True,
                                            "slice_mm": None, "centered": True, "notes": ()},
    "datasets.phantoms.Ellipse": {"angle": 0.0},
    "datasets.sinogram_scan.ScanSetUp": {"rings": False, "detector_mm": 1.0},
    "datasets.two_detect.TwoDetect": {"mode": 2},
    "datasets.walnuts.WalnutScanOptions": {"orbits": (2,), "views": 120, "bins": 6, "side": 128},
    "io.dicom_files.DicomFile": {"frames": 1},
    "io.dicom_files.DamagedFile": {"has_prefix": True},
    "io.dicom_write.DicomOptions": {"parametric_map": False, "deidentify": False, "allow_burned_in": False},
    "io.limits.Limits": {
        "file_bytes": 64 * GIB, "inflated_bytes": 4 * GIB, "array_bytes": 4 * GIB, "members": 100_000,
        "inflation": 200, "modest_bytes": 256 * MIB, "seconds": 10.0, "pixel_mm": (1e-3, 100.0), "hu": 1e6,
    },
    "io.photographs.Photograph": {"bits": 8},
    "io.sinograms.SinogramOptions": {"degrees": 180.0, "ends": False, "radians": False},
    "io.untrusted.HDF5Item": {"stored": 0},
    "io.volume_series.Chosen": {"allow_gaps": False},
}  # fmt: skip

# Imported before any test.
PATHS = [*CONSTANTS, *SIGNATURES, *FIELDS]
OBJECTS = {path: pkgutil.resolve_name(f"deft_ct.{path}") for path in PATHS}


@pytest.mark.parametrize("path", CONSTANTS)
def test_facts_and_limits(path: str) -> None:
    assert declared.attributes(OBJECTS[path], CONSTANTS[path]) == CONSTANTS[path]


@pytest.mark.parametrize("path", SIGNATURES)
def test_options_that_are_left_out(path: str) -> None:
    assert declared.defaults(OBJECTS[path], SIGNATURES[path]) == SIGNATURES[path]


@pytest.mark.parametrize("path", FIELDS)
def test_fields_that_are_left_out(path: str) -> None:
    assert declared.field_defaults(OBJECTS[path], FIELDS[path]) == FIELDS[path]


def test_windows_of_derived_series() -> None:
    derive: Any = pkgutil.resolve_name("deft_ct.io.dicom_derive")
    numbers, spread = derive.CT_NUMBERS, derive.SPREAD
    assert dataclasses.astuple(numbers)[:3] == (
        1.0, -1024.0, ((-600.0, 1500.0, "LUNG"), (40.0, 400.0, "SOFT TISSUE"), (400.0, 1800.0, "BONE")),
    )  # fmt: skip
    assert dataclasses.astuple(spread)[:3] == (0.1, 0.0, ((50.0, 100.0, "SPREAD"), (10.0, 20.0, "SPREAD NARROW")))
