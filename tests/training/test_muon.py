import math

import pytest
import torch
from tiny_training import tiny_config
from torch import nn

from deft_ct.training import fit
from deft_ct.training.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(24, 24), (16, 90), (90, 16)])
def test_singular_values_come_close_to_one(shape):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
    assert 0.6 < values.min() and values.max() < 1.3


def test_singular_vectors_stay():
    torch.manual_seed(0)
    matrix = torch.randn(20, 50)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    turned = left.T @ orthogonal(matrix) @ right.T  # diagonal in the singular vectors of the matrix
    assert (turned - turned.diag().diag()).abs().max() < 0.05


def test_a_zero_gradient_changes_nothing():
    assert torch.equal(orthogonal(torch.zeros(16, 20)), torch.zeros(16, 20))


def convolutions():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 32, 3), nn.GroupNorm(4, 32), nn.SiLU(), nn.Conv2d(32, 32, 3), nn.Conv2d(32, 1, 1))


def gradients(network):
    x = torch.randn(4, 2, 9, 9, generator=torch.Generator().manual_seed(1))
    (network(x) - x[:, :1, 2:-2, 2:-2]).square().mean().backward()
    return network


def test_what_is_thin_or_no_matrix_follows_adamw():
    """Compared with PyTorch's AdamW, three steps with weight decay."""
    ours, theirs = convolutions(), convolutions()
    muon, adamw = Muon(ours.parameters(), 1e-2, weight_decay=0.1), torch.optim.AdamW(
        theirs.parameters(), 1e-2, weight_decay=0.1
    )  # fmt: skip
    for _ in range(3):
        gradients(ours)
        for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            other.grad = own.grad.clone()
        muon.step()
        adamw.step()
        muon.zero_grad()
    for (name, own), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        if name not in ("0.weight", "3.weight"):
            torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-6, msg=name)
        else:
            assert (own - other).abs().max() > 1e-3


def test_a_step_of_a_convolution_is_as_long_as_one_of_adamw():
    network = gradients(convolutions())
    network[3].weight.grad = torch.randn(32, 32, 3, 3, generator=torch.Generator().manual_seed(2))
    before = network[3].weight.detach().clone()
    Muon(network.parameters(), 1e-2).step()
    change = (network[3].weight.detach() - before).flatten(1)
    rms = change.square().mean().sqrt() / 1e-2
    # An orthogonal (m, n) matrix has the RMS 1 / sqrt(max(m, n)); singular values of 0.7 to 1.2 scale that.
    assert 0.2 * 0.6 < rms < 0.2 * 1.3
    assert torch.linalg.matrix_rank(change) == 32


def test_the_nesterov_direction_looks_ahead():
    """The second direction of two gradients a, b is that of 0.05 b + 0.95 (0.95 * 0.05 a + 0.05 b)."""
    weight = nn.Parameter(torch.zeros(16, 24))
    torch.manual_seed(0)
    a, b = torch.randn(16, 24), torch.randn(16, 24)
    optimizer = Muon([weight], 1.0)
    for gradient in (a, b):
        before = weight.detach().clone()
        weight.grad = gradient
        optimizer.step()
    expected = orthogonal(0.05 * b + 0.95 * (0.95 * 0.05 * a + 0.05 * b)) * 0.2 * math.sqrt(24)
    torch.testing.assert_close(before - weight.detach(), expected, rtol=1e-2, atol=1e-2)


def loss(network, indices, generator):
    x = torch.randn(len(indices), 2, 9, 9, generator=generator)
    return (network(x) - x[:, :1, 2:-2, 2:-2]).square().mean()


def train(folder, **changes):
    settings = tiny_config(optimizer="muon", **changes)
    return fit(convolutions(), loss, 10, settings, folder, identity={}, progress=False).state_dict()


def test_a_training_with_it_resumes_exactly(tmp_path):
    whole = train(tmp_path / "whole")
    train(tmp_path / "part", max_minutes=1e-9)
    resumed = train(tmp_path / "part")
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_another_optimizer_does_not_resume(tmp_path):
    train(tmp_path)
    with pytest.raises(ValueError, match="was started with optimizer 'muon' and this run has optimizer 'adamw'"):
        fit(convolutions(), loss, 10, tiny_config(), tmp_path, identity={}, progress=False)


def test_the_momentum_of_the_configuration_counts(tmp_path):
    usual = train(tmp_path / "usual")
    same, less = train(tmp_path / "same", momentum=0.95), train(tmp_path / "less", momentum=0.5)
    assert all(torch.equal(same[name], value) for name, value in usual.items())
    assert not torch.equal(less["3.weight"], usual["3.weight"])  # a matrix


@pytest.mark.parametrize(
    "changes, message",
    [({"optimizer": "magic"}, "optimizer must be one of adamw"), ({"momentum": 1.0}, "momentum")],
)
def test_bad_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny_config(**changes)
