"""``deft-ct train refinement`` on photographs, and an h-transform around what it makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_photographs import SIDE, photographs_and_prior, train_on_photographs

import deft_ct as dc
from deft_ct.methods.deft import load_htransform, load_refinement
from deft_ct.methods.deft.conditioning import condition_for, declared_images
from deft_ct.methods.deft.guidance import guidance_for
from deft_ct.methods.initial import DataInitial
from deft_ct.networks.tiles import TiledNetwork
from deft_ct.problems.natural_by_name import parse_task
from deft_ct.workflows.restore import RestoreSettings, restore_photograph

pytestmark = pytest.mark.filterwarnings("ignore:another image size", "ignore:data not explained")
TASKS = "sr2:noise=0.1+inpaint_random:noise=0.1+hdr:noise=0.1"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photographs_and_prior(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(scope="module")
def trained(place: Path) -> Path:
    made = train_on_photographs("refinement", place, place / "first", "--operator", TASKS, "--learning-rate", 0.1)
    assert made.exit_code == 0, made.output
    around = ("--operator", TASKS, "--prior", place / "prior", "--refinement", place / "first" / "refinement")
    made = train_on_photographs("htransform", place, place / "second", *around)
    assert made.exit_code == 0, made.output
    return place


def test_an_h_transform_starts_from_the_refined_image_of_the_data(trained: Path) -> None:
    refinement = load_refinement(trained / "first" / "refinement")
    head = load_htransform(trained / "second" / "htransform")
    assert head.refinement is not None and head.refinement.content_hash() == refinement.content_hash()
    assert [image.name for image in refinement.config.operator_images] == ["data", "mask"]
    assert refinement.card["tasks"] == TASKS.split("+") and refinement.relative_error != 1.0
    assert head.config.spread == pytest.approx(refinement.typical_error, rel=1e-2)
    assert head.config.reach == pytest.approx(4 * head.config.spread)
    for text in TASKS.split("+"):
        measurement = dc.Measurement(*parse_task(text).build((3, SIDE, SIDE), seed=1))
        images = torch.rand((2, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(5)) * 2 - 1
        likelihood = measurement.likelihood(measurement.simulate(images))
        data = DataInitial()(likelihood)
        residual = guidance_for("score").of_initial(likelihood, data, refinement.config.spread)
        declared = declared_images(likelihood, refinement.config.operator_images)
        with torch.no_grad():
            expected = refinement(data, residual, None, declared)
        found = condition_for(likelihood, head)
        torch.testing.assert_close(found.initial, expected)
        assert found.unrefined is not None and not torch.allclose(found.initial, found.unrefined, atol=1e-3)
        with pytest.raises(ValueError, match="needs 2 images of the operator"):
            refinement(data, residual)


def test_the_same_command_resumes(place: Path, tmp_path: Path) -> None:
    runs = [train_on_photographs("refinement", place, tmp_path / "a", "--operator", "sr2")]
    train_on_photographs("refinement", place, tmp_path / "b", "--operator", "sr2", "--max-minutes", 0)
    runs.append(train_on_photographs("refinement", place, tmp_path / "b", "--operator", "sr2"))
    first, second = (json.loads(run.output.splitlines()[-1])["sha256"] for run in runs)
    assert first == second
    other = train_on_photographs("refinement", place, tmp_path / "a", "--operator", "sr4")
    assert other.exit_code != 0 and "was started with" in other.output


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ([], "give --operator NAME"),
        (["--operator", "phase_retrieval"], "have no image to refine"),
        (["--operator", "sr2", "--mirror"], "--mirror is for scans"),
        (["--operator", "sr2", "--views", 20], "the options of scans cannot be used with photographs"),
        (["--operator", "sr2", "--batches", 3], "--batches and --tv-iterations cannot be used with photographs"),
    ],
)
def test_what_does_not_fit_is_refused(more: list[Any], why: str, place: Path, tmp_path: Path) -> None:
    result = train_on_photographs("refinement", place, tmp_path, *more)
    assert result.exit_code != 0
    assert why in " ".join(str(result.output).split())
    assert not (tmp_path / "refinement").exists()


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--initial-reconstruction", "tv"], "starts from tv: take --initial-reconstruction data"),
        (["--initial-reconstruction", "none"], "starts from none: take --initial-reconstruction data"),
        (["--loss", "log-variance", "--draws", 1], "does not use a refinement"),
    ],
)
def test_a_refinement_that_would_not_be_used_is_refused(
    more: list[Any], why: str, trained: Path, tmp_path: Path
) -> None:
    around = ("--operator", "sr2", "--prior", trained / "prior", "--refinement", trained / "first" / "refinement")
    result = train_on_photographs("htransform", trained, tmp_path, *around, *more)
    assert result.exit_code != 0
    assert why in " ".join(str(result.output).split())


def test_large_pictures_are_refined_in_tiles(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    sizes: list[tuple[int, ...]] = []
    evaluate = TiledNetwork._evaluate

    def counted(self: TiledNetwork, x: torch.Tensor, t: torch.Tensor, extra: torch.Tensor | None) -> torch.Tensor:
        sizes.append(tuple(x.shape[1:]))
        return evaluate(self, x, t, extra)

    monkeypatch.setattr(TiledNetwork, "_evaluate", counted)
    pixels = np.random.default_rng(3).integers(0, 256, (24, 40, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "large.png")
    settings = RestoreSettings(
        operator="sr2:noise=0.1", method="deft", prior=str(trained / "prior"),
        htransform=str(trained / "second" / "htransform"),
    )  # fmt: skip
    restored = restore_photograph(tmp_path / "large.png", tmp_path / "out", settings)
    assert restored.restored.pixels.shape == (3, 24, 40)
    assert {shape[1:] for shape in sizes} == {(SIDE, SIDE)}
    assert 3 * 4 in {shape[0] for shape in sizes}, "data, residual and two images of the operator"
