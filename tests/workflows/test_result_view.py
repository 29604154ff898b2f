"""The page of a result shows the numbers of its files, in every layer."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image
from seeded_sampler import seeded_deft

from deft_ct.io import read_dicom_series, sample_series_path
from deft_ct.report.viewer import viewer_html
from deft_ct.workflows.reconstruct_series import SparseView, reconstruct_series
from deft_ct.workflows.result_view import Shown, view_of
from deft_ct.workflows.series_output import Output

SETTINGS = SparseView(compare=("fbp",), views=12, samples=2, size=32, photons=1e4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("view") / "out"
    with seeded_deft():
        reconstruct_series(sample_series_path(), out, SETTINGS, output=Output(compared=True, unmeasured_map=True))
    return out


def data_of(html: str) -> dict[str, Any]:
    (text,) = re.findall(r'<script type="application/json" id="viewer-data">(.*?)</script>', html, re.S)
    return dict(json.loads(text))


def volume_of(layer: dict[str, Any]) -> np.ndarray:
    """What a browser makes of the pictures, ``(Z, H, W)``."""
    pictures = [np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for text in layer["slices"]]
    return np.array(layer["values"])[np.stack(pictures)]


def nifti(folder: Path, name: str) -> np.ndarray:
    return np.asarray(nibabel.load(folder / f"{name}.nii.gz").dataobj).transpose(2, 1, 0)


def test_every_layer_of_the_page_is_that_of_the_files(folder: Path) -> None:
    data = data_of((folder / "report.html").read_text(encoding="utf-8"))
    mean = nifti(folder, "mean")
    reference = np.maximum(read_dicom_series(sample_series_path()).fitted(32).hu, -1001.001)
    expected = {
        "mean": mean, "error": mean - reference,
        "spread": nifti(folder, "spread"), "fbp": mean - nifti(folder, "fbp"),
        "unmeasured": nifti(folder, "unmeasured"),
    }  # fmt: skip
    assert [layer["key"] for layer in data["layers"]] == list(expected)
    for layer in data["layers"]:
        found, volume = volume_of(layer), expected[layer["key"]]
        assert np.percentile(np.abs(found - volume), 90) <= 1.5 * layer["within"] + 1, layer["key"]
        assert np.corrcoef(found.ravel(), volume.ravel())[0, 1] > 0.98, layer["key"]
    assert [layer["subtracted"] for layer in data["layers"]] == [None, "reference", None, "FBP", None]


def test_the_page_knows_the_patient_the_metrics_and_the_worst_slice(folder: Path) -> None:
    data = data_of((folder / "report.html").read_text(encoding="utf-8"))
    rows = {row["method"]: row["metrics"] for row in json.loads((folder / "run.json").read_text())["metrics"]}
    psnr = rows["DEFT mean"]["psnr"]["per_slice"]
    assert data["worst"][0] == int(np.argmin(psnr)) and f"{min(psnr):.2f} dB" in data["worst"][1]
    for method, values in data["metrics"].items():
        np.testing.assert_allclose(
            [float(v) for v in values["PSNR (dB)"]], rows[method]["psnr"]["per_slice"], atol=6e-3
        )
    assert set(data["metrics"]) == {"FBP", "DEFT mean"}
    series = read_dicom_series(sample_series_path()).fitted(32)
    np.testing.assert_allclose(data["spacing"], [series.z_mm, series.pixel_mm, series.pixel_mm])
    assert data["directions"] == ["L", "P", "H"] and data["stacked"]
    assert [window["name"] for window in data["windows"]] == ["soft tissue", "lung", "bone", "whole range"]


@pytest.mark.parametrize("with_std", [True, False])
def test_a_result_without_a_truth_has_no_error(with_std: bool) -> None:
    mean = np.random.default_rng(0).random((3, 8, 8)).astype(np.float32)
    std = np.stack([np.full((8, 8), n, np.float32) for n in (1, 3, 2)]) if with_std else None
    shown = Shown(title="FBP", mean=mean, std=std, unit="1/element", spacing_zyx=(1, 1, 1), names=["a", "b", "c"],
                  stacked=False)  # fmt: skip
    data = data_of(viewer_html(view_of(shown)))
    assert [layer["key"] for layer in data["layers"]] == ["mean", "spread"][: 1 + with_std]
    assert data["worst"] == ([1, "mean spread 3, the largest"] if with_std else None)
    assert (
        not data["stacked"] and data["directions"] == [] and data["metrics"] == {} and data["names"] == ["a", "b", "c"]
    )
    for window in data["windows"]:
        assert 0 < window["width"] < 2 and window["limit"] > 0 and 0 <= window["level"] <= 1
