"""The fine-tuned prior: it starts as the prior, and draws chains in any pose that its training knows the motif of."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_backbones import SMALL_BACKBONE, tiny_backbone_prior
from torch import nn

from deft_ct.diffusion import Prior
from deft_ct.diffusion.schedule import Schedule
from deft_ct.measurement.likelihood import Likelihood
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.registry import load_reconstructor
from deft_ct.methods.supervised.amortised import Amortised, AmortisedModel
from deft_ct.networks import BackboneNetwork, BackboneNetworkConfig
from deft_ct.networks.storage import ModelFormat
from deft_ct.operators import GaussianNoise, Selection
from deft_ct.operators.points.motif import Motif
from deft_ct.protein.scale import BACKBONE_RANGE, Angstrom
from deft_ct.reconstructor import UnsupportedError
from deft_ct.runtime.evaluations import count_evaluations

CHAIN = 4 * torch.randn(14, 3, generator=torch.Generator().manual_seed(0)).cumsum(0)
RESIDUES = [4, 5, 6, 7]


def prior() -> Prior:
    """With weights in every layer, those that start at zero, too."""
    made = tiny_backbone_prior()
    assert isinstance(made.network, BackboneNetwork)
    for move in made.network.moves:
        nn.init.normal_(move.weight, std=0.3, generator=torch.Generator().manual_seed(1))  # type: ignore[arg-type]
    return made


def measurement() -> Measurement:
    return Measurement(Motif(14, RESIDUES, CHAIN[RESIDUES]), GaussianNoise(0.1), units=Angstrom())


def likelihood(count: int = 2) -> Likelihood:
    return measurement().likelihood(CHAIN[None, RESIDUES].expand(count, -1, -1), BACKBONE_RANGE)


def test_it_starts_as_the_prior_whatever_it_sees() -> None:
    frozen = prior()
    model = AmortisedModel.from_prior(frozen)
    x = torch.randn(2, 14, 3, generator=torch.Generator().manual_seed(3))
    x0, eps = model.denoiser(likelihood())(x, 300)
    expected = frozen.predict(x, 300)
    torch.testing.assert_close((x0, eps), expected, rtol=0, atol=1e-5)


def test_a_network_of_another_shape_is_not_continued() -> None:
    larger = BackboneNetworkConfig(width=32, layers=1, heads=2, pair_width=8, in_channels=9, scalars=1).build()
    with pytest.raises(ValueError, match="expected a network of the shape"):
        larger.continue_from(SMALL_BACKBONE.build())
    with pytest.raises(ValueError, match="velocity"):
        AmortisedModel.from_prior(Prior(SMALL_BACKBONE.build(), Schedule(), image_shape=(16, 3)))


def test_it_sees_where_the_motif_goes_and_turns_with_the_chain() -> None:
    model = AmortisedModel.from_prior(prior())
    x, t = torch.randn(2, 14, 3, generator=torch.Generator().manual_seed(3)), torch.tensor([200, 600])
    seen = model.seen(likelihood(), x, t)
    free = [k for k in range(14) if k not in RESIDUES]
    assert not seen[:, free].any() and bool((seen[:, RESIDUES, 3:] == 1).all())
    estimate = Schedule().coefficients(t, x)[0] * x
    placed = BACKBONE_RANGE.from_prior(estimate + seen[..., :3])
    assert float(measurement().operator.deviation(placed).max()) < 1e-3  # type: ignore[operator]
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(4)))[0]
    turn = turn * torch.linalg.det(turn)
    turned = model.seen(likelihood(), x @ turn, t)
    torch.testing.assert_close(turned[..., :3], seen[..., :3] @ turn, rtol=0, atol=1e-4)


@pytest.mark.filterwarnings("ignore::UserWarning")  # untrained: the samples do not carry the motif
def test_samples_do_not_depend_on_the_batch_and_models_are_stored(tmp_path: Path) -> None:
    AmortisedModel.from_prior(tiny_backbone_prior()).save(tmp_path / "model", dtype=torch.float32)
    stored = AmortisedModel.load(tmp_path / "model")
    y = CHAIN[None, RESIDUES]
    one, all_ = (
        load_reconstructor("amortised", model=model, steps=4, batch_size=size).reconstruct(
            y, measurement(), num_samples=3, seed=2
        )
        for model, size in ((stored, 1), (tmp_path / "model", 3))
    )
    assert one.samples is not None and all_.samples is not None
    torch.testing.assert_close(one.samples, all_.samples, rtol=0, atol=1e-3)
    assert one.provenance["network_evaluations_per_image"] == 12 and one.provenance["selected"]["rule"] == "medoid"


def test_other_operators_are_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    method = Amortised(AmortisedModel.from_prior(prior()))
    plain = Measurement(Selection(14, RESIDUES), GaussianNoise(0.1), units=Angstrom())
    with count_evaluations() as count, pytest.raises(UnsupportedError, match="amortised needs an operator"):
        method.reconstruct(CHAIN[None, RESIDUES], plain)
    assert count.total == 0
    monkeypatch.setattr(ModelFormat, "shipped", lambda self: [])
    with pytest.raises(FileNotFoundError, match="deft-ct train amortised --data backbones:FILE --initial PRIOR"):
        load_reconstructor("amortised")
