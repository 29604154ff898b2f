"""What every network that is conditioned on a time can do."""

from __future__ import annotations

import pytest
import torch

from deft_ct.networks import PointNetworkConfig, TimeNetwork, UNetConfig

UNET = UNetConfig(channels=(32, 32), attention=(False, False), norm_groups=8)
CASES = {"unet": (UNET, "conv_in", "conv_out"), "point": (PointNetworkConfig(width=16, layers=1), "embed", "out")}


def networks(kind: str) -> tuple[TimeNetwork, TimeNetwork]:
    """One that takes a single image, and one of the same shape that takes two."""
    config = CASES[kind][0]
    channels = config.in_channels
    return config.build(), config.with_channels(2 * channels, config.out_channels).build()


@pytest.mark.parametrize("kind", CASES)
def test_a_network_starts_from_one_with_fewer_inputs(kind: str) -> None:
    given, network = networks(kind)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.start_from(given)
    _, first, last = CASES[kind]
    known = given.state_dict()[f"{first}.weight"].shape[1]
    for name, value in network.state_dict().items():
        if name.startswith(f"{last}."):
            assert torch.equal(value, before[name])
        elif name == f"{first}.weight":
            assert torch.equal(value[:, :known], given.state_dict()[name])
            assert torch.equal(value[:, known:], before[name][:, known:] / 2)
        else:
            assert torch.equal(value, given.state_dict()[name])


@pytest.mark.parametrize("kind", CASES)
def test_a_network_of_another_class_changes_nothing(kind: str) -> None:
    network, (other, _) = networks(kind)[0], networks("point" if kind == "unet" else "unet")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.start_from(other)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("kind", CASES)
def test_only_the_last_layer_is_set_to_zero(kind: str) -> None:
    network, last = networks(kind)[0], CASES[kind][2]
    network.zero_output()
    parameters = dict(network.named_parameters())
    assert not any(value.any() for name, value in parameters.items() if name.startswith(f"{last}."))
    assert all(
        value.any() for name, value in parameters.items() if name.endswith("in.weight") or name == "embed.weight"
    )
