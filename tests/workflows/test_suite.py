"""Suites: typed, one clear error that names the key; those that are shipped can be read by name and by path."""

from __future__ import annotations

from pathlib import Path

import pytest

from deft_ct.runtime.read_error import ReadError
from deft_ct.workflows.suite import Suite, SuiteMethod, read_suite, shipped_suites, suite_path

WHOLE = """
description: for people
data: [a.h5, b.h5]
every: 2
limit: 8
scans: [parallel60_1e5]
seeds: [0, 1]
samples: 4
batch_size: 2
device: cpu
precision: bfloat16
presets: false
models: {fbp_unet: folder}
methods:
  - fbp
  - tv:strength=80
  - method: tv
    options: {strength: 1e2, iterations: 20}
    label: TV, strong
"""


def suite(folder: Path, text: str) -> Path:
    path = folder / "own.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_key_is_read(tmp_path: Path) -> None:
    found = read_suite(suite(tmp_path, WHOLE))
    assert (found.data, found.seeds, found.limit, found.name) == (("a.h5", "b.h5"), (0, 1), 8, "own")
    assert found.scan_list is not None and [scan.name for scan in found.scan_list] == ["parallel60_1e5"]
    assert found.chosen is not None
    assert [method.title for method in found.chosen] == ["fbp", "tv:strength=80", "TV, strong"]
    assert [method.values for method in found.chosen] == [{}, {"strength": 80}, {"strength": 100.0, "iterations": 20}]
    assert read_suite(suite(tmp_path, "data: val\n"), overrides={"limit": 3}) == Suite(
        data=("val",), limit=3, name="own"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sedes: [1]\ndata: a.h5", "unknown key sedes; known: device, precision"),
        ("scans: [parallel60_1e5]", "the key data is missing"),
        ("data: a.h5\nseeds: [one]", "seeds must be a list where each value is a whole number, got ['one']"),
        ("data: a.h5\nevery: 0", "every must be at least 1, got 0"),
        ("data: a.h5\nlimit: 1.5", "limit must be a whole number or None, got 1.5"),
        ("data: a.h5\nmethods: []", "methods is empty"),
        ("data: a.h5\nmethods: [magic]", "methods, entry 1: unknown method 'magic'"),
        ("data: a.h5\nmethods: [fbp, {options: {}}]", "methods, entry 2: the key method is missing"),
        ("data: a.h5\nmethods: [fbp, {method: 'tv:strength=1', options: {strength: 2}}]", "strength is there twice"),
        ("data: a.h5\nmethods: [fbp, fbp]", "methods has a label twice: fbp, fbp"),
        ("data: [a.h5, a.h5]", "data has an entry twice"),
        ("data: a.h5\nscans: [spiral]", "unknown scan 'spiral'"),
        ("data: a.h5\nprecision: float8", "precision must be one of float32, bfloat16, float16"),
        ("data: a.h5\ndata: b.h5", "the key data is there twice"),
        ("data: photos:a", "photographs need tasks, for example"),
        ("data: photos:a\ntasks: [magic]", "unknown task 'magic'; known are denoise"),
        ("data: photos:a\ntasks: [sr4]\nscans: [parallel60_1e5]", "scans is not for photographs: leave it out"),
        ("data: a.h5\ntasks: [sr4]", "tasks is not for CT: leave it out"),
        ("data: [a.h5, 'photos:a']\ntasks: [sr4]", "data has photographs and others: make a suite of each"),
        ("data: photos:a\ntasks: ['sr4:noise=0.1']\nnoise: [0.2]", "noise is there twice: 'sr4:noise=0.1' names"),
        ("- a", "is not a suite: expected keys such as data and methods, got list"),
        ("data: [a", "is not YAML: "),
        ("data: !!python/object/apply:os.system [ls]", "is not YAML: could not determine a constructor"),
        ("a: &a [x, x]\nb: &b [*a, *a]\ndata: *b", "unknown key a, b"),
    ],
)
def test_one_error_names_the_file_and_the_key(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ReadError) as caught:
        read_suite(suite(tmp_path, text))
    assert str(caught.value).startswith(f"{tmp_path / 'own.yaml'}: is not ") and message in str(caught.value)


def test_environment_variables_stand_for_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEFT_CT_TEST_FOLDER", "/d/lodopab")
    found = Suite(data=("lodopab:$DEFT_CT_TEST_FOLDER:test", "${DEFT_CT_TEST_FOLDER}/x.h5"))
    assert found.data_names == ["lodopab:/d/lodopab:test", "/d/lodopab/x.h5"]
    monkeypatch.delenv("DEFT_CT_TEST_FOLDER")
    with pytest.raises(ValueError, match="data needs the environment variable DEFT_CT_TEST_FOLDER: set it"):
        _ = found.data_names


def test_the_shipped_suites_are_valid_and_found_by_name_and_path(repository_root: Path) -> None:
    known = shipped_suites()
    assert {"ct256", "ct512", "lodopab", "aapm-sparse", "dm4ct", "htc2022"} <= set(known)
    for name in known:
        found = read_suite(name)
        assert found.description and found.methods and found.name == name
        assert read_suite(f"suites/{name}.yaml") == read_suite(f"{name}.yaml") == found
    assert {path.stem for path in (repository_root / "deft_ct" / "assets" / "suites").iterdir()} == set(known)
    for name in ("nothing", "elsewhere/ct256.yaml"):
        with pytest.raises(
            FileNotFoundError, match=r"no suite '.*': not a file, and the shipped ones are aapm-sparse, ct"
        ):
            suite_path(name)


def test_noise_levels_are_for_every_task(tmp_path: Path) -> None:
    found = read_suite(suite(tmp_path, "data: photos:a\ntasks: [sr4, 'jpeg:quality=5']\nnoise: [0, 0.1]"))
    assert found.task_list == ["sr4:noise=0", "sr4:noise=0.1", "jpeg:quality=5,noise=0", "jpeg:quality=5,noise=0.1"]


def test_the_label_of_a_method_says_its_options() -> None:
    assert SuiteMethod(method="tv", options={"strength": 80}).title == "tv:strength=80"
    assert SuiteMethod(method="tv:strength=80", options={"iterations": 2}).title == "tv:strength=80,iterations=2"
