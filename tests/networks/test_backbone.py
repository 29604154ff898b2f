"""The network on chains: rotations turn its output, reflections do not, and lengths and inputs of any number fit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from deft_ct.networks import BackboneNetwork, BackboneNetworkConfig, network_config
from deft_ct.networks import chain_frames as cf
from deft_ct.networks.backbone import heads_for

SMALL = BackboneNetworkConfig(width=16, layers=1, heads=2, pair_width=8)


def network(config: BackboneNetworkConfig = SMALL, seed: int = 0) -> BackboneNetwork:
    """All weights random, those that start at zero, too, in double precision."""
    torch.manual_seed(seed)
    made = config.build()
    for move in made.moves:
        nn.init.normal_(move.weight, std=0.3)  # type: ignore[arg-type]
    return made.double()


def rotation(seed: int) -> Tensor:
    q = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[0]
    return q * torch.linalg.det(q)


def chains(count: int, length: int, channels: int = 3, seed: int = 1) -> Tensor:
    steps = torch.randn(count, length, channels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return 0.5 * steps.cumsum(1)


T = torch.tensor([3, 600])


def test_rotations_turn_the_output_and_shifts_do_nothing() -> None:
    net, x, turn = network(), chains(2, 11), rotation(2)
    out = net(x, T)
    assert out.shape == x.shape and float(out.detach().abs().max()) > 0.1
    torch.testing.assert_close(net(x @ turn, T), out @ turn, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(net(x + 5.0, T), out, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(out.mean(1), torch.zeros(2, 3, dtype=torch.float64))


def test_single_precision_is_equivariant_to_a_millionth() -> None:
    net, x, turn = network().float(), chains(2, 40).float(), rotation(3).float()
    out = net(x, T)
    assert float(((net(x @ turn, T) - out @ turn).norm() / out.norm()).detach()) < 1e-5


def test_a_mirror_image_is_another_chain() -> None:
    net, x = network(), chains(2, 11)
    assert float((net(-x, T) + net(x, T)).detach().abs().max()) > 0.01


def test_further_vectors_turn_and_scalars_do_not() -> None:
    config = BackboneNetworkConfig(in_channels=9, out_channels=6, scalars=1, width=16, layers=1, heads=2, pair_width=8)
    net, turn = network(config), rotation(4)
    x = chains(2, 9, 9)
    turned = torch.cat([x[..., :3] @ turn, x[..., 3:6] @ turn, x[..., 6:]], -1)
    out = net(x, T)
    expected = torch.cat([out[..., :3] @ turn, out[..., 3:] @ turn], -1)
    torch.testing.assert_close(net(turned, T), expected, rtol=1e-9, atol=1e-9)
    for part in (slice(3, 6), slice(6, 9)):
        other = x.clone()
        other[..., part] += 1.0
        assert float((net(other, T) - out).detach().abs().max()) > 1e-4


def test_time_length_order_and_extra_matter() -> None:
    net, x = network(), chains(1, 12)
    out = net(x, T[:1])
    assert not torch.allclose(net(x, T[1:]), out)
    assert not torch.allclose(net(x.flip(1), T[:1]), out.flip(1))
    assert not torch.allclose(net(x, T[:1], torch.ones(1, net.embedding_width)), out)
    with torch.no_grad():
        net.length_embedding.weight.zero_()
    assert not torch.allclose(net(x, T[:1]), out)


def test_a_chain_does_not_depend_on_its_batch() -> None:
    net, x = network().float(), chains(3, 12).float()
    t = torch.tensor([1, 40, 900])
    whole = net(x, t)
    for k in range(3):
        torch.testing.assert_close(net(x[k : k + 1], t[k : k + 1])[0], whole[k], rtol=1e-4, atol=1e-5)


def test_zero_output_predicts_nothing_and_gradients_reach_all_weights() -> None:
    net, x = SMALL.build(), chains(2, 8).float()
    net.zero_output()
    assert not net(x, T).any()
    made = network().float()
    made(x, T).square().sum().backward()
    still = [name for name, p in made.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not still


def test_degenerate_chains_have_finite_outputs_and_gradients() -> None:
    net = network()
    for x in (torch.zeros(2, 6, 3), torch.arange(6.0)[None, :, None].expand(2, 6, 3).clone()):
        x = x.double().requires_grad_()
        net(x, T).square().sum().backward()
        assert x.grad is not None and bool(torch.isfinite(x.grad).all())


def test_mixed_precision_is_not_used() -> None:
    net, x = network().float(), chains(2, 8).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = net(x, T)
    torch.testing.assert_close(found, net(x, T), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("values", "why"),
    [({"width": 15}, "even and a multiple"), ({"layers": 0}, "at least 1"), ({"layers": 99}, "at most 100"),
     ({"in_channels": 4}, "multiples of 3"), ({"scalars": 1}, "leave one"), ({"out_channels": 0}, "multiples of 3")],
)  # fmt: skip
def test_values_that_do_not_fit_are_refused(values: dict[str, int], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        BackboneNetworkConfig(**values)


def test_shapes_that_do_not_fit_are_refused() -> None:
    net = SMALL.build()
    for shape in ((2, 2, 3), (2, 5, 6), (5, 3)):
        with pytest.raises(ValueError, match="expected chains"):
            net(torch.zeros(shape), T)


def test_the_configuration_is_stored() -> None:
    assert network_config(SMALL.to_dict()) == SMALL and SMALL.layout(3) == ("N", 3)
    assert SMALL.small(8).width == 8 and SMALL.with_channels(9, 3).vectors == 3


def test_frames_are_orthonormal_and_right_handed() -> None:
    frame = cf.frames(chains(3, 10))
    eye = torch.eye(3, dtype=torch.float64).expand(3, 10, 3, 3)
    torch.testing.assert_close(frame.transpose(-1, -2) @ frame, eye, rtol=0, atol=1e-3)
    torch.testing.assert_close(torch.linalg.det(frame), torch.ones(3, 10, dtype=torch.float64), rtol=0, atol=1e-3)
    vectors = torch.randn(3, 10, 4, 3, dtype=torch.float64)
    torch.testing.assert_close(cf.out_of(frame, cf.into(frame, vectors)), vectors, rtol=0, atol=1e-2)


def test_neighbours_stop_at_the_ends() -> None:
    x = torch.arange(5.0)[None, :, None].expand(1, 5, 3)
    vectors, there = cf.neighbours(x, 2)
    assert vectors[0, :, :, 0].tolist() == [
        [0, 0, 1, 2], [0, -1, 1, 2], [-2, -1, 1, 2], [-2, -1, 1, 0], [-2, -1, 0, 0]
    ]  # fmt: skip
    assert there.sum(1).tolist() == [2, 3, 4, 3, 2]


@pytest.mark.parametrize(("width", "heads"), [(128, 8), (32, 8), (40, 8), (24, 4), (20, 4), (12, 2), (6, 1), (10, 2)])
def test_small_networks_have_fewer_attention_heads(width: int, heads: int) -> None:
    assert heads_for(width) == heads
    assert BackboneNetworkConfig().small(width).heads == heads
    assert BackboneNetworkConfig(width=width, heads=heads).width == width
