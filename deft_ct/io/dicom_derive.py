"""Headers of a derived CT series: what is inherited from the source, what is replaced and what is dropped.

The result is a CT Image Storage instance (DICOM PS3.3, A.3) of the same patient, study and frame of reference.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import BaseTag
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from deft_ct.ct.hounsfield import HU_MIN
from deft_ct.io.dicom_frames import frame_of
from deft_ct.io.dicom_valid import drop_invalid, is_valid_uid

PROGRAM = "deft-ct"
WARNING = "RESEARCH ONLY - NOT FOR CLINICAL USE"
DERIVATION = "simulated sparse view; research only, not for clinical use"
SIMULATED = (
    "Exposure, dose and acquisition attributes describe the scan that the source images come from, not the simulated "
    "measurement."
)
MADE_HEADER = "SYN"
"""ConversionType of headers that were made for a volume without DICOM headers; they are no instance to refer to."""
IMPLEMENTATION_CLASS = UID("2.25.262204361379563912411404868271542137206")
IMPLEMENTATION_PREFIX = "DEFT_CT"

_UID_NAMESPACE = uuid.UUID("c542c0b0-6a53-4a44-b4cb-8ac2b19ef56f")
_COLLECTION_CREATOR = "CTP"  # (0013,1010) names the TCIA collection: provenance and licence, not scanner data

# Attributes that describe pixels, presentation, signatures or workflow steps which are not those of the new images.
_DROPPED = (
    "SmallestImagePixelValue", "LargestImagePixelValue", "SmallestPixelValueInSeries", "LargestPixelValueInSeries",
    "PixelPaddingValue", "PixelPaddingRangeLimit", "PixelAspectRatio", "PlanarConfiguration", "NumberOfFrames",
    "IconImageSequence", "ModalityLUTSequence", "VOILUTSequence", "WindowCenterWidthExplanation", "VOILUTFunction",
    "RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData", "DigitalSignaturesSequence", "MACParametersSequence",
    "EncryptedAttributesSequence", "DataSetTrailingPadding", "ReferencedPerformedProcedureStepSequence",
    "ReferencedImageSequence", "ReferencedStudySequence", "SourceImageSequence", "DerivationCodeSequence",
    "InstanceCreatorUID",
    "ConvolutionKernel", "FilterType", "OverlayDate", "OverlayTime", "CurveDate", "CurveTime",
    "ConversionType", "ReferencedFrameNumber", "AcquisitionContextSequence", "ContentQualification",
)  # fmt: skip

# Type 2 attributes of the CT image IOD: present, if only empty.
_PRESENT = (
    "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID", "PatientName", "PatientID",
    "PatientBirthDate", "PatientSex", "Manufacturer", "PositionReferenceIndicator", "AcquisitionNumber", "KVP",
    "ContentDate", "ContentTime", "SliceThickness", "PatientPosition",
)  # fmt: skip


@dataclass(frozen=True)
class PixelFormat:
    """How values are stored: ``HU = slope * stored + intercept``, unsigned 16 bits, and how they are shown.

    Attributes:
        slope: HU per stored unit.
        intercept: HU of the stored value 0.
        windows: (centre, width, explanation) in HU, the first one shown first.
        unit: UCUM code of values that are no CT numbers, in place of HU everywhere above.
    """

    slope: float
    intercept: float
    windows: tuple[tuple[float, float, str], ...]
    unit: str = "HU"

    def encode(self, hu: NDArray[np.floating]) -> NDArray[np.uint16]:
        """Round to the nearest stored value; values outside 16 bits are clipped to its ends."""
        stored = np.rint((np.asarray(hu, np.float64) - self.intercept) / self.slope)
        return stored.clip(0, 65535).astype(np.uint16)


CT_NUMBERS = PixelFormat(1.0, HU_MIN, ((-600.0, 1500.0, "LUNG"), (40.0, 400.0, "SOFT TISSUE"), (400.0, 1800.0, "BONE")))
SPREAD = PixelFormat(0.1, 0.0, ((50.0, 100.0, "SPREAD"), (10.0, 20.0, "SPREAD NARROW")))


@dataclass(frozen=True)
class Derivation:
    """What all images of a derived series share.

    Attributes:
        description: SeriesDescription, without the warning that is added to it.
        details: more for the DerivationDescription: geometry, noise, seed, hashes.
        kind: fourth value of ImageType, or "" for none; it separates the UIDs of sibling series too.
        format: how values are stored.
        series_uid: the new SeriesInstanceUID.
        series_number: the new SeriesNumber.
        frame_of_reference: FrameOfReferenceUID of every image.
        created: date and time of the new images.
        process: how the images came about, the start of the DerivationDescription.
        comment: what the ImageComments say after the warning.
    """

    description: str
    details: str
    kind: str
    format: PixelFormat
    series_uid: str
    series_number: int
    frame_of_reference: str
    created: datetime
    process: str = DERIVATION
    comment: str = SIMULATED


def program_version() -> str:
    """Version of the installed package."""
    try:
        return version("deft-ct")
    except PackageNotFoundError:
        return "0+unknown"


def hashed_uid(*parts: str | bytes) -> str:
    """A UID of the form 2.25.<UUID> (PS3.5 B.2) that depends on ``parts`` alone."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return f"2.25.{uuid.uuid5(_UID_NAMESPACE, digest.hexdigest()).int}"


