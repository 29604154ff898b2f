"""One training for every domain: photographs with missing pixels, and points of which some are known."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from deft_ct.diffusion import load_prior, save_prior
from deft_ct.diffusion.train import PriorSpec, train_prior
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.deft import HTransformConfig, load_htransform, save_htransform
from deft_ct.methods.deft.reconstructor import DEFT, DEFTConfig
from deft_ct.methods.deft.train import train_htransform
from deft_ct.networks import NetworkConfig, PointNetworkConfig, UNetConfig
from deft_ct.operators import GaussianNoise, Selection
from deft_ct.operators.image.inpainting import Inpainting
from deft_ct.operators.image.masks import random_mask
from deft_ct.training import TrainingConfig
from deft_ct.training.augment import Augmentation, mirrored, rotated
from deft_ct.training.pairs import PairSource


class Held:
    """Images or points in memory, in the prior's range."""

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def batch(self, indices: Tensor) -> Tensor:
        return self.values[indices]


@dataclass(frozen=True)
class Domain:
    source: Held
    network: NetworkConfig
    augment: Augmentation
    measurement: Measurement


def photographs() -> Domain:
    """Smooth colour gradients with a disc."""
    generator = torch.Generator().manual_seed(0)
    axis = torch.linspace(-1, 1, 64)
    slopes = torch.rand(24, 3, 2, generator=generator) - 0.5
    images = slopes[..., 0, None, None] * axis[:, None] + slopes[..., 1, None, None] * axis
    images = images + 0.5 * (torch.hypot(axis[:, None], axis) < 0.4)
    mask = random_mask((64, 64), 0.5, generator)
    return Domain(
        Held(images), UNetConfig(in_channels=3, out_channels=3, patch=4, channels=(32,), attention=(False,)), mirrored,
        Measurement(Inpainting((3, 64, 64), mask), GaussianNoise(0.05)),
    )  # fmt: skip


def points() -> Domain:
    """Noisy helices of 16 points, of which 6 are known."""
    generator = torch.Generator().manual_seed(0)
    turn = torch.arange(16) * 1.7
    helix = torch.stack([turn.cos(), turn.sin(), (torch.arange(16) - 7.5) / 5], -1) * 0.6
    clouds = helix + 0.05 * torch.randn(24, 16, 3, generator=generator)
    operator = Selection(16, [0, 1, 2, 7, 8, 9])
    return Domain(
        Held(clouds), PointNetworkConfig(width=32, layers=2), rotated, Measurement(operator, GaussianNoise(0.02))
    )


@pytest.mark.parametrize("make", [photographs, points])
def test_a_prior_and_an_h_transform_train_load_and_reconstruct(make: Callable[[], Domain], tmp_path: Path) -> None:
    domain = make()
    shape = tuple(domain.source.values.shape[1:])
    training = TrainingConfig(steps=100, batch_size=8, learning_rate=5e-3, warmup=3, ema_decay=0.9, log_every=20)
    made = train_prior(
        domain.source, tmp_path / "run", spec=PriorSpec(network=domain.network, image_shape=shape), training=training,
        augment=domain.augment, progress=False,
    )  # fmt: skip
    save_prior(made, tmp_path / "prior")
    prior = load_prior(tmp_path / "prior")
    assert prior.image_shape == shape and prior.value_range is None
    assert prior.content_hash() == made.content_hash()

    pairs = PairSource(domain.source, [domain.measurement], augment=domain.augment)
    config = HTransformConfig(
        reference="fbp", spread=0.3, channels=prior.channels, network=domain.network.small(32), guidance="fbp"
    )
    trained = train_htransform(pairs, prior, tmp_path / "h", config=config, training=training, progress=False)
    save_htransform(trained, tmp_path / "htransform")
    htransform = load_htransform(tmp_path / "htransform")
    assert htransform.config == trained.config and htransform.content_hash() == trained.content_hash()
    for folder in ("run", "h"):
        losses = _losses(tmp_path / folder)
        assert sum(losses[-2:]) / 2 < 0.9 * losses[0], (folder, losses)

    truth = domain.source.values[:2]
    y = domain.measurement.simulate(truth, seed=1)
    method = DEFT(prior, htransform, DEFTConfig(steps=4, estimate="samples"))
    result = method.reconstruct(y, domain.measurement, num_samples=2, seed=3)
    assert result.mean.shape == result.std.shape == (2, *shape)
    assert result.samples.shape == (2, 2, *shape)
    assert bool(torch.isfinite(result.samples).all())
    again = method.reconstruct(y, domain.measurement, num_samples=2, seed=3)
    assert torch.equal(again.samples, result.samples)
    prior_alone = htransform.network  # the trained network changes the answer
    assert any(bool((p != 0).any()) for p in prior_alone.parameters())


def test_augmentations_keep_shapes_and_distances() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(8, 3, 6, 6)
    changed = mirrored(images, generator)
    flipped = [not torch.equal(a, b) for a, b in zip(changed, images, strict=True)]
    assert 0 < sum(flipped) < 8
    clouds = torch.randn(4, 10, 3)
    turned = rotated(clouds, generator)
    torch.testing.assert_close(torch.cdist(turned, turned), torch.cdist(clouds, clouds), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(turned.mean(1), clouds.mean(1), rtol=1e-4, atol=1e-5)
    volume = torch.linalg.det(turned[:, :3] - turned[:, 3:4]), torch.linalg.det(clouds[:, :3] - clouds[:, 3:4])
    torch.testing.assert_close(*volume, rtol=1e-3, atol=1e-3)  # no reflection
    assert not torch.allclose(turned, clouds, atol=0.1)


def test_pairs_without_a_scale_refuse_a_measurement_with_one() -> None:
    from tiny import tiny_scan

    with pytest.raises(ValueError, match="has a scale"):
        PairSource(Held(torch.zeros(2, 1, 32, 32)), [tiny_scan()])
    with pytest.raises(ValueError, match="at least one measurement"):
        PairSource(Held(torch.zeros(2, 1, 32, 32)), [])


def _losses(folder: Path) -> list[float]:
    with (folder / "log.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]
