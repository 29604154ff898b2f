"""Named problems of the literature."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch

import deft_ct.operators as operators
from deft_ct.operators import HDR, GaussianNoise, Inpainting, NoNoise, PhaseRetrieval, preset, presets
from deft_ct.operators.image.blur_kernels import motion_kernel

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


MIRROR, WRAP, ZERO = "mirror", "wrap", "constant"
# Published kernels: standard deviation, taps to each side (None: the kernel is SciPy's own, cut off at 4 std), border.
GAUSSIAN = {
    "dps": (3.0, None, MIRROR), "daps": (3.0, None, MIRROR), "inversebench": (3.0, None, MIRROR),
    "diffpir": (3.0, None, WRAP), "red-diff": (25.0, 2, WRAP), "ddrm": (10.0, 2, ZERO),
}  # fmt: skip


@pytest.mark.parametrize("convention", GAUSSIAN)
def test_gaussian_blurs_have_the_published_kernels(convention: str) -> None:
    std, radius, mode = GAUSSIAN[convention]
    x = torch.rand(1, 1, 40, 40, generator=rng(), dtype=torch.float64)
    ours = preset(convention, "gaussian-blur", (1, 40, 40), rng())[0](x)[0, 0].numpy()
    theirs = scipy.ndimage.gaussian_filter(x[0, 0].numpy(), std, mode=mode, radius=radius)
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_the_uniform_blur_of_ddrm_is_the_mean_of_nine_by_nine() -> None:
    x = torch.rand(1, 1, 30, 30, generator=rng(), dtype=torch.float64)
    ours = preset("ddrm", "uniform-blur", (1, 30, 30), rng())[0](x)[0, 0].numpy()
    np.testing.assert_allclose(ours, scipy.ndimage.uniform_filter(x[0, 0].numpy(), 9, mode=ZERO), atol=1e-6)


@pytest.mark.parametrize("convention", ["dps", "daps", "diffpir"])
def test_motion_blurs_have_one_kernel(convention: str) -> None:
    x = torch.rand(1, 1, 40, 40, generator=rng(), dtype=torch.float64)
    ours = preset(convention, "motion-blur", (1, 40, 40), rng(3))[0](x)[0, 0].numpy()
    kernel = motion_kernel(61, 0.5, rng(3)).numpy()
    padded = np.pad(x[0, 0].numpy(), 30, mode="wrap" if convention == "diffpir" else "reflect")
    theirs = scipy.ndimage.convolve(padded, kernel, mode="constant")[30:-30, 30:-30]
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize(("convention", "margin"), [("dps", 2), ("daps", 4), ("diffpir", 2)])
def test_boxes_are_half_the_image_anywhere_within_the_margin(convention: str, margin: int) -> None:
    """Margins of 16 and 32 pixels at 256, an eighth of that here."""
    tops = set()
    for seed in range(150):
        mask = preset(convention, "inpainting-box", (1, 32, 32), rng(seed))[0].mask[0]
        rows, columns = torch.nonzero(mask == 0, as_tuple=True)
        assert len(rows) == 16 * 16 and int(rows.max() - rows.min()) == int(columns.max() - columns.min()) == 15
        tops |= {int(rows.min()), int(columns.min())}
    assert tops == set(range(margin, 17 - margin))
    centred = preset("i2sb", "inpainting-centre", (1, 32, 32), rng())[0].mask[0]
    assert int((centred == 0).sum()) == 16 * 16 and bool((centred[8:24, 8:24] == 0).all())


def _share_missing(convention: str, task: str, seed: int = 0) -> float:
    return 1 - float(preset(convention, task, (1, 50, 40), rng(seed))[0].mask.mean())


def test_random_masks_miss_the_published_share() -> None:
    shares = {"dps": 0.92, "daps": 0.7, "inversebench": 0.7, "diffpir": 0.5, "ddrm": 0.5}
    for convention, share in shares.items():
        assert _share_missing(convention, "inpainting-random") == pytest.approx(share, abs=1e-6)
    drawn = [_share_missing("dps", "inpainting-random-30-70", seed) for seed in range(60)]
    assert 0.3 <= min(drawn) < 0.34 and 0.66 < max(drawn) <= 0.7


@pytest.mark.parametrize(
    ("convention", "task", "low"),
    [
        ("red-diff", "inpainting-freeform", 0.2), ("deft", "inpainting-freeform", 0.2),
        ("i2sb", "inpainting-freeform-10-20", 0.1), ("i2sb", "inpainting-freeform-20-30", 0.2),
    ],
)  # fmt: skip
def test_freeform_masks_use_all_of_their_coverage(convention: str, task: str, low: float) -> None:
    drawn = [_share_missing(convention, task, seed) for seed in range(40)]
    assert low <= min(drawn) < low + 0.02 and low + 0.08 < max(drawn) <= low + 0.1


def test_scales_qualities_and_counts_are_the_published_ones() -> None:
    x = 2 * torch.rand(1, 3, 32, 32, generator=rng()) - 1

    def data(convention: str, task: str) -> torch.Tensor:
        return preset(convention, task, (3, 32, 32), rng(4))[0](x)

    for convention in ("dps", "daps", "diffpir"):
        assert torch.equal(data(convention, "sr4"), operators.SuperResolution((3, 32, 32), 4, "bicubic")(x))
    assert torch.equal(data("inversebench", "sr2"), operators.SuperResolution((3, 32, 32), 2, "bicubic")(x))
    assert torch.equal(data("i2sb", "sr4-bicubic"), operators.SuperResolution((3, 32, 32), 4, "bicubic")(x))
    for convention, task in (("red-diff", "sr4"), ("deft", "sr4"), ("ddrm", "sr4"), ("i2sb", "sr4-average")):
        torch.testing.assert_close(data(convention, task), torch.nn.functional.avg_pool2d(x, 4))
    for quality in (5, 10):
        assert torch.equal(data("i2sb", f"jpeg-{quality}"), operators.JPEG((3, 32, 32), quality)(x))
    for convention in ("ddrm", "red-diff"):
        torch.testing.assert_close(data(convention, "colorization"), x.mean(1, keepdim=True))
    assert torch.equal(data("ddrm", "denoising"), x)
    assert data("ddrm", "compressed-sensing").numel() == x.numel() // 4
    for convention in ("daps", "red-diff", "deft"):
        torch.testing.assert_close(data(convention, "hdr"), (2 * x).clamp(-1, 1))
    for convention, low in (("dps", -1), ("daps", 0), ("inversebench", 0), ("red-diff", 0), ("deft", 0)):
        image = torch.nn.functional.pad(x if low else (x + 1) / 2, (8, 8, 8, 8))
        spectrum = torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(image, (-2, -1)), norm="ortho"), (-2, -1))
        torch.testing.assert_close(data(convention, "phase-retrieval"), spectrum.abs(), atol=1e-5, rtol=1e-4)


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
