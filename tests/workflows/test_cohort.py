"""Many patients: a folder of results for each, a table with failures, and a run that goes on."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from deft_ct.evaluation.execution import RayCluster
from deft_ct.io import Chosen, read_dicom_series, sample_series_path, write_nifti
from deft_ct.runtime.content_key import OtherContentError
from deft_ct.workflows import cohort as module
from deft_ct.workflows.cohort import CohortTask, PatientRun, patients_of, reconstruct_cohort
from deft_ct.workflows.reconstruct_series import SparseView
from deft_ct.workflows.series_output import Output

SETTINGS = SparseView(method="fbp", compare=(), views=12, samples=1, size=16)
TASK = CohortTask(settings=SETTINGS, output=Output(), chosen=Chosen(slices=(2, 3)))


@pytest.fixture
def patients(tmp_path: Path) -> Path:
    """A folder of DICOM, a NIfTI file, and a folder that holds no CT."""
    folder, series = tmp_path / "cohort", read_dicom_series(sample_series_path()).slices(0, 3).resampled(8)
    folder.mkdir()
    shutil.copytree(sample_series_path(), folder / "anna", ignore=shutil.ignore_patterns("*5.dcm", "*6.dcm", "*7.dcm"))
    write_nifti(series.volume, folder / "bert.nii.gz")
    (folder / "carl").mkdir()
    (folder / "carl" / "letter.txt").write_text("no images")
    (folder / ".hidden").write_text("not a patient")
    return folder


def table(out: Path) -> dict[str, dict[str, str]]:
    with (out / "cohort.csv").open(encoding="utf-8") as file:
        return {row["patient"]: row for row in csv.DictReader(file)}


def test_every_patient_has_a_folder_and_a_line(patients: Path, tmp_path: Path) -> None:
    said: list[PatientRun] = []
    found = reconstruct_cohort(patients, tmp_path / "out", TASK, say=said.append)
    assert [(one.name, one.state, one.slices) for one in found] == [
        ("anna", "done", 2), ("bert", "done", 2), ("carl", "failed", 0)
    ]  # fmt: skip
    assert said == found and "DICOM" in found[2].reason
    rows = table(tmp_path / "out")
    assert rows["anna"]["state"] == "done" and float(rows["anna"]["psnr"]) > 10 and "DICOM" in rows["carl"]["reason"]
    record = json.loads((tmp_path / "out" / "bert" / "run.json").read_text())
    assert record["metrics"][0]["metrics"]["psnr"]["mean"] == pytest.approx(float(rows["bert"]["psnr"]))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["anna", "bert", "cohort.csv", "cohort.json"]


def test_finished_patients_are_kept_and_changed_ones_done_again(
    patients: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, worked, real = tmp_path / "out", list[str](), module.reconstruct_series

    def spied(source: Path, *more: object, **options: object) -> object:
        worked.append(source.name)
        if worked == ["anna", "bert.nii.gz"]:
            raise KeyboardInterrupt
        return real(source, *more, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "reconstruct_series", spied)
    with pytest.raises(KeyboardInterrupt):
        reconstruct_cohort(patients, out, TASK)
    assert list(table(out)) == ["anna"]
    first = (out / "anna" / "run.json").stat().st_mtime_ns
    reconstruct_cohort(patients, out, TASK)
    assert worked[2:] == ["bert.nii.gz", "carl"] and list(table(out)) == ["anna", "bert", "carl"]
    assert (out / "anna" / "run.json").stat().st_mtime_ns == first
    (patients / "anna" / "note.txt").write_text("another file")
    reconstruct_cohort(patients, out, TASK)
    assert worked[4:] == ["anna", "carl"] and (out / "anna" / "run.json").stat().st_mtime_ns != first


def test_other_settings_are_refused_unless_they_replace_the_results(patients: Path, tmp_path: Path) -> None:
    shutil.rmtree(patients / "carl")
    reconstruct_cohort(patients, tmp_path / "out", TASK)
    settings = SparseView(method="fbp", compare=(), views=10, samples=1, size=16)
    other = CohortTask(settings=settings, output=Output(), chosen=TASK.chosen)
    with pytest.raises(OtherContentError, match=r"settings\.views 12.*--overwrite"):
        reconstruct_cohort(patients, tmp_path / "out", other)
    anew = CohortTask(settings=settings, output=Output(overwrite=True), chosen=TASK.chosen)
    assert [one.state for one in reconstruct_cohort(patients, tmp_path / "out", anew)] == ["done", "done"]
    assert json.loads((tmp_path / "out" / "anna" / "run.json").read_text())["settings"]["views"] == 10


@pytest.mark.slow
def test_several_at_once_give_the_same(patients: Path, tmp_path: Path) -> None:
    pytest.importorskip("joblib")
    alone = reconstruct_cohort(patients, tmp_path / "one", TASK)
    both = CohortTask(settings=SETTINGS, output=Output(), chosen=TASK.chosen, jobs=2)
    for one, two in zip(alone, reconstruct_cohort(patients, tmp_path / "two", both), strict=True):
        assert (one.name, one.state, one.metrics, one.reason) == (two.name, two.state, two.metrics, two.reason)


def test_what_is_no_cohort_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="a cohort is a folder with a folder or a file for each patient"):
        patients_of(tmp_path / "gone")
    with pytest.raises(ValueError, match="is empty"):
        patients_of(tmp_path)
    for name in ("a.nii", "a.zip"):
        (tmp_path / name).write_text("")
    with pytest.raises(ValueError, match=r"a\.zip and .*a\.nii would have one folder of results"):
        patients_of(tmp_path)
    (tmp_path / "a.zip").unlink()
    with pytest.raises(ValueError, match="overlaps with the input"):
        reconstruct_cohort(tmp_path, tmp_path / "out", TASK)
    with pytest.raises(ValueError, match="jobs must be at least 1"):
        CohortTask(settings=SETTINGS, output=Output(), chosen=Chosen(), jobs=0)


def test_a_cluster_does_the_work_of_every_patient(
    patients: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results arrive in any order; finished patients are not given to the cluster again."""
    given: list[str] = []

    def each(cluster: RayCluster, function: Any, calls: Any) -> Any:
        assert cluster == RayCluster("head:6379", workers=1) and function.__module__ == module.__name__
        for call in reversed(list(calls)):
            given.append(call[1])
            yield function(*call)

    monkeypatch.setattr(RayCluster, "each", each)
    task = CohortTask(settings=SETTINGS, output=Output(), chosen=TASK.chosen, ray="head:6379")
    assert task.key.digest == TASK.key.digest
    found = reconstruct_cohort(patients, tmp_path / "out", task)
    assert [(one.name, one.state) for one in found] == [("anna", "done"), ("bert", "done"), ("carl", "failed")]
    assert given == ["carl", "bert", "anna"]
    reconstruct_cohort(patients, tmp_path / "out", task)
    assert given[3:] == ["carl"]


def test_an_address_that_is_none() -> None:
    with pytest.raises(ValueError, match="--ray must be local, auto"):
        CohortTask(settings=SETTINGS, output=Output(), chosen=Chosen(), ray="over there")


@pytest.mark.slow
def test_a_cohort_on_a_local_cluster(patients: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra 'cluster' is not installed")
    task = CohortTask(settings=SETTINGS, output=Output(), chosen=TASK.chosen, jobs=2, ray="local")
    found = reconstruct_cohort(patients, tmp_path / "out", task)
    alone = reconstruct_cohort(patients, tmp_path / "alone", TASK)
    assert [(one.name, one.state, one.metrics) for one in found] == [
        (one.name, one.state, one.metrics) for one in alone
    ]  # fmt: skip
