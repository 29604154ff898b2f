"""Reconstructors as modules, counts under threads, and inputs that are not plain float32 batches."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from contract import PROBLEMS, build, tiny_model
from tiny import tiny_htransform, tiny_prior, tiny_scan, tiny_slices
from torch import Tensor, nn

from deft_ct.measurement.scales import PriorRange
from deft_ct.methods.registry import load_reconstructor

ROBUST = ["tv", "fbp", "cgls", "deft", "dps"]


def test_networks_are_submodules_and_calling_reconstructs() -> None:
    prior = tiny_prior()
    digest = prior.content_hash()
    head = tiny_htransform(prior, reference="fbp")
    method = load_reconstructor("deft", prior=prior, htransform=head, steps=2)
    assert {name.partition(".")[0] for name, _ in method.named_parameters()} == {"prior", "htransform"}
    assert not any(parameter.requires_grad for parameter in method.parameters())
    scan = tiny_scan()
    y = scan.simulate(tiny_slices(1))
    torch.testing.assert_close(method(y, scan, seed=3).mean, method.reconstruct(y, scan, seed=3).mean, rtol=0, atol=0)
    method.train()
    assert not method.prior.training and method.prior.content_hash() == digest
    assert method.to("meta") is method
    assert all(parameter.device.type == "meta" for parameter in method.parameters())


@pytest.mark.parametrize("name", ["learned_primal_dual", "fbp_unet"])
def test_a_learned_method_trains_inside_another_model(name: str) -> None:
    scan, truth = tiny_scan(), tiny_slices(2)
    y = scan.simulate(truth).requires_grad_()

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = load_reconstructor(name, model=tiny_model(name))
            self.gain = nn.Parameter(torch.ones(()))

        def forward(self, y: Tensor) -> Tensor:
            likelihood = scan.likelihood(y, PriorRange())
            seen = likelihood
            if name == "fbp_unet":
                from deft_ct.methods.initial import reference_reconstruction

                seen = reference_reconstruction(likelihood, "fbp")
            out: Tensor = self.gain * self.inner.model(seen)
            return out

    outer = Outer()
    wanted = scan.scale_to(PriorRange()).inverse(truth)
    optimiser = torch.optim.Adam(outer.parameters(), lr=1e-3)
    for _ in range(2):
        optimiser.zero_grad()
        y.grad = None
        (outer(y) - wanted).square().mean().backward()
        assert y.grad is not None and float(y.grad.abs().max()) > 0
        assert any(p.grad is not None and float(p.grad.abs().max()) > 0 for p in outer.inner.parameters())
        optimiser.step()
    assert not outer.inner.reconstruct(y, scan).mean.requires_grad


def test_evaluations_are_counted_for_each_call_under_threads() -> None:
    prior, scan = tiny_prior(), tiny_scan()
    y = scan.simulate(tiny_slices(1))
    together = threading.Barrier(2)

    def run(steps: int) -> float:
        method = load_reconstructor("dds", prior=prior, steps=steps)
        together.wait()
        record = method.reconstruct(y, scan).provenance
        return float(record["network_evaluations_per_image"])

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(run, [3, 11])) == [3, 11]


class Picky(Tensor):
    """A tensor as MONAI's MetaTensor: it refuses sizes that are not one tuple."""

    def new_empty(self, size: object, **_: object) -> Tensor:  # type: ignore[override]
        raise TypeError("one tuple of sizes, please")


@pytest.mark.parametrize("name", ROBUST)
@pytest.mark.filterwarnings("ignore:.*diverged:UserWarning")  # the networks have random weights
@pytest.mark.filterwarnings("ignore:data not explained")  # random weights
def test_inputs_that_are_not_plain_float32_batches(name: str) -> None:
    problem = PROBLEMS["CT parallel"]
    method, scan = build(name, problem), problem.measurement()
    y = scan.simulate(problem.images(1))
    expected = method.reconstruct(y, scan).mean
    meta = method.reconstruct(y.as_subclass(Picky), scan).mean
    assert type(meta) is Tensor
    torch.testing.assert_close(meta, expected, rtol=0, atol=0)
    with torch.inference_mode():
        made_inside = y + 0
        torch.testing.assert_close(method.reconstruct(made_inside, scan).mean, expected, rtol=0, atol=0)
    with pytest.raises(ValueError, match="empty batch"):
        method.reconstruct(y[:0], scan)
    with pytest.raises(TypeError, match=r"floating-point torch tensor.*got torch.int64"):
        method.reconstruct(y.long(), scan)
    torch.set_default_dtype(torch.float64)
    try:
        again = method.reconstruct(y, scan).mean
    finally:
        torch.set_default_dtype(torch.float32)
    assert again.dtype == torch.float32
    torch.testing.assert_close(again, expected, rtol=1e-4, atol=1e-5)
