"""The DICOM node beside an archive: sent over the network of this machine, received by pynetdicom's own classes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

pynetdicom = pytest.importorskip("pynetdicom", reason="the extra 'dicom-node' is not installed")

from deft_ct.pipelines.dicom_node import Address, DicomNode, send  # noqa: E402
from deft_ct.workflows.reconstruct_series import SparseView  # noqa: E402

SETTINGS = SparseView(method="fbp", compare=(), views=24, samples=1, size=32, photons=0)


def write_slices(folder: Path, *, series: str = "1.2.3.1", count: int = 2) -> list[Path]:
    """A block of water in air."""
    folder.mkdir(parents=True)
    hu = np.full((32, 32), -1000)
    hu[8:24, 6:26] = 0
    for n in range(count):
        one = Dataset()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = CTImageStorage
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = f"{series}.{n + 1}"
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = "1.2.3", series, "1.2.3.9"
        one.Modality, one.PatientID, one.ImageType = "CT", "TEST", ["ORIGINAL", "PRIMARY", "AXIAL"]
        one.Rows, one.Columns, one.PixelSpacing, one.SliceThickness = 32, 32, [1, 1], 2
        one.ImageOrientationPatient, one.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 2 * n]
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 0
        one.RescaleSlope, one.RescaleIntercept = 1, -1024
        one.PixelData = (hu + 1024).astype("<u2").tobytes()
        one["PixelData"].VR = "OW"
        one.save_as(folder / f"{n}.dcm", enforce_file_format=True)
    return sorted(folder.iterdir())


@pytest.fixture
def archive() -> Iterator[tuple[Address, list[Dataset]]]:
    """A receiver that keeps what it gets."""
    received: list[Dataset] = []

    def keep(event: Any) -> int:
        image = event.dataset
        image.file_meta = event.file_meta
        received.append(image)
        return 0

    entity = pynetdicom.AE("ARCHIVE")
    entity.add_supported_context(CTImageStorage)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(pynetdicom.evt.EVT_C_STORE, keep)])
    yield Address("ARCHIVE", "127.0.0.1", server.socket.getsockname()[1]), received
    server.shutdown()


def test_a_series_comes_back_reconstructed(tmp_path: Path, archive: tuple[Address, list[Dataset]]) -> None:
    address, received = archive
    files = write_slices(tmp_path / "scanner")
    with DicomNode(tmp_path / "work", SETTINGS, send_to=address, listen=Address("NODE", "127.0.0.1", 0)) as node:
        send(files, node.listen)
        node.finish()
        assert len(received) == 2
        send(files[:1], node.listen)  # an image twice: the series is made again, with the same two images
        node.finish()
    assert len(received) == 4
    source = pydicom.dcmread(files[0])
    for image in received:
        assert image.StudyInstanceUID == source.StudyInstanceUID and image.PatientID == "TEST"
        assert image.SeriesInstanceUID != source.SeriesInstanceUID and image.ImageType[0] == "DERIVED"
        assert (image.pixel_array * image.RescaleSlope + image.RescaleIntercept)[12:20, 12:20].mean() == pytest.approx(
            0, abs=100
        )
    assert (tmp_path / "work" / "results" / "1.2.3.1" / "run.json").is_file()


def test_a_series_that_cannot_be_used_does_not_stop_the_node(
    tmp_path: Path, archive: tuple[Address, list[Dataset]]
) -> None:
    address, received = archive
    files = write_slices(tmp_path / "bad", series="1.2.3.2", count=1)
    image = pydicom.dcmread(files[0])
    image.PixelData = np.zeros((32, 32), "<u2").tobytes()  # nothing but air
    image.save_as(files[0])
    with DicomNode(tmp_path / "work", SETTINGS, send_to=address, listen=Address("NODE", "127.0.0.1", 0)) as node:
        send(files, node.listen)
        node.finish()
        assert "air" in (tmp_path / "work" / "results" / "1.2.3.2.failed.txt").read_text() and not received
        send(write_slices(tmp_path / "good"), node.listen)
        node.finish()
    assert len(received) == 2


def test_finish_waits_for_an_association_that_ends_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = DicomNode._closed

    def late(node: DicomNode, event: Any) -> None:
        time.sleep(0.5)
        closed(node, event)

    monkeypatch.setattr(DicomNode, "_closed", late)
    files = write_slices(tmp_path / "scanner")
    with DicomNode(tmp_path / "work", SETTINGS, listen=Address("NODE", "127.0.0.1", 0)) as node:
        send(files, node.listen)
        node.finish()
        assert (tmp_path / "work" / "results" / "1.2.3.1" / "run.json").is_file()


def test_who_may_send_and_what_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pydicom.config.settings, "writing_validation_mode", pydicom.config.IGNORE)
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.IGNORE)
    files = write_slices(tmp_path / "scanner", count=1)
    with DicomNode(tmp_path / "work", SETTINGS, listen=Address("NODE", "127.0.0.1", 0), accept=("CT1",)) as node:
        with pytest.raises(ConnectionError, match="no DICOM connection to NODE"):
            send(files, node.listen, sender="OTHER")
        image = pydicom.dcmread(files[0])
        image.SeriesInstanceUID = "../../x"
        image.save_as(files[0])
        with pytest.raises(ConnectionError, match="did not take"):
            send(files, node.listen, sender="CT1")
    assert not (tmp_path / "work" / "received").exists() and not (tmp_path / "x").exists()


@pytest.mark.parametrize("text", ["", "A@b", "A@b:0", "A@b:70000", "A@b:x", "AAAAAAAAAAAAAAAAA@b:1", "A b@c:1"])
def test_an_address_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="expected TITLE@HOST:PORT"):
        Address.parse(text)
    assert Address.parse("ORTHANC@127.0.0.1:4242") == Address("ORTHANC", "127.0.0.1", 4242)