def valid_study_uid(source: Dataset) -> str:
    """The study of a slice; where its UID is invalid, one that follows from it, the same for the whole study."""
    uid = str(source.StudyInstanceUID)
    return uid if is_valid_uid(uid) else hashed_uid("study", uid)


def random_uid() -> str:
    """A new UID of the form 2.25.<UUID>."""
    return f"2.25.{uuid.uuid4().int}"


def series_description(description: str) -> str:
    """The description and the warning in the 64 characters of a SeriesDescription; the description gives way."""
    room = 64 - len(WARNING) - 1
    text = " ".join(description.split())
    return f"{text if len(text) <= room else text[: room - 1] + '~'} {WARNING}".strip()


def derived_image(
    source: Dataset, stored: NDArray[np.uint16], derivation: Derivation, *, number: int, uid: str
) -> Dataset:
    """The DICOM image that carries ``stored`` in the place of the slice ``source``.

    Args:
        source: header of the slice that it was made from; not changed.
        stored: (Rows, Columns) uint16.
        derivation: what the series shares.
        number: InstanceNumber.
        uid: SOPInstanceUID.

    Returns:
        A dataset with file meta information, ready to be saved.
    """
    image = _inherited(source)
    _describe_series(image, derivation)
    _describe_instance(image, source, derivation, number, uid)
    _set_pixels(image, stored, derivation.format)
    image.file_meta = FileMetaDataset()
    image.file_meta.MediaStorageSOPClassUID = CTImageStorage
    image.file_meta.MediaStorageSOPInstanceUID = UID(uid)
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.ImplementationClassUID = IMPLEMENTATION_CLASS
    image.file_meta.ImplementationVersionName = f"{IMPLEMENTATION_PREFIX} {program_version()}"[:16]
    return image


def equipment_item(created: datetime, details: str) -> Dataset:
    """An item of the ContributingEquipmentSequence that names this program."""
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = DicomSequence([_code("109103", "Modifying Equipment")])
    item.Manufacturer = PROGRAM
    item.ManufacturerModelName = PROGRAM
    item.SoftwareVersions = program_version()
    item.ContributionDateTime = created.strftime("%Y%m%d%H%M%S")
    item.ContributionDescription = _short_text(f"Reconstruction. {details}")
    return item


def _inherited(source: Dataset) -> Dataset:
    image = Dataset()
    for element in source:
        if not _is_stale(element.tag):
            image.add(deepcopy(element))
    _keep_collection(image, source)
    drop_invalid(image)
    if source.get("StudyInstanceUID") and "StudyInstanceUID" not in image:
        image.StudyInstanceUID = valid_study_uid(source)
    for name in _DROPPED:
        if name in image:
            delattr(image, name)
    for name in _PRESENT:
        if name not in image:
            setattr(image, name, None)
    return image


def _is_stale(tag: BaseTag) -> bool:
    """Private attributes, group lengths, curves and overlays, file meta information."""
    return tag.is_private or tag.element == 0 or tag.group >> 8 in (0x50, 0x60) or tag.group <= 0x0002


def _keep_collection(image: Dataset, source: Dataset) -> None:
    """Keep the one private block that is not stale: the archive's names of collection and site."""
    creator = source.get((0x0013, 0x0010))
    if creator is None or creator.value != _COLLECTION_CREATOR:
        return
    block = image.private_block(0x0013, _COLLECTION_CREATOR, create=True)
    for offset in (0x10, 0x13):
        element = source.get((0x0013, 0x1000 + offset))
        if element is not None and element.value:
            text = element.value.decode("ascii", "replace") if isinstance(element.value, bytes) else str(element.value)
            block.add_new(offset, "LO", text.strip("\0 "))


