"""The command line: help, the whole job on the shipped series, and one clear line for every kind of bad input."""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner, Result

from deft_ct.cli import app
from deft_ct.io import read_dicom_series, sample_series_path
from deft_ct.problems.ct_metrics import body_mask
from deft_ct.workflows.reconstruct_series import SparseView

ANSI = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")

    def call(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return call


def text(result: Result) -> str:
    return ANSI.sub("", result.output)


FAST = ("--method", "fbp", "--compare", "", "--size", "64", "--views", "24", "--no-progress")


def test_entry_point_is_the_app() -> None:
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="deft-ct")
    assert entry.load() is app


def test_help_names_every_command_and_option(invoke: Callable[..., Result]) -> None:
    listing = text(invoke("--help"))
    for command in ("reconstruct", "demo", "models", "info"):
        assert command in listing
    assert "not for clinical use" in listing
    options = text(invoke("reconstruct", "--help"))
    for option in ("--views", "--photons", "--method", "--samples", "--out", "--series", "--seed", "--geometry"):
        assert option in options
    for option in ("--device", "--compare", "--overwrite"):
        assert option in options


@pytest.mark.parametrize(
    ("words", "compared"),
    [
        ((), ("fbp", "tv")),
        (("--compare", ""), ()),
        (("--compare", "fbp, cgls"), ("fbp", "cgls")),
        (("--compare", "fbp", "--compare", "cgls,tv"), ("fbp", "cgls", "tv")),
    ],
)
def test_methods_to_compare_are_a_list_or_repeated(
    words: tuple[str, ...], compared: tuple[str, ...], invoke: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[SparseView] = []

    def stop(source: object, out: object, settings: SparseView, **_: object) -> None:
        seen.append(settings)
        raise ValueError("enough")

    monkeypatch.setattr("deft_ct.cli.reconstruct.reconstruct_series", stop)
    assert invoke("reconstruct", sample_series_path(), "--out", "nowhere", *words).exit_code == 2
    assert seen[0].compare == compared


def test_methods_take_options(invoke: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[SparseView] = []

    def stop(source: object, out: object, settings: SparseView, **_: object) -> None:
        seen.append(settings)
        raise ValueError("enough")

    monkeypatch.setattr("deft_ct.cli.reconstruct.reconstruct_series", stop)
    words = ("--method", "deft:steps=50", "--compare", "fbp, tv:strength=80,iterations=20,sirt")
    invoke("reconstruct", sample_series_path(), "--out", "nowhere", *words, "--degrees", "120", "--start", "45")
    invoke("reconstruct", sample_series_path(), "--out", "nowhere", "--method", "tv:strength=80")
    settings, other = seen
    assert other.methods == ("fbp", "tv") and other.options == {"tv": {"strength": 80}}
    assert settings.methods == ("fbp", "tv", "sirt", "deft")
    assert settings.options == {"tv": {"strength": 80, "iterations": 20}, "deft": {"steps": 50}}
    assert settings.scan.name == "parallel60_1e5_120deg_from45"


def test_what_identifies_the_patient_is_dropped_on_demand(tmp_path: Path, invoke: Callable[..., Result]) -> None:
    pytest.importorskip("dicomanonymizer")
    words = ("reconstruct", sample_series_path(), "--out", tmp_path / "out", *FAST, "--deidentify")
    result = invoke(*words)
    assert result.exit_code == 0, text(result)
    source = read_dicom_series(sample_series_path()).headers[0]
    paths = [
        *(tmp_path / "out" / "dicom").rglob("*.dcm"),
        tmp_path / "out" / "run.json",
        tmp_path / "out" / "report.html",
    ]
    assert len(paths) == 10
    for path in paths:
        for name in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID"):
            assert str(source[name].value).encode() not in path.read_bytes(), f"{path.name}: {name}"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("run") / "out"
    result = CliRunner().invoke(app, ["reconstruct", str(sample_series_path()), "--out", str(out), *FAST])
    assert result.exit_code == 0, result.output
    return out, ANSI.sub("", result.output)


def test_the_whole_job_writes_what_it_says(finished: tuple[Path, str]) -> None:
    out, printed = finished
    assert "FBP" in printed and "data range 2000 HU" in printed.replace("\n", " ")
    assert "not for clinical use" in printed
    record = json.loads((out / "run.json").read_text())
    assert record["settings"]["views"] == 24 and record["measurement"]["geometry"]["views"] == 24
    assert record["metrics"][0]["data_range_hu"] == 2000.0
    assert record["reconstructions"]["fbp"]["seed"] == 0
    assert "not for clinical use" in record["notice"]
    assert (out / "comparison.png").read_bytes()[:4] == b"\x89PNG"
    assert "not for clinical use" in (out / "report.html").read_text()
    assert not [p for p in out.parent.iterdir() if p != out]


def test_dicom_and_nifti_agree_with_the_source(finished: tuple[Path, str]) -> None:
    out, _ = finished
    source = read_dicom_series(sample_series_path()).resampled(8)
    files = sorted((out / "dicom").rglob("*.dcm"))
    assert len(files) == len(source)
    for file in files:
        image = pydicom.dcmread(file)
        assert list(image.ImageType)[:2] == ["DERIVED", "SECONDARY"]
        assert image.StudyInstanceUID == source.headers[0].StudyInstanceUID
        assert image.SeriesInstanceUID != source.series_uid
    written = read_dicom_series(files[0].parent)
    np.testing.assert_allclose(written.volume.affine, source.volume.affine, atol=1e-3)
    nifti = nibabel.load(out / "mean.nii.gz")
    np.testing.assert_allclose(nifti.affine, source.volume.ras_affine, atol=1e-3)
    hu = np.asarray(nifti.dataobj).transpose(2, 1, 0)
    np.testing.assert_allclose(written.hu, np.clip(hu, -1024, None), atol=0.51)
    body = body_mask(source.hu, opening_radius_px=1)
    assert abs((hu - source.hu)[body].mean()) < 60  # HU, not 1/mm and not [-1, 1]


def test_runs_are_repeatable_and_replace_only_their_own(
    finished: tuple[Path, str], tmp_path: Path, invoke: Callable[..., Result]
) -> None:
    out, _ = finished
    again = tmp_path / "again"
    assert invoke("reconstruct", sample_series_path(), "--out", again, *FAST).exit_code == 0
    for name in ("mean.nii.gz", "comparison.png"):
        first, second = (folder / name for folder in (out, again))
        if name.endswith(".gz"):  # gzip stamps the time
            np.testing.assert_array_equal(nibabel.load(first).dataobj, nibabel.load(second).dataobj)
        else:
            assert first.read_bytes() == second.read_bytes()
    refused = invoke("reconstruct", sample_series_path(), "--out", again, *FAST)
    assert refused.exit_code == 2 and "not empty" in text(refused)
    assert invoke("reconstruct", sample_series_path(), "--out", again, *FAST, "--overwrite").exit_code == 0
    (again / "thesis.tex").write_text("years of work")
    refused = invoke("reconstruct", sample_series_path(), "--out", again, *FAST, "--overwrite")
    assert refused.exit_code == 2 and "thesis.tex" in text(refused)
    assert (again / "thesis.tex").exists() and (again / "run.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--method", "magic"), "unknown method 'magic'; known methods: .*deft.*fbp.*tv"),
        (("--compare", "fbp,magic"), "unknown method 'magic'"),
        (("--method", "fbp:magic=1"), "fbp has no option magic"),
        (("--method", "fbp:device=cuda"), "device in 'fbp:device=cuda' is an option of the command"),
        (("--compare", "tv:name=fbp"), "name in 'tv:name=fbp' is an option of the command"),
        (("--compare", "tv:strength=8,tv:strength=9"), "tv is there twice with different options"),
        (("--degrees", "400"), "degrees lie in"),
        (("--start", "360"), "start must lie in"),
        (("--photons", "-1"), "photons must be a positive number"),
        (("--photons", "nan"), "photons must be a finite number"),
        (("--scan", "parallel60_1e5"), "--scan says the whole scan: leave out --views"),
        (("--phase", "4"), "the series has one phase only: leave out the phase '4'"),
        (("--series", "1.2.3"), "1.2.3"),
        (("--out", "SOURCE/out"), "overlaps with the input"),
    ],
)
def test_bad_arguments_give_one_clear_line(
    arguments: tuple[str, str], message: str, tmp_path: Path, invoke: Callable[..., Result]
) -> None:
    source = sample_series_path()
    given = dict(zip(FAST[:-1:2], FAST[1:-1:2], strict=True)) | {"--out": str(tmp_path / "out")}
    given |= {arguments[0]: arguments[1].replace("SOURCE", str(source))}
    options = [part for pair in given.items() for part in pair]
    result = invoke("reconstruct", source, *options, "--no-progress")
    assert result.exit_code == 2
    assert re.search(message, text(result)), text(result)
    assert text(result).startswith("error:") and "Traceback" not in text(result)
    assert not (tmp_path / "out").exists() and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--views", "0"), "than or equal to 1"),
        (("--samples", "-1"), "than or equal to 0"),
        (("--geometry", "helical"), "'helical' is not one of 'parallel', 'fan'"),
        (("--precision", "bf16"), "'bf16' is not one of 'float32', 'bfloat16', 'float16'"),
        (("--views", "many"), "should be a valid integer"),
    ],
)
def test_bad_values_are_refused_with_the_choices(
    arguments: tuple[str, str], message: str, tmp_path: Path, invoke: Callable[..., Result]
) -> None:
    result = invoke("reconstruct", sample_series_path(), "--out", tmp_path / "out", *arguments)
    assert result.exit_code == 2 and message in " ".join(text(result).split()), text(result)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--scan", "parallel60_1e5", "--scan", "fan60_1e5"), "takes --scan once, got it 2 times"),
        (("--method", "fbp", "--method", "tv"), "takes --method once, got it 2 times"),
        (("--scan", "helical60"), "unknown scan 'helical60'"),
        (("--scan", "parallel60_1e5_48bins"), "the detector follows from the series"),
    ],
)
def test_one_scan_and_one_method_are_reconstructed(
    words: tuple[str, ...], message: str, tmp_path: Path, invoke: Callable[..., Result]
) -> None:
    result = invoke("reconstruct", sample_series_path(), "--out", tmp_path / "out", *words)
    assert result.exit_code == 2 and message in text(result), text(result)


