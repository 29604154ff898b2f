"""``deft-ct reconstruct --projections FILE``: one command for each layout, and one line for each mistake."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from measured_files import write_cil, write_data_exchange, write_htc, write_plain
from typer.testing import CliRunner

from deft_ct.cli.app import app
from deft_ct.cli.projection_options import RawSettings, parse_raw
from deft_ct.ct.calibration import Disc
from deft_ct.io import read_dicom_series, read_nifti


def run(*words: str | Path) -> tuple[int, str]:
    """Exit status and all that was printed, on one line."""
    result = CliRunner().invoke(app, ["reconstruct", *map(str, words), "--no-progress"])
    return result.exit_code, " ".join(result.output.split())


def test_every_layout(tmp_path: Path) -> None:
    data, yaml = write_plain(tmp_path / "a.npy")
    layouts = {
        "HTC 2022 challenge file": (write_htc(tmp_path / "a.mat"), ()),
        "data exchange (HDF5)": (write_data_exchange(tmp_path / "a.h5"), ("--raw", "center=auto,slices=2")),
        "NeXus file of CIL": (write_cil(tmp_path / "a.nxs"), ("--raw", "frames=1:2")),
        "npy file with a geometry file": (data, ("--geometry", yaml)),
    }
    for n, (layout, (path, more)) in enumerate(layouts.items()):
        status, text = run("--projections", path, "--out", tmp_path / f"out{n}", "--size", "32", *more)
        assert status == 0 and layout in text and "32 x 32 pixels" in text, text
        assert ("in 1/element" if "exchange" in layout else "in 1/mm") in text
        assert "Research only, not for clinical use" in text


def test_hounsfield_units_and_a_file_as_the_argument(tmp_path: Path) -> None:
    path = write_htc(tmp_path / "a.mat")
    status, text = run(
        path, "--out", tmp_path / "out", "--method", "tv:iterations=5", "--photons", "1e5", "--size", "48", "--raw",
        "water=0:-8:5,mu_air=0",
    )  # fmt: skip
    assert status == 0 and "in HU" in text, text
    series = read_dicom_series(tmp_path / "out" / "dicom" / "mean")
    nifti = read_nifti(tmp_path / "out" / "mean.nii.gz")
    np.testing.assert_allclose(series.hu, nifti.hu, atol=0.51)
    assert abs(float(series.hu[0, 33:36, 23:25].mean())) < 60


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--views", "20"], "leave out --views: raw data have a scan of their own"),
        (["--compare", "tv"], "leave out --compare"),
        (["--raw", "z=0:1,data=helix"], "--raw: z, data is for helical raw data"),
        (["--raw", "water=1:2"], "water expects X:Y:RADIUS in mm"),
        (["--raw", "water=1:2:1,mu_water=0.02"], "both say what water is"),
        (["--raw", "air=1:2:1"], "air alone makes no Hounsfield scale"),
        (["--raw", "center=left"], "center must be auto, middle or a positive number"),
        (["--raw", "center=500"], "outside the detector's columns 0..95"),
        (["--raw", "frames=0"], "frames expects a number from 1"),
        (["--raw", "frames=2"], "holds one slice"),
        (["--raw", "rings=maybe"], "rings must be no or yes"),
        (["--geometry", "cone"], "'cone' is not one of 'parallel', 'fan'"),
        (["--geometry", "fan"], "leave out --geometry"),
        (["--geometry", "none.yaml"], "no such file: none.yaml"),
        (["--method", "deft"], "deft needs images in HU"),
        (["--unmeasured-map"], "leave out --unmeasured-map"),
    ],
)
def test_bad_options_are_one_line(tmp_path: Path, words: list[str], why: str) -> None:
    status, text = run("--projections", write_htc(tmp_path / "a.mat"), "--out", tmp_path / "out", *words)
    assert status == 2 and why in text.replace("│ ", ""), text
    assert not (tmp_path / "out").exists()


def test_a_geometry_file_is_for_measured_projections(tmp_path: Path) -> None:
    _, yaml = write_plain(tmp_path / "a.npy")
    (tmp_path / "series").mkdir()
    status, text = run(tmp_path / "series", "--out", tmp_path / "out", "--geometry", yaml)
    assert status == 2 and "geometry must be parallel or fan" in text
    status, text = run("--projections", tmp_path / "a.npy", "--out", tmp_path / "out")
    assert status == 2 and "does not say how it was scanned" in text and "--geometry FILE.yaml" in text


def test_settings_of_files() -> None:
    assert parse_raw("frames=3,center=auto,align=both,rings=yes,truncation=ignore,mu_water=auto") == RawSettings(
        chosen=(3, 3), center="auto", align="both", rings=True, truncation=False, mu_water="auto"
    )
    found = parse_raw("slices=2:5,center=140.5,water=1:-2:3,mu_air=0")
    assert (found.chosen, found.center, found.water, found.mu_air) == ((2, 5), 140.5, Disc(1.0, -2.0, 3.0), 0.0)
    assert found.calibration.water == Disc(1.0, -2.0, 3.0)
    with pytest.raises(ValueError, match="has slices twice"):
        parse_raw("frames=1,slices=2")
    with pytest.raises(ValueError, match="rings is for files of projections"):
        parse_raw("rings=yes").check_for("helix")
    with pytest.raises(ValueError, match="give a number"):
        parse_raw("mu_water=auto").check_for("helix")
