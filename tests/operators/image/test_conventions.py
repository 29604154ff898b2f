"""Named problems of the literature."""

from __future__ import annotations

import pytest
import torch

import deft_ct.operators as operators
from deft_ct.operators import HDR, GaussianNoise, Inpainting, NoNoise, PhaseRetrieval, preset, presets

SHAPE = (3, 64, 64)
ALL = [(name, task) for name, tasks in presets().items() for task in tasks if task != "nonlinear-blur"]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("convention", "task"), ALL)
def test_every_preset_measures_an_image_and_depends_on_the_seed_alone(convention: str, task: str) -> None:
    operator, noise = preset(convention, task, SHAPE, rng(1))
    x = 2 * torch.rand(2, *SHAPE, generator=rng()) - 1
    y = noise.sample(operator(x), rng(2))
    assert y.shape == (2, *operator.range_shape) and bool(torch.isfinite(y).all())
    again, _ = preset(convention, task, SHAPE, rng(1))
    assert torch.equal(operator(x), again(x))


def test_noise_levels_are_for_images_between_minus_one_and_one() -> None:
    expected = {"dps": 0.05, "daps": 0.05, "inversebench": 0.05, "diffpir": 0.1, "ddrm": 0.1}
    for convention, tasks in presets().items():
        _, noise = preset(convention, next(t for t in tasks if t.startswith("sr")), SHAPE, rng())
        assert noise == (GaussianNoise(expected[convention]) if convention in expected else NoNoise())


def test_parameters_that_tell_the_conventions_apart() -> None:
    dps, daps = (preset(name, "phase-retrieval", (3, 256, 256), rng())[0] for name in ("dps", "daps"))
    assert isinstance(dps, PhaseRetrieval) and isinstance(daps, PhaseRetrieval)
    assert dps.amplitude_range == (-1, 1) and daps.amplitude_range == (0, 1)
    assert dps.range_shape == daps.range_shape == (3, 384, 384)
    missing = {}
    for name in ("dps", "daps", "diffpir"):
        operator = preset(name, "inpainting-random", (3, 256, 256), rng())[0]
        assert isinstance(operator, Inpainting)
        missing[name] = round(1 - float(operator.mask.mean()), 3)
    assert missing == {"dps": 0.92, "daps": 0.7, "diffpir": 0.5}
    box = preset("daps", "inpainting-box", (3, 256, 256), rng())[0]
    assert isinstance(box, Inpainting) and int((box.mask[0] == 0).sum()) == 128**2
    averaged = preset("red-diff", "sr4", SHAPE, rng())[0](torch.eye(64).expand(1, 3, 64, 64))
    torch.testing.assert_close(averaged, (torch.eye(16) / 4).expand(1, 3, 16, 16))
    cubic = preset("dps", "sr4", SHAPE, rng())[0](torch.eye(64).expand(1, 3, 64, 64))
    assert float(cubic.min()) < -1e-3  # negative lobes
    hdr = preset("deft", "hdr", SHAPE, rng())[0]
    assert isinstance(hdr, HDR) and hdr.gain == 2 and hdr.value_range == (-1, 1)


def test_unknown_names_are_listed() -> None:
    with pytest.raises(ValueError, match=r"convention must be one of \['daps', 'ddrm'"):
        preset("dpss", "sr4", SHAPE, rng())
    with pytest.raises(ValueError, match=r"task of 'dps' must be one of .*'sr4'.*got 'sr8'"):
        preset("dps", "sr8", SHAPE, rng())


def test_public_names_exist_and_ray_transforms_are_imported_on_demand() -> None:
    for name in operators.__all__:
        if name != "ct":
            assert getattr(operators, name) is not None
    assert operators.__all__ == sorted(
        operators.__all__, key=lambda name: (name.upper() != name, not name[0].isupper(), name)
    )
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = operators.nothing
