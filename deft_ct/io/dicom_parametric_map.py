"""The posterior spread as a DICOM Parametric Map: float32 with HU as its real-world unit."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage

from deft_ct.io.deidentify import STATEMENTS, is_burned_in
from deft_ct.io.dicom_derive import (
    IMPLEMENTATION_CLASS,
    IMPLEMENTATION_PREFIX,
    PROGRAM,
    WARNING,
    Derivation,
    equipment_item,
    hashed_uid,
    program_version,
    series_description,
    valid_study_uid,
)
from deft_ct.io.dicom_valid import drop_invalid


def require_highdicom() -> None:
    """Check, before any work, that parametric maps can be written.

    Raises:
        ImportError: highdicom is not installed; the message names the extra.
    """
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise ImportError("writing a Parametric Map needs highdicom: pip install 'deft-ct[parametric-map]'") from error


def save_parametric_map(
    path: Path,
    values: NDArray[np.float32],
    headers: Sequence[Dataset],
    about: Derivation,
    uid_of: Callable[..., str],
) -> None:
    """Write ``values`` as one multi-frame Parametric Map in the geometry of the source slices.

    Args:
        path: the file.
        values: (Z, H, W) float32, HU.
        headers: the source slices' headers, of the same size and order.
        about: description, series number and time of creation.
        uid_of: makes a UID of strings and bytes.

    Raises:
        ImportError: highdicom is not installed.
    """
    require_highdicom()
    from highdicom import content, enum, pm
    from highdicom.sr.coding import CodedConcept

    stack = np.ascontiguousarray(values, np.float32)
    key = (about.description, about.details, stack.tobytes(), str(headers[0].SeriesInstanceUID))
    limits = (float(stack.min()), max(float(stack.max()), float(stack.min()) + 1.0))
    mapping = pm.RealWorldValueMapping(
        lut_label="STD_HU",
        lut_explanation="Posterior standard deviation in HU",
        unit=CodedConcept("[hnsf'U]", "UCUM", "Hounsfield unit"),
        value_range=limits,
        slope=1.0,
        intercept=0.0,
        quantity_definition=CodedConcept("113061", "DCM", "Standard Deviation"),
    )
    with warnings.catch_warnings():
        # About the form of the source's patient name, which is kept as it is.
        warnings.filterwarnings("ignore", category=UserWarning, module="highdicom")
        parametric = pm.ParametricMap(
            source_images=[_complete(header, about) for header in headers],
            pixel_array=stack,
            series_instance_uid=uid_of("map series", *key),
            series_number=about.series_number,
            sop_instance_uid=uid_of("map instance", *key),
            instance_number=1,
            manufacturer=PROGRAM,
            manufacturer_model_name=PROGRAM,
            software_versions=program_version(),
            device_serial_number="none",
            contains_recognizable_visual_features=any(
                str(header.get("RecognizableVisualFeatures", "")).upper() == "YES" for header in headers
            ),
            real_world_value_mappings=[mapping],
            voi_lut_transformations=[content.VOILUTTransformation(window_center=50.0, window_width=100.0)],
            content_qualification=enum.ContentQualificationValues.RESEARCH,
            content_description="Posterior standard deviation",
            content_label="POSTERIOR_STD",
            series_description=series_description(about.description),
        )
    parametric.DerivationDescription = f"{about.process}. {about.description}"[:1024]
    parametric.ImageComments = WARNING
    parametric.add_new("ContributingEquipmentSequence", "SQ", [equipment_item(about.created, about.details)])
    for name in STATEMENTS:
        if name in headers[0]:
            parametric[name] = deepcopy(headers[0][name])
    if any(is_burned_in(header) for header in headers):
        parametric.BurnedInAnnotation = "YES"
    parametric.Laterality = headers[0].get("Laterality", "")  # type 2C: required, if only empty
    for name in ("SeriesDate", "InstanceCreationDate", "ContentDate"):
        setattr(parametric, name, about.created.strftime("%Y%m%d"))
    for name in ("SeriesTime", "InstanceCreationTime", "ContentTime"):
        setattr(parametric, name, about.created.strftime("%H%M%S"))
    parametric.file_meta.ImplementationClassUID = IMPLEMENTATION_CLASS
    parametric.file_meta.ImplementationVersionName = f"{IMPLEMENTATION_PREFIX} {program_version()}"[:16]
    encoded = io.BytesIO()  # pydicom puts a traceback into the message of an error of the disk
    parametric.save_as(encoded, enforce_file_format=True)
    path.write_bytes(encoded.getbuffer())


def _complete(header: Dataset, about: Derivation) -> Dataset:
    """A copy with the attributes that highdicom insists on, empty where the source has none."""
    source = deepcopy(header)
    drop_invalid(source)
    source.StudyInstanceUID = valid_study_uid(header)
    for name in ("SeriesInstanceUID", "SOPInstanceUID"):
        if name not in source:
            setattr(source, name, hashed_uid(name, str(header[name].value)))
    source.SOPClassUID = CTImageStorage
    source.FrameOfReferenceUID = about.frame_of_reference
    source.pop("ReferencedStudySequence", None)
    for name in (
        "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime",
        "AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator", "SliceThickness",
    ):  # fmt: skip
        if name not in source:
            setattr(source, name, None)
    return source
