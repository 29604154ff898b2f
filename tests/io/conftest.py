"""Tiny DICOM series, valid but for what a test changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from derived import Result
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from deft_ct.io import Series, read_dicom_series

MakeSeries = Callable[..., list[Path]]

SIZE = 16


def ct_slice(hu: np.ndarray, **changes: Any) -> Dataset:
    """One CT image; ``changes`` replace attributes (None deletes)."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = "1.2.3", "1.2.3.1", "1.2.3.9"
    dataset.Modality, dataset.PatientID, dataset.PatientName = "CT", "TEST", "Test^Case"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.Rows, dataset.Columns = hu.shape
    dataset.PixelSpacing, dataset.SliceThickness = [0.75, 0.75], 2.5
    dataset.ImageOrientationPatient, dataset.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-100.0, -90.0, 0.0]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    for name, value in changes.items():
        if value is not None:
            setattr(dataset, name, value)
        elif name in dataset:
            delattr(dataset, name)
    if "PixelData" not in changes:
        stored = np.round((hu - float(dataset.RescaleIntercept)) / float(dataset.RescaleSlope))
        dataset.PixelData = stored.astype("<i2" if dataset.PixelRepresentation else "<u2").tobytes()
        dataset["PixelData"].VR = "OW"
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


@pytest.fixture
def make_slice() -> Callable[..., Dataset]:
    """:func:`ct_slice`."""
    return ct_slice


@pytest.fixture
def phantom() -> np.ndarray:
    """(6, 16, 16) integer HU, every slice different."""
    rng = np.random.default_rng(7)
    return rng.integers(-1000, 1500, (6, SIZE, SIZE)).astype(np.float32)


@pytest.fixture
def make_series(phantom: np.ndarray) -> MakeSeries:
    """Write slices at the given positions; the file order is reversed and shuffled against the positions."""

    def make(
        folder: Path, *, z: tuple[float, ...] = (0.0, 2.5, 5.0, 7.5), shear: float = 0.0, **changes: Any
    ) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for n, place in enumerate(z):
            # A list of one value for each slice under the key "each_NAME" changes slices one by one.
            own = {k.removeprefix("each_"): v[n] for k, v in changes.items() if k.startswith("each_")}
            common = {k: v for k, v in changes.items() if not k.startswith("each_")}
            settings = {
                "ImagePositionPatient": [-100.0, -90.0 + shear * place, place],
                "InstanceNumber": (n * 7) % len(z) + 1,
                **common,
                **own,
            }
            path = folder / f"{(n * 5 + 3) % 97:03d}.dcm"
            ct_slice(phantom[n % len(phantom)], **settings).save_as(path, enforce_file_format=True)
            paths.append(path)
        return paths

    return make


@pytest.fixture
def series(tmp_path: Path, make_series: MakeSeries) -> Series:
    make_series(tmp_path / "scan", SeriesNumber=3, ConvolutionKernel="B30f", KVP=120)
    return read_dicom_series(tmp_path / "scan")


@pytest.fixture
def result(series: Series) -> Result:
    spread = torch.linspace(0, 200, series.hu.size).reshape(len(series), 1, 16, 16) * series.units.scale
    return Result(series.attenuation(), spread)
