"""Motifs: against SciPy's superposition, and the derivative against finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from deft_ct.operators.points.motif import Motif
from deft_ct.operators.points.rigid import rotation_onto

RESIDUES = [3, 4, 5, 6, 10, 11, 12]


def points(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def turned(x: Tensor, seed: int) -> Tensor:
    """``x`` in a random pose."""
    turn = torch.from_numpy(Rotation.random(rng=seed).as_matrix())
    return x @ turn.to(x) + points(1, seed=seed, scale=5.0).to(x)


def superposed(x: Tensor, onto: Tensor) -> np.ndarray:
    """SciPy's superposition."""
    center, goal = x.mean(0), onto.mean(0)
    turn, _ = Rotation.align_vectors((onto - goal).numpy(), (x - center).numpy())
    return np.asarray(turn.apply((x - center).numpy()) + goal.numpy())


MOTIF = Motif(20, RESIDUES, points(7, seed=1))
TWO = Motif(20, RESIDUES, points(7, seed=1), bodies=(4, 3))


def test_superposition_is_that_of_scipy() -> None:
    x = points(3, 20, seed=2)
    for chain, y in zip(x, MOTIF(x), strict=True):
        np.testing.assert_allclose(y, superposed(chain[RESIDUES], MOTIF.template), atol=1e-12)
    for chain, y in zip(x, TWO(x), strict=True):
        for part in (slice(0, 4), slice(4, 7)):
            np.testing.assert_allclose(y[part], superposed(chain[RESIDUES][part], TWO.template[part]), atol=1e-12)
    assert not torch.allclose(MOTIF(x), TWO(x), atol=0.1)


def test_the_rotation_is_that_of_scipy_for_any_pair() -> None:
    a, b = (p - p.mean(-2, keepdim=True) for p in (points(50, 5, seed=3), points(50, 5, seed=4)))
    for rotation, p, q in zip(rotation_onto(a, b), a, b, strict=True):
        expected, _ = Rotation.align_vectors(q.numpy(), p.numpy())
        np.testing.assert_allclose(rotation.T, expected.as_matrix(), atol=1e-10)
        assert float(torch.linalg.det(rotation)) == pytest.approx(1.0)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # PyTorch warns about itself in forward mode
