"""One operator with the parameters of several, and what the base class answers for those without."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from deft_ct.operators import HDR, JPEG, Blur, Identity, Inpainting, MaskedFourier, Operator
from deft_ct.operators.ct.backends import matrix


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def half(*shape: int, seed: int = 0) -> torch.Tensor:
    return (rand(*shape, seed=seed) > 0.5).float()


SHAPE = (2, 6, 8)
KINDS: dict[str, Callable[[int], Operator]] = {
    "blur": lambda seed: Blur(SHAPE, rand(3, 5, seed=seed), boundary="zero"),
    "inpainting": lambda seed: Inpainting(SHAPE, half(1, 6, 8, seed=seed)),
    "Fourier": lambda seed: MaskedFourier(SHAPE, half(6, 8, seed=seed)),
    "complex Fourier": lambda seed: MaskedFourier(SHAPE, half(6, 8, seed=seed), complex_valued=True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_several_operators_are_joined_image_by_image(kind: str) -> None:
    singles = [KINDS[kind](seed) for seed in range(3)]
    together = type(singles[0]).joined(singles)
    assert together is not None and together.images == 3
    x = rand(3, *SHAPE, seed=9)
    expected = torch.cat([one(x[i : i + 1]) for i, one in enumerate(singles)])
    assert torch.equal(together(x), expected) and together.range_shape == singles[0].range_shape
    assert torch.equal(together[1:](x[1:]), expected[1:])


@pytest.mark.parametrize("kind", KINDS)
def test_an_operator_for_all_images_is_its_own_part(kind: str) -> None:
    one = KINDS[kind](0)
    assert one.images is None and one[:1] is one and one.repeat(3) is one
    assert one.select_images(lambda values: values[:0]) is one


def test_operators_without_parameters_of_each_image_are_not_joined() -> None:
    assert Identity((3,)).joined([Identity((3,)), Identity((3,))]) is None
    assert HDR.joined([HDR((1, 2, 2))]) is None


def test_parameters_are_repeated_in_a_row() -> None:
    operator = JPEG((1, 8, 8), (5, 90))
    x = rand(1, 1, 8, 8) * 2 - 1
    twice = operator.repeat(2)
    assert twice.images == 4
    y = twice(x.expand(4, -1, -1, -1))
    assert torch.equal(y[0], y[1]) and torch.equal(y[2], y[3]) and not torch.equal(y[1], y[2])


def test_what_an_operator_answers_that_knows_nothing_more() -> None:
    plain, scalar = HDR((1, 2, 2)), Identity((3,))
    y = rand(2, 1, 1, 2, 2)
    for operator in (plain, scalar):
        assert operator.unseen() is None and operator.row_order() is None and operator.grid_spacing is None
        assert operator.regularisation_hint(y, None) is None and not operator.on_volumes
        assert operator.diagnose(y).record == {} and operator.diagnose(y).findings == ()
        with pytest.raises(ValueError, match="cannot be simulated on a finer grid; use refine=1"):
            operator.refined(2)
        with pytest.raises(ValueError, match="has no features that a network could be conditioned on"):
            operator.features(y, None)
        assert operator.describe() == {"operator": type(operator).__name__}
    torch.testing.assert_close(plain.nominal_weights(y), torch.full_like(y, 1e4))
    assert plain.estimate_images(y[0], y[0]).shape == (1, 0, 1, 2, 2)
    assert scalar.preconditioner(y) is None and torch.equal(scalar.first_guess(rand(4, 3)), torch.zeros(4, 3))


def test_matrices_may_take_a_quarter_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    class Card:
        total_memory = 4003

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Card())
    assert matrix.gpu_budget(torch.device("cuda")) == 1000 and matrix.gpu_budget(torch.device("cpu")) == 0
