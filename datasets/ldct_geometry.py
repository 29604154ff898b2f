"""From the numbers of DICOM-CT-PD files to the geometry of a scan, and to the patient.

The format's axes are taken from Chen et al. 2015 (doi:10.1118/1.4935406) and from public readers. For someone who looks
into the gantry, x points to the right, y up and z towards him. The focal centre is at ``(-r sin p, r cos p, z)``, and
the columns of the detector count along ``(cos p, sin p, 0)``. This package mirrors x, so that the angle is ``-p - pi``,
as in ODL's reader. **Not verified on a real file.**
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deft_ct.datasets.ldct_projection import HelicalProjections
from deft_ct.operators.ct.helix import HelicalScan

_LPS_OF_SCANNER = {
    "HFS": (1.0, -1.0, -1.0), "FFS": (-1.0, -1.0, 1.0), "HFP": (-1.0, 1.0, -1.0), "FFP": (1.0, 1.0, 1.0),
}  # fmt: skip
"""Signs of left, back and head along the format's x, y and z, for head or feet first, on the back or the belly."""

DEFAULT_POSITION = "HFS"


def helical_scan(projections: HelicalProjections) -> HelicalScan:
    """The scan of projections whose rows count along +z (``reverse_rows=False`` for files that are in that order).

    Raises:
        ValueError: a detector that is not a cylinder about the focal centre, or as of :class:`HelicalScan`.
    """
    shape = projections.detector_shape
    if shape not in ("", "CYLINDRICAL"):
        raise ValueError(f"detectors of shape {shape[:40]!r} are not supported: expected CYLINDRICAL")
    column, row = projections.central_element
    return HelicalScan(
        angles=-projections.angles - np.pi, z_mm=projections.z_mm, radius_mm=projections.radius_mm,
        source_shifts=projections.focal_shifts * [-1.0, 1.0, 1.0],
        source_to_detector_mm=projections.source_to_detector_mm,
        detectors=(projections.projections.shape[1], projections.projections.shape[2]),
        detector_mm=(projections.row_mm, projections.column_mm), central=(row - 1, column - 1),
    )  # fmt: skip


def patient_signs(position: str) -> tuple[float, float, float]:
    """Signs of the patient's left, back and head along the x (mirrored), y and z of a reconstruction.

    Args:
        position: PatientPosition, "HFS", "FFS", "HFP" or "FFP".

    Raises:
        ValueError: another position, such as a patient on the side.
    """
    if position not in _LPS_OF_SCANNER:
        raise ValueError(f"PatientPosition {position[:20]!r} is not supported: expected {', '.join(_LPS_OF_SCANNER)}")
    left, back, head = _LPS_OF_SCANNER[position]
    return -left, back, head


def patient_affine(
    position: str, x: NDArray[np.float64], y: NDArray[np.float64], z: NDArray[np.float64], spacing: tuple[float, float]
) -> tuple[NDArray[np.float64], tuple[int, ...]]:
    """Where a volume lies in the patient, once it is turned as images are shown: left to the right, back down, head up.

    Args:
        position: as of :func:`patient_signs`.
        x: ``(columns,)`` centres of the columns, mm.
        y: ``(rows,)`` of the rows, mm, falling.
        z: ``(slices,)`` of the slices, mm.
        spacing: (slices, pixels), mm.

    Returns:
        The (4, 4) map from (column, row, slice, 1) of the turned volume to LPS, and the axes of the volume
        (slices, rows, columns) that are to be flipped for it.
    """
    signs = patient_signs(position)
    steps = (signs[0], -signs[1], signs[2])  # rows count downwards
    first = (float(x[0]), float(y[0]), float(z[0])), (float(x[-1]), float(y[-1]), float(z[-1]))
    affine = np.diag([spacing[1], spacing[1], spacing[0], 1.0])
    for axis, step in enumerate(steps):
        affine[axis, 3] = signs[axis] * first[step < 0][axis]
    return affine, tuple(2 - axis for axis, step in enumerate(steps) if step < 0)
