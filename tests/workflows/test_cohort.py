"""Many patients: a folder of results for each, a table with failures, and a run that goes on."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from deft_ct.cli import app
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


def command(*words: object) -> Result:
    return CliRunner().invoke(app, ["reconstruct", *map(str, words)], env={"COLUMNS": "200", "TERM": "dumb"})


def test_the_command_takes_its_options_from_a_file(patients: Path, tmp_path: Path) -> None:
    config = tmp_path / "options.yaml"
    config.write_text(
        f"method: fbp\ncompare: [sirt]\nviews: 12\nsize: 32\njobs: 1\nslices: '2:2'\nprogress: false\n"
        f"out: {tmp_path / 'out'}\nmax-memory: 8G\n"
    )
    shown = command(patients, "--config", config, "--size", 16)
    assert shown.exit_code == 2 and "1 of 3 patients failed: carl" in shown.output, shown.output
    assert "anna: 1 slices, PSNR" in shown.output and "2 of 3 patients done" in shown.output
    record = json.loads((tmp_path / "out" / "anna" / "run.json").read_text())
    assert record["settings"]["size"] == 16 and record["settings"]["views"] == 12
    assert record["settings"]["compare"] == ["sirt"] and record["settings"]["max_bytes"] == 8 * 2**30


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("viws: 60\n", "unknown option viws; known: "),
        ("- 60\n", "expected lines such as `views: 60`"),
        ("views: true\n", "views must be a value, got True"),
        ("overwrite: 3\n", "overwrite must be true or false, got 3"),
        ("views: [1, 2]\n", "views takes one value, got a list"),
        ("views: many\n", "'many' is not a valid int"),
        ("views: 60\nviews: 61\n", "the key views is there twice"),
        ("max-memory: big\n", "--max-memory expects a size such as 3G or 500M"),
        ("slices: 3\n", "--slices expects FIRST:LAST"),
        ("slices: '4:3'\n", "slices count from 1, the first before the last, got 4:3"),
    ],
)
def test_a_bad_file_of_options_is_refused(text: str, message: str, tmp_path: Path) -> None:
    config = tmp_path / "options.yaml"
    config.write_text(text)
    shown = command(sample_series_path(), "--out", tmp_path / "out", "--method", "fbp", "--config", config)
    assert shown.exit_code == 2, shown.output
    assert message in " ".join(shown.output.replace("\u2502", " ").split()), shown.output
    assert not (tmp_path / "out").exists()


def test_options_of_a_cohort_and_of_a_patient_exclude_each_other(patients: Path, tmp_path: Path) -> None:
    shown = command(patients, "--out", tmp_path / "out", "--jobs", 1, "--series", "1.2")
    assert shown.exit_code == 2 and "--series is of one patient, and --jobs is for many" in shown.output
    shown = command(patients / "bert.nii.gz", "--out", tmp_path / "out", "--slices", "7:9", "--method", "fbp")
    assert shown.exit_code == 2 and "slices 7 to 9 are wanted, and the series has 3" in shown.output
