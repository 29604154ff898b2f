"""DEFT for operators that are not tomography: what the network is given, guidance, and the form of the paper."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gaussian import gaussian_prior, smooth_gaussian
from tiny import NETWORK, tiny_htransform
from torch import Tensor

from deft_ct.diffusion import Prior
from deft_ct.diffusion.schedule import Schedule
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.deft import HTransform, HTransformConfig, condition_for, load_htransform, save_htransform
from deft_ct.methods.deft.conditioning import with_estimate
from deft_ct.methods.deft.guidance import AdjointGuidance, ScoreGuidance
from deft_ct.methods.deft.reconstructor import DEFT, DEFTConfig
from deft_ct.methods.deft.trained_measurements import (
    MEASUREMENTS,
    measurement_entries,
    much_larger,
    other_measurement,
    other_size,
    wide_hole,
)
from deft_ct.methods.initial import initial_for
from deft_ct.networks import UNet, UNetConfig
from deft_ct.networks.tiles import TiledNetwork
from deft_ct.operators import (
    HDR,
    JPEG,
    CompressedSensing,
    GaussianBlur,
    GaussianNoise,
    Inpainting,
    MotionBlur,
    NoiseModel,
    NonlinearBlur,
    NoNoise,
    Operator,
    PhaseRetrieval,
    SuperResolution,
    random_mask,
)
from deft_ct.operators.feature_images import FeatureImage

SHAPE = (3, 16, 16)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int = 2, seed: int = 3) -> Tensor:
    """Smooth images in [-1, 1]."""
    coarse = torch.rand((count, 3, 4, 4), generator=seeded(seed)) * 1.6 - 0.8
    return torch.nn.functional.interpolate(coarse, size=SHAPE[1:], mode="bilinear")


def operators() -> list[Operator]:
    return [
        SuperResolution(SHAPE, 4), SuperResolution(SHAPE, 4, "bicubic"), GaussianBlur(SHAPE, 5, 1.5),
        Inpainting(SHAPE, random_mask(SHAPE[1:], 0.5, seeded())), CompressedSensing(SHAPE, 0.25, seeded()),
        HDR(SHAPE), JPEG(SHAPE, 10), NonlinearBlur.camera(SHAPE, seeded(), kernel_size=5), PhaseRetrieval(SHAPE),
    ]  # fmt: skip


NOISES = [NoNoise(), GaussianNoise(1e-4), GaussianNoise(0.05), GaussianNoise(0.5)]
named = pytest.mark.parametrize("operator", operators(), ids=lambda operator: type(operator).__name__)


@named
@pytest.mark.parametrize("kind", [ScoreGuidance(), AdjointGuidance()], ids=["score", "adjoint"])
def test_guidance_has_the_size_of_the_error_whatever_the_noise(operator: Operator, kind: Any) -> None:
    x = pictures()
    for noise in NOISES[:3]:
        likelihood = Measurement(operator, noise).likelihood(operator(x))
        wrong = x + 0.1 * torch.randn(x.shape, generator=seeded(1))
        for sigma in (0.1, 3.0, 150.0):
            g = kind.of_estimate(likelihood, wrong, torch.full((2,), sigma))
            assert torch.isfinite(g).all() and g.square().mean().sqrt() < 0.2
    assert g.abs().max() > 1e-4


@pytest.mark.parametrize("operator", operators()[:5], ids=lambda operator: type(operator).__name__)
def test_a_step_of_the_score_never_goes_past_the_data(operator: Operator) -> None:
    """With images in the range of the operator the residual shrinks, for any noise and time."""
    x, start = pictures(), torch.zeros(2, *SHAPE)
    for noise in NOISES:
        likelihood = Measurement(operator, noise).likelihood(operator(x))
        before = likelihood.residual(start).norm()
        for sigma in (0.05, 1.0, 150.0):
            g = ScoreGuidance().of_estimate(likelihood, start, torch.full((2,), sigma))
            assert likelihood.residual(start + g).norm() < before * (1 - 1e-6)


def test_noise_and_time_weaken_the_step_of_the_score() -> None:
    operator, x = SuperResolution(SHAPE, 4), pictures()

    def size(noise: NoiseModel, sigma: float) -> float:
        likelihood = Measurement(operator, noise).likelihood(operator(x))
        return float(ScoreGuidance().of_estimate(likelihood, 0 * x, torch.full((2,), sigma)).norm())

    assert size(NoNoise(), 0.01) == pytest.approx(size(NoNoise(), 100.0), rel=1e-4)
    assert size(GaussianNoise(1e-4), 1.0) == pytest.approx(size(NoNoise(), 1.0), rel=1e-2)
    assert size(GaussianNoise(0.05), 0.01) < 0.01 * size(GaussianNoise(0.05), 100.0)


def test_untrained_deft_of_the_paper_is_a_guided_sampler() -> None:
    """Without an initial reconstruction, at its defaults, on a Gaussian: near the exact mean, and samples near it."""
    gaussian, side = smooth_gaussian(4), 4
    operator = SuperResolution((1, side, side), 2)
    matrix = operator(torch.eye(side**2).double().reshape(-1, 1, side, side)).flatten(1).T
    measurement = Measurement(operator, GaussianNoise(0.05))
    x = gaussian.draw(30, 2).reshape(-1, 1, side, side).float()
    y = measurement.simulate(x)
    prior = gaussian_prior(gaussian, side)
    network = UNetConfig(patch=1, channels=(32,), attention=(False,))
    head = HTransform(HTransformConfig(reference="none", guidance="score", network=network), prior.schedule)

    def error(images: Tensor) -> float:
        return float((images - x).square().mean())

    exact = torch.stack([gaussian.posterior(matrix, 0.05, row.flatten().double()).mean for row in y])
    best, none = error(exact.reshape(x.shape)), error(gaussian.mean.reshape(1, 1, side, side).expand_as(x))
    mean = DEFT(prior, head, DEFTConfig()).reconstruct(y, measurement).mean
    samples = DEFT(prior, head, DEFTConfig(estimate="samples", eta=1.0)).reconstruct(y, measurement).mean
    assert best < 0.2 * none
    assert error(mean) < 2 * best
    assert error(samples) < 3.5 * best  # 2 for exact samples


def test_images_of_the_operator_reach_the_network_and_absent_ones_are_filled() -> None:
    masks = torch.stack([random_mask(SHAPE[1:], share, seeded()) for share in (0.3, 0.7)])
    inpainting, phase = Inpainting(SHAPE, masks), PhaseRetrieval(SHAPE)
    wanted = (*inpainting.feature_images, *phase.feature_images)
    config = HTransformConfig(reference="none", guidance="score", channels=3, operator_images=wanted, network=NETWORK)
    head, x = HTransform(config, smooth_prior().schedule), pictures()
    for operator, kept in ((inpainting, (0, 1)), (phase, (2, 3))):
        likelihood = Measurement(operator, NoNoise()).likelihood(operator(x))
        condition = with_estimate(condition_for(likelihood, head), likelihood, head, x)
        assert condition.images is not None and condition.images.shape == (2, 4, *SHAPE)
        for k, image in enumerate(wanted):
            assert bool((condition.images[:, k] == image.absent).all()) == (k not in kept)
        torch.testing.assert_close(
            with_estimate(condition[1:], likelihood[1:], head, x[1:]).images, condition.images[1:]
        )
    seen: list[Tensor] = []
    head.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    head(x, torch.tensor([10, 900]), x, x, x, condition)
    torch.testing.assert_close(seen[0][:, -12:], condition.images.flatten(1, 2))
    with pytest.raises(ValueError, match="images that the operator declares"):
        head(x, torch.tensor([10, 900]), x, x, x, condition_for(likelihood, without_images()))


def smooth_prior() -> Any:
    return gaussian_prior(smooth_gaussian(4), 4)


def without_images() -> HTransform:
    config = HTransformConfig(reference="none", guidance="score", channels=3, network=NETWORK)
    return HTransform(config, smooth_prior().schedule)


def test_configurations_keep_their_images_and_earlier_forms_are_refused(tmp_path: Any) -> None:
    images = (FeatureImage(name="mask", dimensionless=True, absent=1.0), FeatureImage(name="data"))
    config = HTransformConfig(reference="none", guidance="score", operator_images=images, network=NETWORK)
    head = HTransform(config, smooth_prior().schedule)
    save_htransform(head, tmp_path / "head", dtype=torch.float32)
    assert load_htransform(tmp_path / "head").config == config
    earlier = {key: value for key, value in config.to_dict().items() if key != "output"}
    with pytest.raises(ValueError, match="predicts the noise, which is no longer supported"):
        HTransformConfig.from_dict(earlier)
    with pytest.raises(ValueError, match="holds a name twice"):
        HTransformConfig(operator_images=(images[0], images[0]))
    assert not {"operator_images", "reach", "output"} & HTransformConfig().to_dict().keys()


@named
def test_the_data_as_an_image_lie_near_the_truth(operator: Operator) -> None:
    x = pictures(4)
    measurement = Measurement(operator, GaussianNoise(0.05))
    likelihood = measurement.likelihood(measurement.simulate(x))
    if isinstance(operator, PhaseRetrieval):
        assert not operator.data_images(likelihood.y).shape[1]
        return
    found = initial_for("data")(likelihood)
    assert found.shape == x.shape
    assert (found - x).square().mean() < 0.8 * x.square().mean()


def trained_for(*measurements: Measurement) -> dict[str, Any]:
    return {MEASUREMENTS: measurement_entries(measurements)}


def motion(seed: int, sigma: float) -> Measurement:
    return Measurement(MotionBlur(SHAPE, seeded(seed), 5, 0.5), GaussianNoise(sigma))


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (Measurement(SuperResolution(SHAPE, 4), GaussianNoise(0.05)), None),
        (Measurement(SuperResolution((3, 32, 32), 4), GaussianNoise(0.05)), None),
        (Measurement(SuperResolution(SHAPE, 2), GaussianNoise(0.05)), "scale 4, not 2"),
        (Measurement(SuperResolution((3, 32, 32), 2), GaussianNoise(0.05)), "scale 4, not 2"),
        (Measurement(SuperResolution(SHAPE, 4, "bicubic"), GaussianNoise(0.05)), "kernel average, not bicubic"),
        (Measurement(SuperResolution(SHAPE, 4), GaussianNoise(0.06)), "sigma 0.05, not 0.06"),
        (Measurement(SuperResolution(SHAPE, 4)), "type GaussianNoise, not NoNoise"),
        (Measurement(HDR(SHAPE), GaussianNoise(0.05)), "trained for SuperResolution, not for HDR"),
    ],
)
def test_other_measurements_are_told_apart(given: Measurement, why: str | None) -> None:
    found = other_measurement(trained_for(Measurement(SuperResolution(SHAPE, 4), GaussianNoise(0.05))), given, ["data"])
    assert found is None if why is None else why in str(found)


def test_what_varied_in_the_training_may_vary_in_use() -> None:
    one, several = trained_for(motion(1, 0.05)), trained_for(motion(1, 0.05), motion(2, 0.1))
    assert other_measurement(one, motion(1, 0.05), []) is None
    assert "another kernel" in str(other_measurement(one, motion(3, 0.05), []))
    assert other_measurement(several, motion(3, 0.07), []) is None
    assert "sigma from 0.05 to 0.1, not 0.2" in str(other_measurement(several, motion(3, 0.2), []))
    assert other_measurement({}, motion(3, 0.2), []) is None


def test_another_image_size_is_a_finding() -> None:
    card = trained_for(Measurement(SuperResolution(SHAPE, 4), GaussianNoise(0.05)))
    assert other_size(card, Measurement(SuperResolution(SHAPE, 4))) is None
    found = other_size(card, Measurement(SuperResolution((3, 32, 48), 4)))
    assert found is not None and "16 x 16 pixels and these have 32 x 48" in found.text


@pytest.mark.filterwarnings("ignore::UserWarning")  # the weights are random
def test_tiles_of_the_trained_size_are_no_finding() -> None:
    torch.manual_seed(0)
    prior = Prior(UNet(NETWORK.with_channels(3, 3)), Schedule(), image_shape=SHAPE)
    head = tiny_htransform(prior, channels=3, reference="none", guidance="adjoint")
    head.card = trained_for(Measurement(SuperResolution(SHAPE, 4), GaussianNoise(0.05)))
    large = Measurement(SuperResolution((3, 32, 32), 4), GaussianNoise(0.05))
    method = DEFT(prior, head, DEFTConfig(steps=2))

    def warned() -> set[str]:
        found = method.reconstruct(torch.zeros(1, 3, 8, 8), large, seed=0).provenance["warnings"]
        return {finding["name"] for finding in found}

    assert "another image size" in warned()
    head.network = TiledNetwork(head.network, side=16, overlap=4)
    assert "another image size" not in warned()


@pytest.mark.parametrize(("width", "far"), [(16, 0), (20, 4 * 20)])
def test_a_hole_that_is_wider_than_tiles_show_is_a_finding(width: int, far: int) -> None:
    """Of 20 missing columns the four in the middle are more than 8 pixels from the others."""
    mask = torch.ones(1, 20, 48)
    mask[..., 10 : 10 + width] = 0
    measurement = Measurement(Inpainting((3, 20, 48), mask), GaussianNoise(0.05))
    found = wide_hole(measurement, torch.zeros(1, 3, 20, 48), 32)
    assert (found is None) == (far == 0)
    assert found is None or f"{far} pixels are farther than 8 from all that is observed" in found.text
    assert wide_hole(Measurement(SuperResolution((3, 32, 32), 4)), torch.zeros(1, 3, 8, 8), 32) is None


def test_images_beyond_the_measured_sizes_are_a_finding() -> None:
    assert much_larger((1, 256, 256), (1, 512, 512)) is None
    found = much_larger((1, 256, 256), (1, 512, 768))
    assert found is not None and "trained for images of 256 x 256 pixels" in found.text and "512 x 768" in found.text
