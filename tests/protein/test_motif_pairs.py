"""Training pairs of motif scaffolding: the data are the motif of each chain itself, whatever its pose."""

from __future__ import annotations

import torch
from torch import Tensor

from deft_ct.methods.deft.guidance import ProjectGuidance
from deft_ct.protein.ensemble import superposed
from deft_ct.protein.motif_pairs import FREE_ENDS, LONGEST_MOTIF, SHORTEST_MOTIF, MotifPairs, random_segment
from deft_ct.protein.scale import BACKBONE_RANGE


class Held:
    """A source of chains of one length."""

    def __init__(self, count: int = 4, length: int = 40) -> None:
        self.chains = 3 * torch.randn(count, length, 3, generator=torch.Generator().manual_seed(0)).cumsum(1)

    def __len__(self) -> int:
        return len(self.chains)

    def batch(self, indices: Tensor) -> Tensor:
        return self.chains[indices]


def test_the_data_are_the_motif_of_each_chain() -> None:
    pairs = MotifPairs(Held(), 1e-4)
    drawn = pairs.seeded(torch.tensor([0, 2]), 5)
    operator = drawn.likelihood.operator
    chain = BACKBONE_RANGE.from_prior(drawn.x0)
    own = chain[:, operator.indices]
    assert SHORTEST_MOTIF <= own.shape[1] <= 13 and drawn.likelihood.y.shape == own.shape
    torch.testing.assert_close(
        superposed(drawn.likelihood.y, own).float(), own, rtol=0, atol=1e-2
    )  # the pose is another one, the shape is not
    assert float((own - drawn.likelihood.y).abs().max()) > 0.1
    other = pairs.seeded(torch.tensor([0, 2]), 6)
    assert other.likelihood.operator.indices.tolist() != operator.indices.tolist()
    again = pairs.seeded(torch.tensor([0, 2]), 5)
    assert torch.equal(again.x0, drawn.x0) and torch.equal(again.likelihood.y, drawn.likelihood.y)


def test_project_guidance_replaces_the_motif_and_nothing_else() -> None:
    drawn = MotifPairs(Held(), 1e-4).seeded(torch.tensor([1, 3]), 1)
    noisy = drawn.x0 + 0.1 * torch.randn(drawn.x0.shape, generator=torch.Generator().manual_seed(2))
    step = ProjectGuidance().of_estimate(drawn.likelihood, noisy, torch.ones(2))
    mask = drawn.likelihood.operator.data_images(drawn.likelihood.y)[:, 0].bool()
    assert not step[~mask].any() and float(step[mask].abs().max()) > 0.01
    away = BACKBONE_RANGE.scale * (noisy + step - drawn.x0)
    motif = drawn.likelihood.operator.indices
    fitted = superposed((noisy + step)[:, motif], drawn.x0[:, motif])
    assert float((fitted - drawn.x0[:, motif]).abs().max()) < 1e-3 and float(away[:, motif].abs().mean()) < 0.7


def test_segments_follow_the_rule_of_the_problems() -> None:
    generator = torch.Generator().manual_seed(0)
    for length in (9, 12, 50, 128):
        drawn = [random_segment(length, generator) for _ in range(400)]
        sizes = {stop - start for start, stop in drawn}
        longest = min(LONGEST_MOTIF, length // 3)
        assert sizes == set(range(min(SHORTEST_MOTIF, longest), longest + 1))
        ends = min(FREE_ENDS, (length - longest) // 2)
        assert min(start for start, _ in drawn) >= ends and max(stop for _, stop in drawn) <= length - ends


def test_the_tolerance_and_the_chains_count() -> None:
    one = MotifPairs(Held(), 0.1).description()
    assert one == MotifPairs(Held(), 0.1).description()
    assert one != MotifPairs(Held(), 0.2).description() and one != MotifPairs(Held(length=41), 0.1).description()
