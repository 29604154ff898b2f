"""``deft-ct train htransform --operator`` on photographs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from overriding import overriding
from tiny import tiny_prior
from tiny_photographs import SIDE, photograph_prior, photographs_and_prior, train_on_photographs
from typer.testing import CliRunner, Result

import deft_ct as dc
from deft_ct.cli import app
from deft_ct.diffusion import save_prior
from deft_ct.methods.deft import load_htransform
from deft_ct.operators import GaussianNoise, NoNoise, PhotonNoise
from deft_ct.problems.natural_by_name import parse_task
from deft_ct.workflows.train_photographs import parse_operators


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photographs_and_prior(tmp_path_factory.mktemp("photographs"))


def train(place: Path, out: Path, *more: Any, steps: int = 2) -> Result:
    return train_on_photographs("htransform", place, out, *overriding(["--prior", place / "prior"], more), steps=steps)


def measured(text: str, seed: int = 0) -> tuple[dc.Measurement, torch.Tensor]:
    measurement = dc.Measurement(*parse_task(text).build((3, SIDE, SIDE), seed=seed))
    images = torch.rand((2, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(5)) * 2 - 1
    return measurement, measurement.simulate(images)


@pytest.mark.parametrize(
    ("operator", "images"),
    [
        ("sr4", ["data"]), ("inpaint_random:missing=0.5", ["data", "mask"]), ("hdr", ["data"]),
        ("phase_retrieval", ["projection", "hybrid"]), ("sr2+inpaint_random", ["data", "mask"]),
    ],
)  # fmt: skip
def test_a_trained_h_transform_loads_and_samples(operator: str, images: list[str], place: Path, tmp_path: Path) -> None:
    result = train(place, tmp_path, "--operator", operator, "--noise", 0.1)
    assert result.exit_code == 0, result.output
    head = load_htransform(tmp_path / "htransform")
    assert [image.name for image in head.config.operator_images] == images
    initial = "none" if operator == "phase_retrieval" else "data"
    assert (head.config.channels, head.config.reference, head.config.guidance) == (3, initial, "score")
    assert head.card["tasks"] == [f"{part}{',' if ':' in part else ':'}noise=0.1" for part in operator.split("+")]
    assert {"data", "training_steps", "content_key", "versions", "measurements"} <= head.card.keys()
    deft = dc.load_reconstructor("deft", prior=place / "prior", htransform=tmp_path / "htransform", steps=3)
    for task in head.card["tasks"]:
        measurement, y = measured(task)
        result = deft.reconstruct(y, measurement, num_samples=2, image_ids="ab")
        alone = deft.reconstruct(y[1:], measurement, num_samples=2, image_ids="b")
        torch.testing.assert_close(result.samples[1:], alone.samples, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(result.mean[1:], alone.mean, rtol=1e-3, atol=1e-4)


def test_what_the_network_is_told_may_change_and_the_rest_may_not(place: Path, tmp_path: Path) -> None:
    assert train(place, tmp_path, "--operator", "inpaint_box", "--noise", 0.1).exit_code == 0
    deft = dc.load_reconstructor("deft", prior=place / "prior", htransform=tmp_path / "htransform", steps=2)
    measurement, y = measured("inpaint_random:noise=0.1", seed=9)  # another mask, of which it is told
    assert deft.reconstruct(y, measurement).mean.shape == y.shape
    for task, why in (
        ("sr4:noise=0.1", "trained for Inpainting, not for SuperResolution"),
        ("inpaint_box:noise=0.05", "sigma 0.1, not 0.05"),
        ("inpaint_box:noise=0", "type GaussianNoise, not NoNoise"),
    ):
        measurement, y = measured(task)
        with pytest.raises(ValueError, match=f"{why}; train one with"):
            deft.reconstruct(y, measurement)


def test_the_same_command_resumes_and_another_operator_is_refused(place: Path, tmp_path: Path) -> None:
    whole = train(place, tmp_path / "a", "--operator", "sr4", steps=4)
    train(place, tmp_path / "b", "--operator", "sr4", "--max-minutes", 0, steps=4)
    resumed = train(place, tmp_path / "b", "--operator", "sr4", steps=4)
    assert [json.loads(run.output.splitlines()[-1])["sha256"] for run in (whole, resumed)].count(
        json.loads(whole.output.splitlines()[-1])["sha256"]
    ) == 2
    other = train(place, tmp_path / "a", "--operator", "sr2", steps=4)
    assert other.exit_code != 0 and "was started with" in other.output


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ([], "give --operator NAME"),
        (["--operator", "sr5"], "unknown task 'sr5'"),
        (["--operator", "sr4", "--noise", -1], "--noise must be a number from 0"),
        (["--operator", "sr4", "--views", 20], "the options of scans cannot be used with photographs"),
        (["--operator", "sr4", "--any-scan"], "--any-scan cannot be used with photographs"),
        (["--operator", "hdr", "--guidance", "cg"], "HDR is not linear"),
        (["--operator", "sr4+hdr", "--loss", "log-variance"], "one --operator, and --draws 1"),
        (["--operator", "sr4", "--prior", "{ct}"], "the prior is not one of photographs"),
        (["--operator", "sr4", "--prior", "{grey}"], "3 channels and the prior is for 1"),
        (["--operator", "denoise", "--data", "{pictures}:18"], "do not divide by 4"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_training(
    more: list[Any], why: str, place: Path, tmp_path: Path
) -> None:
    save_prior(tiny_prior(), tmp_path / "ct")
    save_prior(photograph_prior(1), tmp_path / "grey")
    names = {"ct": tmp_path / "ct", "grey": tmp_path / "grey", "pictures": f"photos:{place / 'pictures'}"}
    result = train(place, tmp_path / "out", *(str(item).format(**names) for item in more))
    assert result.exit_code != 0
    assert why in " ".join(str(result.output).split())
    assert not (tmp_path / "out" / "htransform").exists()


def test_operators_are_for_photographs(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["train", "htransform", "--operator", "sr4", "--out", str(tmp_path / "out")])
    assert result.exit_code != 0 and "cannot be used with CT slices" in " ".join(result.output.split())


def test_noise_is_that_of_the_option_unless_the_operator_names_its_own() -> None:
    first, second, third = parse_operators("sr4+hdr:noise=0.2+denoise:photons=30", 0.01)
    assert (first.noise, second.noise) == (GaussianNoise(0.01), GaussianNoise(0.2))
    assert third.noise == PhotonNoise(30)
    assert [task.noise for task in parse_operators("denoise+jpeg")] == [GaussianNoise(0.2), NoNoise()]
