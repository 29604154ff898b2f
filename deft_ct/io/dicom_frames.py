"""The frames of an enhanced multi-frame CT image as slices, each with the header of a single image (PS3.3, A.38)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset, FileDataset
from pydicom.tag import Tag
from pydicom.uid import EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage

MULTI_FRAME_CLASSES = (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)

_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
# What describes the file as a whole, not a slice.
_DROPPED = {
    *_GROUPS, "NumberOfFrames", "DimensionOrganizationSequence", "DimensionIndexSequence", "DimensionOrganizationType",
    "ReferencedSeriesSequence", "ReferencedImageEvidenceSequence", "SourceImageEvidenceSequence", "PixelPresentation",
    "VolumetricProperties", "VolumeBasedCalculationTechnique", "ConcatenationUID", "InConcatenationNumber",
}  # fmt: skip
_SKIPPED_GROUPS = {
    "ConversionSourceAttributesSequence", "DerivationImageSequence", "ReferencedImageSequence", "FrameAnatomySequence",
}  # fmt: skip
# Names of a frame -> names of a single image.
_RENAMED = {
    "FrameType": "ImageType", "FrameAcquisitionNumber": "AcquisitionNumber",
    "TemporalPositionIndex": "TemporalPositionIdentifier", "FrameAcquisitionDateTime": "AcquisitionDateTime",
}  # fmt: skip


def is_multi_frame(header: Dataset) -> bool:
    """Whether a file holds several frames, by its class or by their number."""
    return header.get("SOPClassUID") in MULTI_FRAME_CLASSES or int(header.get("NumberOfFrames", 1) or 1) > 1


def frame_of(header: Dataset) -> int | None:
    """Number of the frame, from 1, that a header of :func:`frame_headers` belongs to; None for a single image."""
    value = header.get("ReferencedFrameNumber")
    return None if value is None else int(value)


def slice_uid(header: Dataset) -> str:
    """What a slice is known by: its SOPInstanceUID, and the number of the frame where there are several."""
    frame = frame_of(header)
    return str(header.SOPInstanceUID) if frame is None else f"{header.SOPInstanceUID}.{frame}"


def frame_headers(header: FileDataset) -> list[FileDataset]:
    """A header for each frame: what holds for the file, for all frames, and for this one, in one level.

    Each has the ``ReferencedFrameNumber`` of its frame. Values are shared between the headers: do not change them.

    Raises:
        ValueError: it describes no frames, or another number of them than it says.
    """
    frames = list(header.get("PerFrameFunctionalGroupsSequence") or [])
    count = int(header.get("NumberOfFrames", 1) or 1)
    if len(frames) != count:
        raise ValueError(
            f"it says that it holds {count} frames and describes {len(frames)} (PerFrameFunctionalGroupsSequence); "
            "export it again, or one file per slice"
        )
    common = FileDataset(header.filename or "", {}, file_meta=header.file_meta)
    for element in header:
        if element.keyword not in _DROPPED:
            common.add(element)
    for shared in header.get("SharedFunctionalGroupsSequence") or []:
        _flatten(shared, common)
    found = []
    for n, groups in enumerate(frames, start=1):
        one = FileDataset(header.filename or "", {}, file_meta=header.file_meta)
        for element in common:
            one.add(element)
        _set(one, "InstanceNumber", n)
        _flatten(groups, one)
        _set(one, "ReferencedFrameNumber", n)
        found.append(one)
    return found


def _flatten(groups: Dataset, into: Dataset) -> None:
    for element in chain.from_iterable(_items(groups)):
        name = _RENAMED.get(element.keyword)
        if name is None:
            into.add(element)
        elif element.value not in (None, ""):
            _set(into, name, element.value)


def _set(dataset: Dataset, name: str, value: object) -> None:
    """Replace an element; setting the attribute would change the element that headers share."""
    dataset.add_new(Tag(name), dictionary_VR(name), value)


def _items(groups: Dataset) -> Iterator[Dataset]:
    for group in groups:
        if group.VR == "SQ" and group.keyword not in _SKIPPED_GROUPS and not group.tag.is_private and group.value:
            yield group.value[0]
