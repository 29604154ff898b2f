"""Every method with parameters of each image: a batch of N is N batches of one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from methods import FEW, image_prior
from tiny import tiny_htransform

from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.registry import load_reconstructor, method_class, methods
from deft_ct.operators import JPEG, Blur, GaussianNoise, Inpainting, MaskedFourier, Operator, PhaseRetrieval
from deft_ct.reconstructor import Reconstructor, UnsupportedError

SHAPE, COUNT = (1, 16, 16), 2
LIMIT = 2e-5
"""Of the largest value: the networks take images in batches of other sizes, which changes their last bit."""
BY_ONE = {("daps", "frequencies"), ("daps", "qualities"), ("reddiff", "valid kernels")}
"""Where a last bit decides on more: rounding of JPEG in a chain of Langevin steps, the end of conjugate gradients that
have found the exact answer, and Adam, which divides a gradient of nearly zero by its size. The networks then take one
image at a time."""
# Trained for one scan, or trained anew for each measurement.
NAMES = [
    name for name in methods()
    if name not in ("unconditional", "deft_online", "replacement")
    and not method_class(name).__module__.startswith("deft_ct.methods.supervised")
]  # fmt: skip


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def kernels() -> torch.Tensor:
    values = torch.rand(COUNT, 3, 5, generator=rng(1))
    return values / values.sum((1, 2), keepdim=True)


OPERATORS: dict[str, Callable[[], Operator]] = {
    "masks": lambda: Inpainting(SHAPE, (torch.rand(COUNT, 1, 16, 16, generator=rng(0)) > 0.4).float()),
    "kernels": lambda: Blur(SHAPE, kernels(), boundary="circular"),
    "valid kernels": lambda: Blur(SHAPE, kernels(), boundary="valid"),
    "frequencies": lambda: MaskedFourier(SHAPE, (torch.rand(COUNT, 16, 16, generator=rng(2)) > 0.4).float()),
    "qualities": lambda: JPEG(SHAPE, (10, 50)),
}


def build(name: str, *, batch_size: int = COUNT) -> Reconstructor:
    cls = method_class(name)
    prior = image_prior()
    options = {key: value for key, value in FEW.items() if key in cls.config_type.__dataclass_fields__}
    if "batch_size" in options:
        options["batch_size"] = batch_size
    head = {"htransform": tiny_htransform(prior, reference="none", guidance="score")} if name == "deft" else {}
    return load_reconstructor(name, prior=prior, **head, **options)


@pytest.mark.parametrize("which", OPERATORS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore::UserWarning")  # random weights explain no data
def test_batch_of_n_is_n_batches_of_one(name: str, which: str) -> None:
    measurement = Measurement(OPERATORS[which](), GaussianNoise(0.05))
    truth = torch.rand(COUNT, *SHAPE, generator=rng(3)) - 0.5
    y = measurement.simulate(truth, seed=1)
    method = build(name, batch_size=1 if (name, which) in BY_ONE else COUNT)
    try:
        whole = method.reconstruct(y, measurement, seed=5, image_ids="ab").mean
    except UnsupportedError:
        assert isinstance(OPERATORS[which](), JPEG) or "singular value" in _refusal(method, y, measurement)
        return
    scale = float(whole.abs().max())
    for i, key in enumerate("ab"):
        alone = method.reconstruct(y[i : i + 1], measurement[i : i + 1], seed=5, image_ids=[key]).mean
        assert float((alone[0] - whole[i]).abs().max()) <= LIMIT * scale


def _refusal(method: Reconstructor, y: torch.Tensor, measurement: Measurement) -> str:
    with pytest.raises(UnsupportedError) as refusal:
        method.reconstruct(y, measurement)
    return str(refusal.value)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_samples_of_phase_retrieval_are_not_averaged() -> None:
    measurement = Measurement(PhaseRetrieval(SHAPE), GaussianNoise(0.05))
    y = measurement.simulate(torch.rand(COUNT, *SHAPE, generator=rng(3)) - 0.5, seed=1)
    result = build("dps").reconstruct(y, measurement, num_samples=3)
    assert result.samples is not None
    record = result.provenance["selected"]
    assert record["rule"] == "smallest data residual" and len(record["samples"]) == COUNT
    for i, k in enumerate(record["samples"]):
        assert torch.equal(result.mean[i], result.samples[i, k])
        assert record["data_residuals"][i][k] == min(record["data_residuals"][i])
