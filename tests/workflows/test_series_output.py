"""What a run tells about the patient: nothing in the report, and nothing in any file if it is de-identified."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from seeded_sampler import NoConfig, SeededSampler

from deft_ct.io import DicomOptions, Series, read_dicom_series, sample_series_path, write_dicom_series
from deft_ct.io.errors import ReadError
from deft_ct.methods.registry import Networks
from deft_ct.reconstruction import Estimate, Request
from deft_ct.workflows import series_job as job
from deft_ct.workflows.reconstruct_series import Run, SparseView, reconstruct_series
from deft_ct.workflows.series_output import Output

SETTINGS = SparseView(compare=(), views=24, samples=2, size=64, photons=1e3)
PATIENT = {
    "PatientName": "Doe^Jane", "PatientID": "MRN-4711", "PatientBirthDate": "19610203", "AccessionNumber": "ACC-99",
    "InstitutionName": "Seaside Hospital", "StudyInstanceUID": "1.2.3.77", "FrameOfReferenceUID": "1.2.3.9",
    "ConvolutionKernel": "kernel-of-Jane",
}  # fmt: skip


@pytest.fixture(autouse=True)
def seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Networks, "build", lambda *_, **__: SeededSampler(NoConfig()))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three slices of a patient in a folder that bears the name, beside a file that is no DICOM."""
    series = read_dicom_series(sample_series_path()).slices(0, 3).resampled(8)
    folder = tmp_path / "Doe_Jane"
    for path in write_dicom_series(series.hu, like=series, folder=folder).mean:
        dataset = pydicom.dcmread(path)
        for name, value in PATIENT.items():
            setattr(dataset, name, value)
        dataset.save_as(path)
    (folder / "letter-to-Jane.txt").write_text("Dear Jane")
    return folder


def secrets(source: Path) -> list[str]:
    series = read_dicom_series(source)
    return [*PATIENT.values(), series.series_uid, *series.slice_uids, source.name, "letter-to-Jane", str(source.parent)]


def run(source: Path, out: str, **output: Any) -> Run:
    return reconstruct_series(source, source.parent / out, SETTINGS, output=Output(**output))


def pixels(folder: Path) -> list[Series]:
    return [read_dicom_series(folder / "dicom" / name) for name in ("mean", "spread")]


def test_the_report_can_be_mailed(source: Path) -> None:
    done = run(source, "out")
    assert any("letter-to-Jane" in note for note in done.notes), "the user is told what was skipped"
    report, record = ((done.folder / name).read_text() for name in ("report.html", "run.json"))
    found = [secret for secret in secrets(source) if secret in report]
    assert found == []
    assert "2.25." not in report and "1.3.6.1" not in report, "no UID of any kind"
    assert json.loads(record)["source"]["series_uid"] in secrets(source), "the record repeats the run"


def test_a_deidentified_run_tells_nothing_and_has_the_same_pixels(source: Path) -> None:
    pytest.importorskip("dicomanonymizer")
    plain, clean = run(source, "plain"), run(source, "clean", deidentify=True)
    files = sorted(path for path in clean.folder.rglob("*") if path.is_file())
    assert [p.relative_to(clean.folder) for p in files] == sorted(
        p.relative_to(plain.folder) for p in plain.folder.rglob("*") if p.is_file()
    )
    # The kernel is dropped from every derived image, with the option and without.
    for path in files:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        assert [s for s in secrets(source) if s.encode() in content] == [], path.name
    record = json.loads((clean.folder / "run.json").read_text())
    assert record["source"] == {"slices": 3, "changes": [], "warnings": []} and record["settings"]["seed"] == 0
    assert "2.25." not in (clean.folder / "run.json").read_text()
    for one, two in zip(pixels(plain.folder), pixels(clean.folder), strict=True):
        np.testing.assert_array_equal(one.hu, two.hu)
        assert one.headers[0].PatientName == "Doe^Jane" and two.headers[0].PatientIdentityRemoved == "YES"
    for name in ("mean.nii.gz", "spread.nii.gz"):
        assert gzip.decompress((plain.folder / name).read_bytes()) == gzip.decompress(
            (clean.folder / name).read_bytes()
        )


def test_seeds_belong_to_the_original_uids(source: Path) -> None:
    """The test above could not fail if the noise did not depend on the UIDs."""
    first = pixels(run(source, "one").folder)[0]
    for path in source.glob("*.dcm"):
        dataset = pydicom.dcmread(path)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{path.stem.lstrip('0')}"
        dataset.save_as(path)
    assert np.abs(pixels(run(source, "two").folder)[0].hu - first.hu).max() > 1


def test_text_in_the_pixels_is_refused_before_the_reconstruction(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dicomanonymizer")
    for path in source.glob("*.dcm"):
        dataset = pydicom.dcmread(path)
        dataset.BurnedInAnnotation = "YES"
        dataset.save_as(path)
    done = run(source, "allowed", deidentify=True, allow_burned_in=True)
    assert all(header.BurnedInAnnotation == "YES" for one in pixels(done.folder) for header in one.headers)
    monkeypatch.setattr(job, "simulate_scan", lambda *_: pytest.fail("the scan was simulated"))
    with pytest.raises(ReadError, match="BurnedInAnnotation is YES"):
        run(source, "refused", deidentify=True)
    assert not (source.parent / "refused").exists()


def test_options_of_the_output_reach_the_images() -> None:
    output = Output(parametric_map=True, deidentify=True, allow_burned_in=True)
    assert output.dicom == DicomOptions(parametric_map=True, deidentify=True, allow_burned_in=True)


def test_findings_stand_at_the_top_of_the_report_without_a_uid(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(SeededSampler):
        def _estimate(self, request: Request) -> Estimate:
            return Estimate(mean=3 * request.measurement.operator.pseudo_inverse(request.y))

    monkeypatch.setattr(Networks, "build", lambda *_, **__: Wrong(NoConfig()))
    with pytest.warns(UserWarning, match="data not explained"):
        folder = run(source, "out").folder
    page = (folder / "report.html").read_text(encoding="utf-8")
    top = page[page.index("<h2>Warnings</h2>") : page.index("<h2>Metrics</h2>")]
    assert top.count("<li>data not explained: the projections of the images at [0, 1, 2]") == 1
    assert not [secret for secret in secrets(source) if secret in page]
