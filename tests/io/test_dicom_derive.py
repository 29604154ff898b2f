"""The header of a derived image, attribute by attribute, and what of the source it must not carry on."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import UID, CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian

from deft_ct.io.dicom_derive import (
    CT_NUMBERS,
    SPREAD,
    WARNING,
    Derivation,
    derived_image,
    hashed_uid,
    program_version,
    random_uid,
    series_description,
)

WHEN = datetime(2024, 5, 6, 7, 8, 9)
START = "simulated sparse view; research only, not for clinical use. FBP 60 views. "
PIXELS = np.array([[1, 1], [2, 3]], np.uint16)


def about(**changes: Any) -> Derivation:
    """What a series of the spread shares."""
    values = {
        "description": "FBP 60 views", "details": "fan, seed 0", "kind": "KIND", "format": SPREAD,
        "series_uid": "2.25.7", "series_number": 1003, "frame_of_reference": "1.2.3.8", "created": WHEN,
    }  # fmt: skip
    return Derivation(**{**values, **changes})


@pytest.fixture
def source(make_slice: Callable[..., Dataset]) -> Callable[..., Dataset]:
    """Headers of the scanner."""
    return partial(make_slice, np.zeros((4, 4)), SOPInstanceUID="1.2.3.1.1", StudyDate="20200102", KVP=120)


def plain(dataset: Dataset) -> dict[str, Any]:
    """All of a dataset as text, numbers and lists."""
    found = {}
    for element in dataset:
        value = element.value
        if element.VR == "SQ":
            found[element.keyword] = [plain(item) for item in value]
        elif element.VR in ("DS", "IS") and value is not None:
            found[element.keyword] = [float(v) for v in value] if element.VM > 1 else float(value)
        else:
            single = value if element.VR in ("OW", "US") else str(value or "")
            found[element.keyword] = list(value) if element.VM > 1 else single
    return found


def code(value: str, meaning: str) -> list[dict[str, str]]:
    """The one item of a sequence of codes."""
    return [{"CodeValue": value, "CodingSchemeDesignator": "DCM", "CodeMeaning": meaning}]


def test_the_whole_header(source: Callable[..., Dataset]) -> None:
    image = derived_image(source(BurnedInAnnotation="NO"), PIXELS, about(), number=5, uid="2.25.8")
    empty = (
        "StudyTime", "AccessionNumber", "Manufacturer", "ReferringPhysicianName", "PatientBirthDate", "PatientSex",
        "PatientPosition", "StudyID", "PositionReferenceIndicator", "AcquisitionNumber",
    )  # fmt: skip
    assert plain(image) == {
        **dict.fromkeys(empty, ""),
        "ImageType": ["DERIVED", "SECONDARY", "AXIAL", "KIND"], "Modality": "CT",
        "SOPClassUID": CTImageStorage, "SOPInstanceUID": "2.25.8", "InstanceNumber": 5,
        "StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "2.25.7", "SeriesNumber": 1003,
        "FrameOfReferenceUID": "1.2.3.8", "PatientName": "Test^Case", "PatientID": "TEST", "StudyDate": "20200102",
        **dict.fromkeys(("InstanceCreationDate", "SeriesDate", "ContentDate"), "20240506"),
        **dict.fromkeys(("InstanceCreationTime", "SeriesTime", "ContentTime"), "070809"),
        "SeriesDescription": "FBP 60 views RESEARCH ONLY - NOT FOR CLINICAL USE",
        "DerivationDescription": f"{START}fan, seed 0",
        "ImageComments": (
            "RESEARCH ONLY - NOT FOR CLINICAL USE. Exposure, dose and acquisition attributes describe the scan that "
            "the source images come from, not the simulated measurement."
        ),
        "SourceImageSequence": [{
            "ReferencedSOPClassUID": CTImageStorage, "ReferencedSOPInstanceUID": "1.2.3.1.1",
            "PurposeOfReferenceCodeSequence": code("121322", "Source image for image processing operation"),
        }],
        "ContributingEquipmentSequence": [{
            "Manufacturer": "deft-ct", "ManufacturerModelName": "deft-ct", "SoftwareVersions": program_version(),
            "ContributionDateTime": "20240506070809", "ContributionDescription": "Reconstruction. fan, seed 0",
            "PurposeOfReferenceCodeSequence": code("109103", "Modifying Equipment"),
        }],
        "KVP": 120, "SliceThickness": 2.5, "BurnedInAnnotation": "NO",
        "ImagePositionPatient": [-100, -90, 0], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "Rows": 2, "Columns": 2,
        "PixelSpacing": [0.75, 0.75], "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15, "PixelRepresentation": 0,
        "SmallestImagePixelValue": 1, "LargestImagePixelValue": 3, "WindowCenter": [50, 10], "WindowWidth": [100, 20],
        "WindowCenterWidthExplanation": ["SPREAD", "SPREAD NARROW"],
        "RescaleIntercept": 0, "RescaleSlope": 0.1, "RescaleType": "HU",
        "PixelData": b"\1\0\1\0\2\0\3\0",
    }  # fmt: skip
    meta = image.file_meta
    assert (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID) == (CTImageStorage, "2.25.8")
    assert meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert meta.ImplementationClassUID == "2.25.262204361379563912411404868271542137206"
    assert meta.ImplementationVersionName == f"DEFT_CT {program_version()}"[:16]
    assert image["PixelData"].VR == "OW" and image["SmallestImagePixelValue"].VR == "US"


def test_without_details_and_kind_there_are_no_empty_parts(source: Callable[..., Dataset]) -> None:
    image = derived_image(source(), PIXELS, about(details="", kind="", format=CT_NUMBERS), number=1, uid="2.25.8")
    assert list(image.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
    assert image.DerivationDescription.endswith("clinical use. FBP 60 views")
    assert (float(image.RescaleSlope), float(image.RescaleIntercept)) == (1, -1024)
    assert list(map(float, image.WindowCenter)) == [-600, 40, 400]
    assert list(map(float, image.WindowWidth)) == [1500, 400, 1800]


STALE: dict[str, Any] = {
    "SmallestImagePixelValue": 7, "LargestImagePixelValue": 7, "SmallestPixelValueInSeries": 7,
    "LargestPixelValueInSeries": 7, "PixelPaddingValue": 7, "PixelPaddingRangeLimit": 7, "PixelAspectRatio": [1, 1],
    "PlanarConfiguration": 0, "NumberOfFrames": 1, "WindowCenterWidthExplanation": "OLD", "VOILUTFunction": "SIGMOID",
    "RedPaletteColorLookupTableDescriptor": [1, 0, 8], "GreenPaletteColorLookupTableDescriptor": [1, 0, 8],
    "BluePaletteColorLookupTableDescriptor": [1, 0, 8], "RedPaletteColorLookupTableData": b"\0\0",
    "GreenPaletteColorLookupTableData": b"\0\0", "BluePaletteColorLookupTableData": b"\0\0",
    "DataSetTrailingPadding": b"\0\0", "InstanceCreatorUID": "1.2.9", "ConvolutionKernel": "B30f", "FilterType": "BODY",
    "OverlayDate": "20200101", "OverlayTime": "1200", "CurveDate": "20200101", "CurveTime": "1200",
    **{f"{name}Sequence": DicomSequence([Dataset()]) for name in (
        "IconImage", "ModalityLUT", "VOILUT", "DigitalSignatures", "MACParameters", "EncryptedAttributes",
        "ReferencedPerformedProcedureStep", "ReferencedImage", "ReferencedStudy", "SourceImage", "DerivationCode",
    )},
}  # fmt: skip


def test_nothing_of_the_old_pixels_is_left(source: Callable[..., Dataset]) -> None:
    old = source(**STALE)
    old.add_new(0x50000010, "US", 1)
    old.add_new(0x60020010, "US", 1)
    old.add_new(0x00080000, "UL", 4)
    old.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", b"12")
    image, clean = (derived_image(one, PIXELS, about(), number=1, uid="2.25.8") for one in (old, source()))
    assert plain(image) == plain(clean)
    assert set(STALE) <= {element.keyword for element in old}, "the source is not changed"


def test_the_collection_stays_and_earlier_equipment_too(source: Callable[..., Dataset]) -> None:
    old = source()
    block = old.private_block(0x0013, "CTP", create=True)
    block.add_new(0x10, "LO", "LIDC-IDRI ")
    block.add_new(0x11, "LO", "secret")
    block.add_new(0x13, "UN", b"62796588\0")
    scanner = Dataset()
    scanner.Manufacturer = "SCANNER"
    old.ContributingEquipmentSequence = DicomSequence([scanner])
    image = derived_image(old, PIXELS, about(), number=1, uid="2.25.8")
    assert (image[0x0013, 0x1010].value, image[0x0013, 0x1013].value) == ("LIDC-IDRI", "62796588")
    assert (0x0013, 0x1011) not in image
    assert [item.Manufacturer for item in image.ContributingEquipmentSequence] == ["SCANNER", "deft-ct"]
    image.ContributingEquipmentSequence[0].Manufacturer = "changed"
    assert scanner.Manufacturer == "SCANNER"
    old[0x0013, 0x0010].value = "OTHER"
    assert (0x0013, 0x1010) not in derived_image(old, PIXELS, about(), number=1, uid="2.25.8")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", WARNING),
        ("a  b\n c", f"a b c {WARNING}"),
        ("x" * 27, f"{'x' * 27} {WARNING}"),
        ("x" * 28, f"{'x' * 26}~ {WARNING}"),
    ],
)
def test_a_series_description_has_64_characters(text: str, expected: str) -> None:
    assert series_description(text) == expected and len(expected) <= 64


@pytest.mark.parametrize(("count", "cut"), [(1024, False), (1025, True)])
def test_long_details_are_cut_at_1024_characters(source: Callable[..., Dataset], count: int, cut: bool) -> None:
    details = "d" * (count - len(START))
    text = derived_image(source(), PIXELS, about(details=details), number=1, uid="2.25.8").DerivationDescription
    assert text == (f"{(START + details)[:1021]}..." if cut else START + details) and len(text) == 1024


def test_values_are_rounded_and_clipped_at_both_ends() -> None:
    hu = np.array([-1e9, -1024.6, -1024.0, -0.5, 0.4, 0.6, 64511.0, 64512.0, 1e9])
    assert CT_NUMBERS.encode(hu).tolist() == [0, 0, 0, 1024, 1024, 1025, 65535, 65535, 65535]
    assert SPREAD.encode(np.array([-1, 0.04, 0.06, 6553.5, 6554.0])).tolist() == [0, 0, 1, 65535, 65535]


def test_uids_follow_from_their_parts_and_not_from_their_joints() -> None:
    assert hashed_uid("ab", b"c") == hashed_uid("ab", "c") != hashed_uid("a", "bc")
    # The same result has the same UIDs in every version of the program.
    assert hashed_uid("series") == "2.25.32406239398033449276670013875010838276"
    assert UID(random_uid()).is_valid and random_uid() != random_uid() and random_uid().startswith("2.25.")


def test_an_image_of_several_frames_becomes_single_ones(source: Callable[..., Dataset]) -> None:
    image = derived_image(source(SOPClassUID=EnhancedCTImageStorage), PIXELS, about(), number=1, uid="2.25.9")
    assert image.SOPClassUID == CTImageStorage == image.file_meta.MediaStorageSOPClassUID


def test_ct_numbers_are_shown_as_lung_soft_tissue_and_bone(source: Callable[..., Dataset]) -> None:
    image = derived_image(source(), PIXELS, about(format=CT_NUMBERS), number=1, uid="2.25.9")
    assert [float(v) for v in image.WindowCenter] == [-600, 40, 400]
    assert [float(v) for v in image.WindowWidth] == [1500, 400, 1800]
    assert list(image.WindowCenterWidthExplanation) == ["LUNG", "SOFT TISSUE", "BONE"]
    assert (float(image.RescaleSlope), float(image.RescaleIntercept)) == (1, -1024)