def test_a_scan_by_name_is_the_scan_of_its_values(
    invoke: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[SparseView] = []

    def stop(source: object, out: object, settings: SparseView, **_: object) -> None:
        seen.append(settings)
        raise ValueError("enough")

    monkeypatch.setattr("deft_ct.cli.reconstruct.reconstruct_series", stop)
    values = ("--views", "30", "--photons", "0", "--geometry", "fan", "--degrees", "240", "--start", "30")
    for words in (("--scan", "fan30_noisefree_240deg_from30"), values):
        invoke("reconstruct", sample_series_path(), "--out", "nowhere", *words)
    assert seen[0] == seen[1] and seen[0].scan.photons is None and seen[0].scan.name == "fan30_noisefree_240deg_from30"


def test_bad_sources_give_one_clear_line(tmp_path: Path, invoke: Callable[..., Result]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    words = tmp_path / "words"
    words.mkdir()
    (words / "a.dcm").write_text("not DICOM")
    for source in (tmp_path / "gone", empty, words):
        result = invoke("reconstruct", source, "--out", tmp_path / "out", *FAST)
        assert result.exit_code == 2 and text(result).startswith("error:"), text(result)
        assert source.name in text(result)
        assert not (tmp_path / "out").exists()


def test_an_interrupted_run_leaves_its_finished_slices_and_goes_on(
    tmp_path: Path, invoke: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("deft_ct.workflows.series_output.write_html", stop)  # the last file but one
        result = invoke("reconstruct", sample_series_path(), "--out", tmp_path / "out", *FAST)
    assert result.exit_code == 130 and "finished slices of a series are kept" in text(result)
    assert [path.name for path in tmp_path.iterdir()] == ["out.unfinished"]
    monkeypatch.setattr("deft_ct.workflows.series_job.simulate_scan", stop)  # there is nothing left to simulate
    assert invoke("reconstruct", sample_series_path(), "--out", tmp_path / "out", *FAST).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_info_and_models(invoke: Callable[..., Result]) -> None:
    listing = text(invoke("info"))
    assert "torch" in listing and "fbp" in listing and "tv" in listing
    assert invoke("models").exit_code == 0
