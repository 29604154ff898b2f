"""DICOM-CT-PD files of a phantom: what the reader and the reconstruction of helical scans are tested on.

The rays follow the text of the format alone (Chen et al. 2015, doi:10.1118/1.4935406), in its axes and without the
package's geometry. For someone who looks into the gantry, x points to the right, y up and z towards him. The focal
centre is at ``(-r sin p, r cos p, z)``. The columns of the detector count along ``(cos p, sin p, 0)``, the rows along
z. Real files may count them the other way; none could be had.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from deft_ct.datasets.ellipsoids import Ellipsoid, EllipsoidPhantom
from deft_ct.io import dicom_ct_pd as ct_pd
from deft_ct.io.dicom_derive import hashed_uid
from deft_ct.operators.ct.rays import Rays

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class SyntheticScan:
    """A helical scan to be written.

    Args:
        turns: rotations.
        views_per_turn: projections of each.
        pitch: table feed over the height of the detector at the axis; negative: the table moves the other way.
        rows: of the detector.
        columns: of the detector.
        row_mm: height of a row, at the detector.
        column_mm: width of a column, at the detector.
        radius_mm: distance from the focal centre to the axis.
        source_to_detector_mm: radius of the detector.
        central_column: that the central ray meets, counted from 1; a quarter of a column off the middle if left out.
        clockwise: whether the angle falls.
        start: angle of the first view, radians.
        z_mm: place of the middle of the scan.
        flying_focal_spot: "FFSNONE", "FFSZ", "FFSXY" or "FFSXYZ".
        spot_mm: (along the arc, along z, outwards) shift of the spot, to both sides in turn.
        manufacturer: "SIEMENS" or "GE MEDICAL SYSTEMS"; GE's headers are implicit VR here, without group 7033.
        mu_water: attenuation of water, 1/mm.
        photons: of a ray without attenuation, for Poisson noise; 0 for none.
        elements: rays averaged over each side of a detector element.
        patient_position: as in DICOM, "FFS" or "HFS", ...; "" leaves it out.
    """

    turns: float = 3.0
    views_per_turn: int = 240
    pitch: float = 1.0
    rows: int = 16
    columns: int = 200
    row_mm: float = 2.2
    column_mm: float = 2.4
    radius_mm: float = 595.0
    source_to_detector_mm: float = 1085.6
    central_column: float | None = None
    clockwise: bool = False
    start: float = 1.0
    z_mm: float = 0.0
    flying_focal_spot: str = "FFSNONE"
    spot_mm: tuple[float, float, float] = (0.6, 0.6, 0.0)
    manufacturer: str = "SIEMENS"
    mu_water: float = 0.0192
    photons: float = 0.0
    elements: int = 1
    patient_position: str = "FFS"

    @property
    def feed_mm(self) -> float:
        """Table feed of a turn; signed."""
        return self.pitch * self.rows * self.row_mm * self.radius_mm / self.source_to_detector_mm

    @property
    def central(self) -> tuple[float, float]:
        """(column, row) of the central ray, counted from 1."""
        column = (self.columns + 1) / 2 + 0.25 if self.central_column is None else self.central_column
        return column, (self.rows + 1) / 2

    @property
    def views(self) -> int:
        """Number of files."""
        return round(self.turns * self.views_per_turn)

    def angles(self) -> Array:
        """``(views,)`` of the focal centre, radians, unwrapped."""
        steps: Array = np.arange(self.views) * 2 * math.pi / self.views_per_turn
        return self.start + (-steps if self.clockwise else steps)

    def z(self) -> Array:
        """``(views,)`` of the focal centre, mm."""
        turns: Array = (np.arange(self.views) - (self.views - 1) / 2) / self.views_per_turn
        return self.z_mm + self.feed_mm * turns

    def shifts(self) -> Array:
        """``(views, 3)`` of the source: radians, mm along z, mm outwards."""
        mode, n = self.flying_focal_spot, np.arange(self.views)
        along = {"FFSNONE": 0 * n, "FFSZ": 0 * n, "FFSXY": 1 - 2 * (n % 2), "FFSXYZ": 1 - 2 * (n % 2)}[mode]
        up = {"FFSNONE": 0 * n, "FFSZ": 1 - 2 * (n % 2), "FFSXY": 0 * n, "FFSXYZ": 1 - 2 * (n // 2 % 2)}[mode]
        arc, axial, outward = self.spot_mm
        shifts: Array = np.stack([along * arc / self.radius_mm, up * axial, (along != 0) * outward * along], -1)
        return shifts

    def projections(self, phantom: EllipsoidPhantom) -> Iterator[Array]:
        """``(rows, columns)`` line integrals of each view."""
        rng = np.random.default_rng(0)
        k = self.elements
        inner = (np.arange(k) - (k - 1) / 2) / k
        column = (np.arange(self.columns)[:, None] + 1 - self.central[0] + inner).ravel()
        row = (np.arange(self.rows)[:, None] + 1 - self.central[1] + inner).ravel() * self.row_mm
        gamma = column * self.column_mm / self.source_to_detector_mm
        far = self.source_to_detector_mm
        for p, z, (turn, up, out) in zip(self.angles(), self.z(), self.shifts(), strict=True):
            center = self.radius_mm * np.array([-math.sin(p), math.cos(p)])
            # A ray at gamma = 0 runs to the axis, along (sin p, -cos p); gamma grows along (cos p, sin p).
            x = center[0] + far * (math.sin(p) * np.cos(gamma) + math.cos(p) * np.sin(gamma))
            y = center[1] + far * (-math.cos(p) * np.cos(gamma) + math.sin(p) * np.sin(gamma))
            element = np.stack(np.broadcast_arrays(x, y, z + row[:, None]), -1)
            radius = self.radius_mm + out
            source = np.array([-radius * math.sin(p + turn), radius * math.cos(p + turn), z + up])
            ray = element - source
            ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
            fine = phantom.line_integrals(Rays(origin=source, direction=ray)).numpy()
            values = fine.reshape(self.rows, k, self.columns, k).mean((1, 3))
            if self.photons:
                values = -np.log(np.maximum(rng.poisson(self.photons * np.exp(-values)), 1) / self.photons)
            yield values


def trunk(mu_water: float, *, radius_mm: float = 100.0, half_length_mm: float = 400.0) -> EllipsoidPhantom:
    """A long trunk of water in the axes of the format, with structures that differ in all three directions.

    Two lungs, a spine, and ten balls of -100 to 120 HU on a screw about the axis; air has no attenuation.

    Args:
        mu_water: attenuation of water, 1/mm.
        radius_mm: half width of the trunk, which is 0.8 as deep.
        half_length_mm: half length of the trunk along z; it is to reach far beyond the scan.
    """
    r = radius_mm
    parts = [
        (1000.0, (0.0, 0.0, 0.0), (r, 0.8 * r, half_length_mm), 0.0),
        (-800.0, (-0.5 * r, 0.1 * r, 0.0), (0.27 * r, 0.45 * r, half_length_mm), 0.2),
        (-800.0, (0.5 * r, 0.1 * r, 0.0), (0.27 * r, 0.5 * r, half_length_mm), -0.2),
        (400.0, (0.0, -0.55 * r, 0.0), (0.14 * r, 0.12 * r, half_length_mm), 0.0),
    ]
    for n, z in enumerate(np.linspace(-60, 60, 10).tolist()):
        place = (0.14 * r * math.cos(2.4 * n), (0.15 + 0.3 * math.sin(2.4 * n)) * r, z)
        parts.append(((120.0, -100.0, 60.0)[n % 3], place, (0.08 * r, 0.08 * r, 0.1 * r), 0.0))
    return EllipsoidPhantom(
        tuple(
            Ellipsoid(value=hu / 1000 * mu_water, center_mm=center, semi_axes_mm=axes, angle=angle)
            for hu, center, axes, angle in parts
        )
    )


def as_reconstructed(phantom: EllipsoidPhantom, z_mm: float = 0.0) -> EllipsoidPhantom:
    """A phantom in the axes of a reconstruction (x mirrored) whose middle is at ``z_mm``."""
    return EllipsoidPhantom(
        tuple(
            replace(
                part, center_mm=(-part.center_mm[0], part.center_mm[1], part.center_mm[2] - z_mm), angle=-part.angle
            )
            for part in phantom.parts
        )
    )


def write_synthetic_scan(folder: str | Path, phantom: EllipsoidPhantom, scan: SyntheticScan) -> Path:
    """Write a scan, a file for each view, each with a rescale slope of its own.

    Args:
        folder: where to; made if it is not there.
        phantom: attenuation in 1/mm, in the axes of the format.
        scan: the scan.

    Returns:
        The folder.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    series = hashed_uid("synthetic CT-PD", repr(scan), repr(phantom))
    turns = np.mod(scan.angles() + math.pi, 2 * math.pi) - math.pi  # wraps, as the files' angles do
    poses = zip(turns, scan.z(), scan.shifts(), scan.projections(phantom), strict=True)
    for n, (angle, z, shift, values) in enumerate(poses):
        image = _header(scan, series, n)
        _geometry(image, scan, float(angle), float(z), shift)
        _pixels(image, values, n)
        image.save_as(target / f"{n:05d}.dcm", enforce_file_format=True)
    return target