def _describe_series(image: Dataset, derivation: Derivation) -> None:
    image.SOPClassUID = CTImageStorage
    image.Modality = "CT"
    image.SeriesInstanceUID = UID(derivation.series_uid)
    image.SeriesNumber = derivation.series_number
    image.SeriesDescription = series_description(derivation.description)
    image.FrameOfReferenceUID = UID(derivation.frame_of_reference)
    image.SeriesDate = derivation.created.strftime("%Y%m%d")
    image.SeriesTime = derivation.created.strftime("%H%M%S")


def _describe_instance(image: Dataset, source: Dataset, derivation: Derivation, number: int, uid: str) -> None:
    image.SOPInstanceUID = UID(uid)
    image.InstanceNumber = number
    image.InstanceCreationDate = image.ContentDate = derivation.created.strftime("%Y%m%d")
    image.InstanceCreationTime = image.ContentTime = derivation.created.strftime("%H%M%S")
    image.ImageType = ["DERIVED", "SECONDARY", "AXIAL", *([derivation.kind] if derivation.kind else [])]
    text = f"{derivation.process}. {derivation.description}"
    image.DerivationDescription = _short_text(f"{text}. {derivation.details}" if derivation.details else text)
    image.ImageComments = f"{WARNING}. {derivation.comment}"
    if source.get("ConversionType") != MADE_HEADER and is_valid_uid(source.SOPInstanceUID):
        image.SourceImageSequence = DicomSequence([_reference(source)])
    history: Sequence[Dataset] = image.get("ContributingEquipmentSequence") or []
    item = equipment_item(derivation.created, derivation.details)
    image.ContributingEquipmentSequence = DicomSequence([*history, item])


def _reference(source: Dataset) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = source.SOPClassUID
    reference.ReferencedSOPInstanceUID = source.SOPInstanceUID
    frame = frame_of(source)
    if frame is not None:
        reference.ReferencedFrameNumber = frame
    reference.PurposeOfReferenceCodeSequence = DicomSequence(
        [_code("121322", "Source image for image processing operation")]
    )
    return reference


def _set_pixels(image: Dataset, stored: NDArray[np.uint16], form: PixelFormat) -> None:
    image.Rows, image.Columns = stored.shape
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
    image.SmallestImagePixelValue, image.LargestImagePixelValue = int(stored.min()), int(stored.max())
    image["SmallestImagePixelValue"].VR = image["LargestImagePixelValue"].VR = "US"
    image.RescaleIntercept, image.RescaleSlope = f"{form.intercept:g}", f"{form.slope:g}"
    image.RescaleType = "HU" if form.unit == "HU" else "US"  # unspecified; the mapping says the unit
    if form.unit != "HU":
        image.RealWorldValueMappingSequence = DicomSequence([_real_world_values(form)])
    image.WindowCenter = [f"{center:g}" for center, _, _ in form.windows]
    image.WindowWidth = [f"{width:g}" for _, width, _ in form.windows]
    image.WindowCenterWidthExplanation = [text for _, _, text in form.windows]
    image.PixelData = stored.astype("<u2").tobytes()
    image["PixelData"].VR = "OW"


def _real_world_values(form: PixelFormat) -> Dataset:
    """What stored values mean, with the unit (PS3.3, C.7.6.16-12b)."""
    mapping = Dataset()
    mapping.add_new("RealWorldValueFirstValueMapped", "US", 0)
    mapping.add_new("RealWorldValueLastValueMapped", "US", 65535)
    mapping.RealWorldValueIntercept, mapping.RealWorldValueSlope = form.intercept, form.slope
    mapping.LUTExplanation, mapping.LUTLabel = "Linear attenuation", "ATTENUATION"
    mapping.MeasurementUnitsCodeSequence = DicomSequence([_code(form.unit, form.unit, "UCUM")])
    return mapping


def _code(value: str, meaning: str, scheme: str = "DCM") -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code


def _short_text(text: str) -> str:
    """Printable ASCII in the 1024 characters of an ST value; the whole of it belongs in ``run.json``."""
    clean = " ".join(text.encode("ascii", "replace").decode().replace("\\", "/").split())
    return clean if len(clean) <= 1024 else clean[:1021] + "..."
