"""``reconstruct`` of many patients, of a part of a series, and with options from a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from deft_ct.cli import app
from deft_ct.cli.options import bytes_of
from deft_ct.io import read_dicom_series, sample_series_path, write_nifti


@pytest.fixture
def patients(tmp_path: Path) -> Path:
    """Two NIfTI files, and a folder that holds no CT."""
    folder, series = tmp_path / "cohort", read_dicom_series(sample_series_path()).slices(0, 3).resampled(8)
    folder.mkdir()
    for name in ("anna", "bert"):
        write_nifti(series.volume, folder / f"{name}.nii.gz")
    (folder / "carl").mkdir()
    (folder / "carl" / "letter.txt").write_text("no images")
    return folder


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


@pytest.mark.parametrize(("text", "expected"), [("3G", 3 * 2**30), ("500M", 500 * 2**20), ("1.5 GiB", 3 * 2**29)])
def test_sizes_of_memory(text: str, expected: int) -> None:
    assert bytes_of(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("viws: 60\n", "unknown option viws; known: "),
        ("- 60\n", "expected lines such as `views: 60`"),
        ("views: true\n", "views must be a value, got True"),
        ("overwrite: 3\n", "overwrite must be true or false, got 3"),
        ("views: [1, 2]\n", "views takes one value, got a list"),
        ("views: many\n", "Invalid value for '--views'"),
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