def _header(scan: SyntheticScan, series: str, n: int) -> Dataset:
    image = Dataset()
    image.file_meta = FileMetaDataset()
    ge = scan.manufacturer.startswith("GE")
    image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if ge else ExplicitVRLittleEndian
    uid = UID(hashed_uid(series, str(n)))
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = CTImageStorage
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = uid
    image.SeriesInstanceUID, image.StudyInstanceUID = series, hashed_uid(series, "study")
    image.FrameOfReferenceUID = hashed_uid(series, "frame")
    image.Modality, image.InstanceNumber, image.SeriesNumber = "CT", n + 1, 1
    image.PatientName, image.PatientID, image.Manufacturer = "Phantom^Ellipsoids", "PHANTOM", scan.manufacturer
    image.KVP, image.SeriesDescription = "120", "Full dose projections"
    if scan.patient_position:
        image.PatientPosition = scan.patient_position
    return image


def _geometry(image: Dataset, scan: SyntheticScan, angle: float, z: float, shift: Array) -> None:
    values: list[tuple[tuple[int, int], str, Any]] = [
        (ct_pd.COLUMN_SPACING, "FL", scan.column_mm), (ct_pd.ROW_SPACING, "FL", scan.row_mm),
        (ct_pd.DETECTOR_SHAPE, "CS", "CYLINDRICAL"), (ct_pd.DETECTOR_ROWS, "US", scan.rows),
        (ct_pd.DETECTOR_COLUMNS, "US", scan.columns), (ct_pd.FOCAL_ANGLE, "FL", angle), (ct_pd.FOCAL_AXIAL, "FL", z),
        (ct_pd.FOCAL_RADIUS, "FL", scan.radius_mm), (ct_pd.SOURCE_TO_DETECTOR, "FL", scan.source_to_detector_mm),
        (ct_pd.CENTRAL_ELEMENT, "FL", list(scan.central)), (ct_pd.WATER_ATTENUATION, "DS", f"{scan.mu_water:g}"),
    ]  # fmt: skip
    if not scan.manufacturer.startswith("GE"):
        values += [
            (ct_pd.SHIFT_B, "FL", float(shift[0])), (ct_pd.SHIFT_C, "FL", float(shift[1])),
            (ct_pd.SHIFT_RADIAL, "FL", float(shift[2])), (ct_pd.FLYING_FOCAL_SPOT, "CS", scan.flying_focal_spot),
        ]  # fmt: skip
    for tag, vr, value in values:
        image.add_new((tag[0], 0x0010), "LO", "CTPD")
        image.add_new(tag, vr, value)


def _pixels(image: Dataset, values: Array, n: int) -> None:
    """16 bits with a slope that differs from file to file; the columns of the detector are the rows of the image."""
    slope = float(f"{max(float(np.ptp(values)), 1e-3) / (60000 - 50 * (n % 7)):.8g}")
    intercept = float(f"{values.min():.6g}") - slope
    stored = np.rint((values - intercept) / slope).clip(0, 65535).astype("<u2").T
    image.Rows, image.Columns = stored.shape
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
    image.RescaleSlope, image.RescaleIntercept = f"{slope:.8g}", f"{intercept:.8g}"
    image.PixelData = np.ascontiguousarray(stored).tobytes()
    image["PixelData"].VR = "OW"