@pytest.mark.parametrize("motif", [MOTIF, TWO], ids=["one body", "two bodies"])
def test_the_derivative_is_exact_to_second_order(motif: Motif) -> None:
    x = points(2, 20, seed=5).requires_grad_()
    assert torch.autograd.gradcheck(motif, x, check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(motif, x, fast_mode=True)
    x = x.detach()
    v = points(2, 7, seed=6)
    step = points(2, 20, seed=7)
    slope = (motif(x + 1e-6 * step) - motif(x - 1e-6 * step)) / 2e-6
    assert float((motif.vjp(x, v) * step).sum()) == pytest.approx(float((slope * v).sum()), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_pose_does_not_matter(dtype: torch.dtype) -> None:
    """In nm, of chains of a few nm: within 1e-5."""
    x = points(20, seed=8).to(dtype)
    for seed in range(5):
        torch.testing.assert_close(
            MOTIF(turned(x, seed)), MOTIF(x), atol=1e-5 if dtype == torch.float32 else 1e-12, rtol=0
        )
    assert MOTIF(x).dtype == dtype


def test_a_chain_that_carries_the_motif_has_the_template_as_data() -> None:
    x = points(20, seed=9)
    x[RESIDUES] = turned(MOTIF.template, 3)
    torch.testing.assert_close(MOTIF(x), MOTIF.template)
    assert float(MOTIF.deviation(x)) < 1e-12
    x[RESIDUES[0]] += torch.tensor([0.3, 0.0, 0.0])
    expected = np.sqrt(np.square(superposed(x[RESIDUES], MOTIF.template) - MOTIF.template.numpy()).sum(-1).mean())
    assert float(MOTIF.deviation(x)) == pytest.approx(expected)


def test_a_mirrored_motif_does_not_fit() -> None:
    x = points(20, seed=9)
    x[RESIDUES] = turned(MOTIF.template * torch.tensor([1.0, 1.0, -1.0]), 3)
    assert float(MOTIF.deviation(x)) > 0.3
    flat = torch.cat([points(7, seed=1)[:, :2], torch.zeros(7, 1)], -1)
    x[RESIDUES] = turned(flat * torch.tensor([1.0, 1.0, -1.0]), 3)
    assert float(Motif(20, RESIDUES, flat).deviation(x)) < 1e-6, "a flat motif is its own mirror image"


@pytest.mark.parametrize("motif", [MOTIF, TWO], ids=["one body", "two bodies"])
def test_projection_is_the_nearest_chain_with_the_motif(motif: Motif) -> None:
    x = points(2, 20, seed=10)
    near = motif.project(x)
    torch.testing.assert_close(motif(near), motif.template.expand(2, -1, -1))
    others = [n for n in range(20) if n not in RESIDUES]
    assert torch.equal(near[:, others], x[:, others])
    distance = (near - x).square().sum((1, 2))
    for seed in range(20):  # the motif in a pose nearby is further away
        turn = torch.from_numpy(Rotation.from_rotvec(0.01 * points(1, seed=seed)[0].numpy()).as_matrix())
        other = near.clone()
        for part in (slice(0, 7),) if motif is MOTIF else (slice(0, 4), slice(4, 7)):
            rows = RESIDUES[part]
            middle = near[:, rows].mean(1, keepdim=True)
            other[:, rows] = (near[:, rows] - middle) @ turn + middle
        assert ((other - x).square().sum((1, 2)) > distance).all()
    torch.testing.assert_close(motif.project(near), near)
    y = points(2, 7, seed=11)
    torch.testing.assert_close(motif(motif.project(x, turned(y, 4))), motif(motif.project(x, y)))
    torch.testing.assert_close(motif.project(x.float()[0]), near[0].float())


def test_batches_and_empty_batches() -> None:
    x = points(5, 20, seed=12).float()
    for motif in (MOTIF, TWO):
        for n in range(5):
            assert torch.equal(motif(x)[n], motif(x[n])), "the bits of a chain do not depend on the others"
            assert torch.equal(motif.vjp(x, x[:, :7])[n], motif.vjp(x[n], x[n, :7]))
    assert MOTIF(torch.zeros(0, 20, 3)).shape == (0, 7, 3)
    assert MOTIF(points(20).half()).dtype == torch.float32
    assert MOTIF.describe() == {"operator": "Motif", "length": 20, "residues": RESIDUES, "bodies": [7]}


@pytest.mark.parametrize(
    ("residues", "template", "more", "why"),
    [
        (RESIDUES, points(6), {}, r"template must be finite, of shape \(7, 3\) for 7 residues, got shape \(6, 3\)"),
        (RESIDUES, points(7) * torch.nan, {}, "template must be finite"),
        ([1, 2, 20], points(3), {}, "indices must be in 0 ... 19, got 20"),
        ([1, 2, 2], points(3), {}, "2 occurs twice"),
        ([1, 2], points(2), {}, r"three residues or more each and 2 together, got \[2\]"),
        (RESIDUES, points(7), {"bodies": (4, 4)}, r"7 together, got \[4, 4\]"),
        (RESIDUES, points(7), {"bodies": (5, 2)}, r"three residues or more each and 7 together, got \[5, 2\]"),
        ([1, 2, 3], torch.arange(3.0)[:, None] * torch.ones(3), {}, "on one line"),
        ([1, 2, 3], torch.ones(3, 3), {}, "on one line"),
    ],
)
def test_motifs_that_are_none(residues: list[int], template: Tensor, more: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Motif(20, residues, template, **more)


def test_projection_checks_shapes() -> None:
    for x, y in ((points(19), None), (points(20), points(6)), (points(20)[:, :2], None)):
        with pytest.raises(ValueError, match=r"expected chains \(\.\.\., 20, 3\) and motifs \(\.\.\., 7, 3\)"):
            MOTIF.project(x, y)
    with pytest.raises(TypeError, match="indices must be integers"):
        Motif(20, [1.0, 2.0, 3.0], points(3))  # type: ignore[list-item]
