"""``deft-ct reconstruct`` for raw data."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from deft_ct.cli.app import app
from deft_ct.cli.projection_options import RawSettings, parse_raw
from deft_ct.datasets.synthetic_ct_pd import SyntheticScan, trunk, write_synthetic_scan
from deft_ct.io import read_dicom_series


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small scan."""
    scan = SyntheticScan(turns=2.0, views_per_turn=48, columns=32, column_mm=14.0, rows=8, row_mm=4.4)
    return write_synthetic_scan(tmp_path_factory.mktemp("ct_pd") / "scan", trunk(scan.mu_water), scan)


def run(*words: str | Path) -> tuple[int, str]:
    """Exit status and all that was printed, on one line."""
    result = CliRunner().invoke(app, ["reconstruct", *map(str, words)])
    return result.exit_code, " ".join(result.output.split())


def test_one_command_from_a_folder_to_a_dicom_volume(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    status, text = run("--projections", files, "--out", out, "--method", "fbp", "--size", "24", "--no-progress")
    assert status == 0, text
    assert "pitch 1" in text and "unverified on a real file" in text and "not for clinical use" in text
    series = read_dicom_series(out / "dicom" / "mean")
    assert series.image_shape == (24, 24) and series.hu.min() > -1100
    assert abs(float(series.hu[:, 10:13, 12].mean())) < 300


def test_a_folder_of_raw_data_is_known(files: Path, tmp_path: Path) -> None:
    words = (files, "--out", tmp_path / "out", "--size", "16", "--raw", "step=6,z=-6:6")
    status, text = run(*words, "--method", "cgls:iterations=2", "--no-progress")
    assert status == 0 and "3 slices of 16 x 16 pixels" in text and "CGLS on the helix" in text


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--views", "20"], "leave out --views: raw data have a scan of their own"),
        (["--compare", "tv", "--series", "1.2"], "leave out --compare, --series"),
        (["--unmeasured-map"], "leave out --unmeasured-map"),
        (["--raw", "z=5"], "--raw: z expects LOW:HIGH in mm, the smaller first, got '5'"),
        (["--raw", "mu_water=0.2"], "mu_water must lie in"),
        (["--method", "fbp", "--method", "tv"], "this command takes --method once"),
    ],
)
def test_bad_options_are_one_line(files: Path, tmp_path: Path, words: list[str], why: str) -> None:
    status, text = run("--projections", files, "--out", tmp_path / "out", *words)
    assert status == 2 and why in text
    assert not (tmp_path / "out").exists()


def test_raw_options_need_raw_data(files: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    status, text = run(tmp_path / "empty", "--out", tmp_path / "out", "--raw", "z=0:1")
    assert status == 2 and "--raw is for raw data" in text
    status, text = run("--out", tmp_path / "out")
    assert status == 2 and "name the folder of a series, or that of raw data with --projections" in text
    status, text = run(files, "--projections", files, "--out", tmp_path / "out")
    assert status == 2 and "name one folder" in text


def test_settings_of_raw_data() -> None:
    assert parse_raw(None) == parse_raw("") == RawSettings()
    assert parse_raw("z=-3.5:7, fov=400,step=2,rows=reversed,data=helix") == RawSettings(
        z=(-3.5, 7.0), fov=400.0, step=2.0, reversed=True, rebin=False
    )
    assert parse_raw("data=slices,mu_water=0.019") == RawSettings(rebin=True, mu_water=0.019)
    for text, why in (
        ("z=7:3", "LOW:HIGH"), ("z=a:b", "LOW:HIGH"), ("z=1:2:3", "LOW:HIGH"), ("z=nan:1", "LOW:HIGH"),
        ("fov=-1", "positive number"), ("step=x", "positive number"), ("rows=up", "forward or reversed"),
        ("data", "helix or slices"), ("size=3", "has no setting 'size'"), ("fov=1,fov=2", "fov twice"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=why):
            parse_raw(text)
