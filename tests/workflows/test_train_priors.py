"""Priors of photographs and of CT slices by the same command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from overriding import overriding
from PIL import Image
from tiny_pack import write_tiny_pack
from typer.testing import CliRunner, Result

from deft_ct.cli import app
from deft_ct.diffusion import load_prior
from deft_ct.workflows.train_priors import image_domain
from deft_ct.workflows.training_setup import new_network


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k in range(3):
        pixels = np.random.default_rng(k).integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{k}.png")
    return folder


def _train(data: str, out: Path, *more: object) -> Result:
    words = [
        "train", "prior", "--data", data, "--out", out, "--channels", "32,32", "--patch", 2, "--steps", 2,
        "--batch-size", 2, "--no-progress",
    ]  # fmt: skip
    return CliRunner().invoke(app, overriding(words, more))


def test_photographs_stay_in_their_range(pictures: Path, tmp_path: Path) -> None:
    result = _train(f"photos:{pictures}:16", tmp_path / "run", "--attention", "2")
    assert result.exit_code == 0, result.output
    prior = load_prior(tmp_path / "run/prior")
    assert prior.image_shape == (3, 16, 16) and prior.value_range is None
    assert prior.network.config.attention == (False, True) and prior.network.config.in_channels == 3
    assert prior.card["data"]["name"] == "pictures:16" and prior.card["data"]["photographs"] == 3
    assert prior.eps(torch.zeros(1, 3, 16, 16), 500).shape == (1, 3, 16, 16)


def test_slices_have_a_range_in_hounsfield_units(tmp_path: Path) -> None:
    pack = write_tiny_pack(tmp_path / "train.h5")
    result = _train(str(pack), tmp_path / "run")
    assert result.exit_code == 0, result.output
    prior = load_prior(tmp_path / "run/prior")
    assert prior.image_shape == (1, 32, 32) and prior.value_range is not None
    assert prior.card["data"]["name"] == "train.h5" and prior.card["data"]["slices"] == 8


def test_each_domain_has_its_augmentation(pictures: Path, tmp_path: Path) -> None:
    photos, slices = image_domain(f"photos:{pictures}:16"), image_domain(str(write_tiny_pack(tmp_path / "x.h5")))
    assert photos.augment is not slices.augment and photos.value_range is None
    generator = torch.Generator().manual_seed(0)
    images = photos.source.batch(torch.arange(3))
    changed = photos.augment(images, generator)
    same = [torch.equal(a, b) or torch.equal(a, b.flip(-1)) for a, b in zip(changed, images, strict=True)]
    assert all(same)


@pytest.mark.parametrize(
    ("data", "more", "problem"),
    [("photos:{pictures}:18", ["--channels", "32,32,32"], "do not divide by 8"), ("photos:none", [], "no such folder"),
     ("photos:{pictures}:16", ["--attention", "3"], "attention must name levels from 1 to 2"),
     ("photos:{pictures}:16", ["--attention", "x"], "attention must be whole numbers"),
     ("{pictures}", [], "photos:FOLDER")],
)  # fmt: skip
def test_bad_input_is_one_line(data: str, more: list[str], problem: str, pictures: Path, tmp_path: Path) -> None:
    result = _train(data.format(pictures=pictures), tmp_path / "run", *more)
    assert result.exit_code == 2 and problem in result.output, result.output


def test_a_prior_of_photographs_continues_on_photographs_alone(pictures: Path, tmp_path: Path) -> None:
    assert _train(f"photos:{pictures}:16", tmp_path / "run").exit_code == 0
    more = _train(f"photos:{pictures}:16", tmp_path / "more", "--initial", tmp_path / "run/prior")
    assert more.exit_code == 0, more.output
    pack = write_tiny_pack(tmp_path / "train.h5")
    refused = _train(str(pack), tmp_path / "other", "--initial", tmp_path / "run/prior")
    assert refused.exit_code == 2 and "another network, schedule or range" in refused.output


def test_levels_with_attention_are_counted_from_one() -> None:
    assert new_network("32,64", attention="1,2").attention == (True, True)
    assert new_network("32,64").attention == (False, False)
