"""Tasks of photographs by name: each builds, and what is wrong is said with the list of what is there."""

import pytest
import torch

from deft_ct.operators import (
    GaussianBlur,
    GaussianNoise,
    Inpainting,
    NoNoise,
    PhotonNoise,
    SuperResolution,
    UnknownGaussianNoise,
)
from deft_ct.operators.image.conventions import presets
from deft_ct.problems.natural_by_name import TASKS, parse_task

SHAPE = (3, 16, 16)
PUBLISHED = [
    f"{convention}/{task}" for convention, tasks in presets().items() for task in tasks if task != "nonlinear-blur"
]


@pytest.mark.parametrize("text", [*TASKS, *PUBLISHED])
def test_every_task_degrades_an_image(text: str) -> None:
    operator, noise = parse_task(text).build(SHAPE)
    x = torch.rand(2, *SHAPE) * 2 - 1
    clean = operator(x)
    y = noise.sample(clean, torch.Generator().manual_seed(0))
    assert y.shape == (2, *operator.range_shape)
    assert torch.isfinite(y).all()


def test_keys_reach_the_operator_and_the_noise() -> None:
    operator, noise = parse_task("sr4:kernel=bicubic,noise=0.1").build(SHAPE)
    assert isinstance(operator, SuperResolution)
    assert (operator.scale, operator.kernel) == (4, "bicubic")
    assert noise == GaussianNoise(0.1)
    blur, _ = parse_task("gaussian_blur:sigma=2,boundary=circular").build(SHAPE)
    assert torch.allclose(
        blur(torch.eye(16).expand(1, *SHAPE)),
        GaussianBlur(SHAPE, 17, 2.0, boundary="circular")(torch.eye(16).expand(1, *SHAPE)),
    )
    box, none = parse_task("inpaint-box:size=0.25,noise=0").build(SHAPE)
    assert isinstance(box, Inpainting)
    assert int((box.mask[0] == 0).sum()) == 16
    assert none == NoNoise()


def test_a_convention_keeps_its_noise_unless_another_is_given() -> None:
    assert parse_task("dps/sr4").build(SHAPE)[1] == GaussianNoise(0.05)
    assert parse_task("reddiff/inpainting_freeform").build(SHAPE)[1] == NoNoise()
    assert parse_task("dps/sr4:noise=0.2").build(SHAPE)[1] == GaussianNoise(0.2)


def test_photons_and_an_unknown_level() -> None:
    assert parse_task("sr4:photons=30").build(SHAPE)[1] == PhotonNoise(30)
    assert parse_task("inpaint_box:photons=30").build(SHAPE)[1] == PhotonNoise(30)
    assert parse_task("dps/sr4:photons=1e3").build(SHAPE)[1] == PhotonNoise(1000)
    assert parse_task("denoise:noise=0.05..0.5").build(SHAPE)[1] == UnknownGaussianNoise(0.05, 0.5)
    assert parse_task("denoise:noise=0.05..0.5").label == "denoise-noise=0.05..0.5"


@pytest.mark.parametrize("task", ["mri", "compressed_sensing", "phase_retrieval"])
def test_photons_need_brightness(task: str) -> None:
    with pytest.raises(ValueError, match=f"{task}:.* its data are not a picture: give the noise as noise=SIGMA"):
        parse_task(f"{task}:photons=100").build(SHAPE)


def test_an_unknown_level_needs_a_picture_without_holes() -> None:
    with pytest.raises(ValueError, match=r"inpaint_random:.* a picture with holes"):
        parse_task("inpaint_random:noise=0.1..0.2").build(SHAPE)


def test_random_parts_follow_the_seed() -> None:
    task = parse_task("inpaint_random")
    masks = [task.build(SHAPE, seed=seed)[0](torch.ones(1, *SHAPE)) for seed in (0, 0, 1)]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("sr4", "sr4"),
        ("dps/sr4", "dps-sr4"),
        ("jpeg: quality=5", "jpeg-quality=5"),
        ("sr4:noise=0.1,kernel=bicubic", "sr4-kernel=bicubic-noise=0.1"),
    ],
)
def test_a_label_is_a_file_name_and_the_text_can_be_read_again(text: str, label: str) -> None:
    task = parse_task(text)
    assert task.label == label
    assert parse_task(task.text) == task


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sr3", r"unknown task 'sr3'; known are .*sr4\[:kernel=average\].*jpeg\[:quality=10\]"),
        ("", "unknown task ''; known are"),
        ("jpeg:strength=5", r"jpeg: unknown key 'strength=5'; known are quality=.*, noise="),
        ("jpeg:", "jpeg: unknown key ''"),
        ("jpeg:quality", "jpeg: unknown key 'quality'"),
        ("jpeg:quality=500", r"jpeg: quality must be \(a whole number from 1 to 100\), got '500'"),
        ("jpeg:quality=5,quality=6", "quality is there twice"),
        ("gaussian_blur:sigma=nan", "gaussian_blur: sigma must be"),
        ("gaussian_blur:sigma=0", "gaussian_blur: sigma must be"),
        ("sr4:noise=-1", "sr4: noise must be"),
        ("sr4:noise=0.2..0.1", r"sr4: noise must be .*LOW\.\.HIGH"),
        ("sr4:noise=0.2..", "sr4: noise must be"),
        ("sr4:photons=0", r"sr4: photons must be \(a number from 0.1"),
        ("sr4:noise=0.1,photons=30", "noise and photons are two kinds of noise"),
        ("palette/sr4", "'palette/sr4' has the unknown convention 'palette'; known are .*dps"),
        ("dps/sr8", "dps has no task 'sr8'; it has .*sr4"),
        ("dps/sr4:kernel=average", "dps/sr4: unknown key 'kernel=average'; known are noise="),
    ],
)
def test_what_is_wrong_is_said_with_the_list(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_task(text)


def test_an_image_that_does_not_suit_is_refused_by_the_name_of_the_task() -> None:
    with pytest.raises(ValueError, match="sr4: SuperResolution: scale must divide"):
        parse_task("sr4").build((3, 15, 16))
