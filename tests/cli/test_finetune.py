"""``deft-ct finetune``: folders of every kind of file, from a shipped or given h-transform to one that reconstructs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image
from tiny import NETWORK, SIZE, tiny_htransform, tiny_prior, tiny_slices
from tiny_pack import write_tiny_pack
from typer.testing import CliRunner

from deft_ct.cli import app
from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.ct.volume import Volume
from deft_ct.diffusion import save_prior
from deft_ct.io import sample_series_path, write_hdf5, write_nifti
from deft_ct.methods.deft import load_htransform, save_htransform
from deft_ct.methods.deft.conditioning import SPREAD_SLOPES
from deft_ct.methods.deft.refinement import RefinementConfig


def _hu(count: int = 3) -> np.ndarray:
    return HounsfieldScale().to_hu(tiny_slices(count))[:, 0].numpy()


def _write(kind: str, folder: Path) -> None:
    """A tiny folder of one kind, at another size than the network's where the kind allows."""
    folder.mkdir()
    volume = Volume.from_spacing(np.repeat(np.repeat(_hu(), 2, 1), 2, 2), pixel_mm=4.0, z_mm=5.0)
    if kind == "dicom":
        shutil.copytree(sample_series_path(), folder / "patient" / "series")
    elif kind == "nifti":
        write_nifti(volume, folder / "a.nii.gz")
    elif kind == "hdf5":
        write_hdf5(volume, folder / "a.h5")
    elif kind == "pack":
        write_tiny_pack(folder / "train.h5", count=2)
    else:
        for n, hu in enumerate(_hu()):
            grey = np.rint((hu + 1000) / 2000 * 65535).clip(0, 65535).astype(np.uint16)
            Image.fromarray(grey).save(folder / f"{n}.{kind}")


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, Path]:
    prior = tiny_prior()
    save_prior(prior, tmp_path / "prior")
    save_htransform(tiny_htransform(prior, reference="fbp"), tmp_path / "initial")
    return tmp_path / "prior", tmp_path / "initial"


def _finetune(data: Path, out: Path, models: tuple[Path, Path], *more: object) -> Result:
    options = ["--data", data, "--out", out, "--prior", models[0], "--initial", models[1], "--steps", 2]
    options += [] if "--batch-size" in more else ["--batch-size", 2]
    options += ["--scan", "parallel12_1e5_48bins", "--no-progress", *more]
    return CliRunner().invoke(app, ["finetune", *(str(option) for option in options)])


PICTURES = ("--hu-range", -1000, 1000, "--pixel-mm", 8)


@pytest.mark.parametrize(
    ("kind", "more", "slices"),
    [("dicom", (), 8), ("nifti", (), 3), ("hdf5", (), 3), ("pack", (), 4), ("png", PICTURES, 3), ("tiff", PICTURES, 3)],
)
def test_a_folder_of_each_kind_gives_an_h_transform(
    kind: str, more: tuple[object, ...], slices: int, models: tuple[Path, Path], tmp_path: Path
) -> None:
    _write(kind, tmp_path / "data")
    result = _finetune(tmp_path / "data", tmp_path / "run", models, *more)
    assert result.exit_code == 0, result.output
    assert f"{slices} slices of " in result.output and f"at {SIZE} x {SIZE} pixels" in result.output
    made, initial = load_htransform(tmp_path / "run" / "htransform"), load_htransform(models[1])
    assert made.config == initial.config and made.prior_hash == initial.prior_hash
    assert made.content_hash() == json.loads(result.stdout.splitlines()[-1])["sha256"] != initial.content_hash()
    before, after = initial.network.conv_out.weight, made.network.conv_out.weight
    assert 0 < (after - before).abs().max() < 1e-3 < 0.02 < before.abs().max()  # it goes on, and does not begin anew
    assert made.card["initial_sha256"] == initial.content_hash()
    digest = made.card["data"].pop("sha256")
    assert made.card["data"] == {"name": "data", "slices": slices} and len(digest) == 64
    assert f"--htransform {tmp_path / 'run' / 'htransform'} --prior {models[0]}" in result.output


def test_it_reconstructs_as_the_last_line_says(models: tuple[Path, Path], tmp_path: Path) -> None:
    _write("dicom", tmp_path / "data")
    result = _finetune(tmp_path / "data", tmp_path / "run", models)
    (hint,) = [line for line in result.output.splitlines() if line.startswith("Use it: deft-ct ")]
    words = hint.removeprefix("Use it: deft-ct ").split()
    words = [{"SERIES_FOLDER": str(tmp_path / "data"), "RESULT": str(tmp_path / "result")}.get(w, w) for w in words]
    words += ["--size", str(SIZE), "--views", "12", "--samples", "1", "--compare", "", "--no-progress"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "result" / "run.json").is_file()


