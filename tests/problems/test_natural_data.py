"""Photographs by the name of their data: parts, counts, seeds, and errors before any picture is read."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from deft_ct.evaluation.problem import refuse_test_data
from deft_ct.problems.natural import NaturalProblem
from deft_ct.problems.natural_data import NATURAL_STEPS, natural_problems, with_noise
from deft_ct.problems.options import ProblemOptions


@pytest.fixture
def crops(tmp_path: Path) -> str:
    with h5py.File(tmp_path / "crops.h5", "w") as file:
        for number, part in enumerate(("train", "test")):
            file[part] = np.arange(6, dtype=np.uint8)[:, None, None, None] + np.full(
                (6, 8, 8, 3), 100 * number, np.uint8
            )
    return f"photos:{tmp_path / 'crops.h5'}"


def made(data: str, *tasks: str, **values: object) -> list[NaturalProblem]:
    split = values.pop("split", "test")
    found = natural_problems(data, tasks, ProblemOptions(**values), split=split)  # type: ignore[arg-type]
    assert all(isinstance(problem, NaturalProblem) for problem in found)
    return found  # type: ignore[return-value]


def test_one_problem_for_each_task_of_the_part_that_is_asked_for(crops: str) -> None:
    first, second = made(crops, "sr4", "jpeg:quality=5", every=2, limit=2, seed=3)
    assert (first.name, second.name, first.data, first.split) == ("sr4", "jpeg-quality=5", "crops.h5", "test")
    assert len(first) == 2 and [*first.image_ids] == ["0", "2"] and first.seed == 3
    np.testing.assert_allclose(first.truth[:, 0, 0, 0], np.array([100, 102]) / 127.5 - 1, atol=1e-6)
    (train,) = made(crops, "sr4", split="train")
    assert train.split == "train" and float(train.truth.max()) < -0.9
    with pytest.raises(ValueError, match="is a test set"):
        refuse_test_data(first)
    refuse_test_data(train)


def test_masks_and_noise_follow_the_seed(crops: str) -> None:
    zero, again, one = (made(crops, "inpaint_random", seed=seed)[0].batches[0] for seed in (0, 0, 1))
    assert torch.equal(zero.y, again.y) and not torch.equal(zero.y, one.y)
    masks = [batch.measurement.operator(torch.ones(6, 3, 8, 8)) for batch in (zero, one)]
    assert not torch.equal(*masks)


def test_every_image_has_a_random_mask_of_its_own_whatever_the_batches(crops: str) -> None:
    whole, parts, few = (
        made(crops, "inpaint_random", batch_size=size, every=every)[0] for size, every in ((6, 1), (2, 1), (1, 3))
    )
    y = {name: y for batch in parts.batches for name, y in zip(batch.image_ids, batch.y, strict=True)}
    for n, name in enumerate(whole.batches[0].image_ids):
        assert torch.equal(whole.batches[0].y[n], y[name])
    for batch in few.batches:
        assert torch.equal(batch.y[0], y[batch.image_ids[0]])
    masks = whole.batches[0].measurement.operator(torch.ones(6, 3, 8, 8))
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) == 6
    assert masks.mean().item() == pytest.approx(0.3, abs=0.02)
    shared = made(crops, "inpaint_box")[0]
    assert shared.batches[0].measurement.operator.images is None and not shared.own_operators and whole.own_operators


@pytest.mark.parametrize("task", ["motion_blur:size=5", "mri", "inpaint_freeform"])
def test_every_image_has_a_random_kernel_of_its_own(crops: str, task: str) -> None:
    whole, parts = (made(crops, task, batch_size=size)[0] for size in (6, 2))
    assert whole.own_operators and whole.batches[0].measurement.operator.images == 6
    y = torch.cat([batch.y for batch in parts.batches])
    torch.testing.assert_close(whole.batches[0].y, y, rtol=0, atol=1e-6)
    same = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)).expand(6, 3, 8, 8)
    assert len({tuple(one.flatten().tolist()) for one in whole.batches[0].measurement.operator(same)}) >= 4


def test_more_images_leave_the_content_of_the_others(crops: str) -> None:
    few, all_ = made(crops, "sr4", limit=2)[0], made(crops, "sr4")[0]
    assert few.shared_content() == all_.shared_content() != made(crops, "sr2")[0].shared_content()
    assert few.image_contents() == all_.image_contents()[:2] and len(set(all_.image_contents())) == 6


def test_noise_levels_times_tasks() -> None:
    assert with_noise(["sr4", "jpeg:quality=5"], None) == ["sr4", "jpeg:quality=5"]
    assert with_noise(["sr4"], [0, 0.1]) == ["sr4:noise=0", "sr4:noise=0.1"]


@pytest.mark.parametrize(
    ("tasks", "message"), [((), "photographs need a task"), (("magic",), "unknown task"), (("sr4:x=1",), "unknown key")]
)
def test_a_wrong_task_is_found_before_the_data(tasks: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made("photos:nowhere", *tasks)


def test_the_steps_are_of_methods_that_exist() -> None:
    from deft_ct.methods.registry import Networks, methods

    assert set(NATURAL_STEPS) <= set(methods())
    for name in ("cgls", "tikhonov", "tv", "sirt"):
        Networks().build(name, NATURAL_STEPS[name])