def test_a_head_for_any_scan_stays_one(
    models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deft_ct.workflows.training_setup.GEOMETRIES", 2)
    prior = tiny_prior()
    save_htransform(tiny_htransform(prior, scan_features=True, spread_slopes=SPREAD_SLOPES), tmp_path / "any")
    _write("nifti", tmp_path / "data")
    made = {}
    for name, more in (("any", ()), ("one", ("--one-scan",))):
        result = _finetune(tmp_path / "data", tmp_path / name / "run", (models[0], tmp_path / "any"), *more)
        assert result.exit_code == 0, result.output
        made[name] = load_htransform(tmp_path / name / "run" / "htransform")
    assert all(head.config.scan_features for head in made.values())
    assert made["any"].card["scan"]["views"] == [12, 200] and made["one"].card["scan"]["views"] == 12
    result = _finetune(tmp_path / "data", tmp_path / "r", models, "--any-scan")
    assert result.exit_code == 2 and "is not conditioned on the scan" in result.output


def test_the_refinement_of_the_reference_is_fitted_first(models: tuple[Path, Path], tmp_path: Path) -> None:
    shape = RefinementConfig(network=replace(NETWORK, norm_groups=16), scan_features=True)
    initial = tiny_htransform(tiny_prior(), scan_features=True, refinement=shape, tv_iterations=2)
    save_htransform(initial, tmp_path / "refined")
    _write("nifti", tmp_path / "data")
    made = {}
    for steps in (0, 2):
        result = _finetune(
            tmp_path / "data", tmp_path / f"run{steps}", (models[0], tmp_path / "refined"),
            "--one-scan", "--refinement-steps", steps,
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        made[steps] = load_htransform(tmp_path / f"run{steps}" / "htransform")
    given, kept, fitted = (head.refinement.network.conv_out.weight for head in (initial, made[0], made[2]))
    torch.testing.assert_close(kept, given, rtol=1e-3, atol=1e-6)  # stored in half precision
    assert (fitted - given).abs().max() > 1e-4
    assert made[2].config == initial.config and made[2].card["refinement_steps"] == 2
    assert "refinement_steps" not in made[0].card

    more = ("--one-scan", "--refinement-steps", 2)
    stopped = _finetune(
        tmp_path / "data", tmp_path / "part", (models[0], tmp_path / "refined"), *more, "--max-minutes", 1e-9
    )
    assert stopped.exit_code == 0 and "run again to resume" in stopped.output
    assert not (tmp_path / "part" / "htransform").exists()
    again = _finetune(tmp_path / "data", tmp_path / "part", (models[0], tmp_path / "refined"), *more)
    assert again.exit_code == 0, again.output
    assert load_htransform(tmp_path / "part" / "htransform").content_hash() == made[2].content_hash()


def test_the_time_limit_bounds_the_initial_reconstructions_too(
    models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deft_ct.training.blocks.BLOCK", 1)
    shape = RefinementConfig(network=replace(NETWORK, norm_groups=16), scan_features=True)
    refined = tiny_htransform(tiny_prior(), scan_features=True, refinement=shape, tv_iterations=2)
    save_htransform(refined, tmp_path / "refined")
    _write("nifti", tmp_path / "data")

    def run(out: str, *more: object) -> Result:
        parts = ("--one-scan", "--refinement-steps", 7, *more)
        result = _finetune(tmp_path / "data", tmp_path / out, (models[0], tmp_path / "refined"), *parts)
        assert result.exit_code == 0, result.output
        return result

    assert "before the table" in run("part", "--max-minutes", 0).output
    blocks = list((tmp_path / "part" / "refinement" / "references").glob("*.safetensors"))
    assert len(blocks) == 1 and not (tmp_path / "part" / "htransform").exists()  # of three
    run("part")
    run("whole")
    made = [load_htransform(tmp_path / out / "htransform").content_hash() for out in ("part", "whole")]
    assert made[0] == made[1]


def test_a_broken_file_is_left_out_and_named(
    models: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _write("nifti", tmp_path / "data")
    (tmp_path / "data" / "broken.h5").write_bytes(b"no")
    result = _finetune(tmp_path / "data", tmp_path / "run", models)
    assert result.exit_code == 0, result.output
    assert "left out broken.h5" in caplog.text and "3 slices of 1 series or files" in result.output


@pytest.mark.parametrize(
    ("kind", "more", "message"),
    [
        ("empty", (), "holds no usable CT slices (no files of a known kind)"),
        ("missing", (), "no such data pack"),
        ("png", (), "--hu-range and --pixel-mm"),
        ("png", ("--hu-range", -1000, 1000), "pictures need both"),
        ("png", ("--hu-range", 1000, -1000, "--pixel-mm", 1), "increasing order"),
        ("file", (), "name the folder that holds it"),
    ],
)
def test_what_cannot_work_gets_one_line(
    kind: str, more: tuple[object, ...], message: str, models: tuple[Path, Path], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    if kind == "empty":
        data.mkdir()
    elif kind == "file":
        data = tmp_path / "big.h5"
        with h5py.File(data, "w") as file:
            group = file.create_group("s")
            group["hu"] = np.zeros((2, 40, 40), np.int16)
            group.attrs["pixel_mm"] = 1.0
    elif kind != "missing":
        _write(kind, data)
    result = _finetune(data, tmp_path / "run", models, *more)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_processes_write_one_h_transform(models: tuple[Path, Path], tmp_path: Path, repository_root: Path) -> None:
    """The same weights as one process that takes the batch in two parts, to the float16 that they are stored in."""
    _write("pack", tmp_path / "data")
    alone = _finetune(tmp_path / "data", tmp_path / "alone", models, "--batch-size", 4, "--accumulate", 2)
    assert alone.exit_code == 0, alone.output
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "deft_ct"]
    command += ["finetune", "--data", tmp_path / "data", "--out", tmp_path / "two", "--prior", models[0]]
    command += ["--initial", models[1], "--steps", "2", "--batch-size", "4", "--scan", "parallel12_1e5_48bins"]
    environment = {**os.environ, "PYTHONPATH": str(repository_root), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*map(str, command), "--no-progress"], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('{"model"') == 1 and done.stderr.count("Use it:") == 1
    weights = load_htransform(tmp_path / "two" / "htransform").state_dict()
    start = load_htransform(models[1]).state_dict()
    for name, value in load_htransform(tmp_path / "alone" / "htransform").state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=2e-3, atol=2e-5)
    assert any(not torch.equal(weights[name], value) for name, value in start.items())
