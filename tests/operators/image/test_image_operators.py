"""One table for all image operators: shapes, derivatives, adjoints, decompositions, batch invariance."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from deft_ct.operators import (
    HDR,
    JPEG,
    Blur,
    Colorization,
    CompressedSensing,
    Decomposable,
    GaussianBlur,
    Identity,
    Inpainting,
    LinearOperator,
    MaskedFourier,
    MotionBlur,
    NonlinearBlur,
    Operator,
    PhaseRetrieval,
    Quantisation,
    SeparableBlur,
    SuperResolution,
    cartesian_mask,
    freeform_mask,
    random_mask,
)
from deft_ct.operators.image.blur import Boundary
from deft_ct.operators.image.nonlinear_blur import CameraShake
from deft_ct.testing import assert_adjoint, assert_batch_invariant, assert_gradients, assert_linear

SHAPE = (3, 8, 16)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rand(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return 2 * torch.rand(shape, generator=rng(seed), dtype=dtype) - 1


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    build: Callable[[], Operator]
    range_shape: tuple[int, ...]
    svd: bool = False
    residual: float = 1e-6  # of A A^+ A = A, relative
    smooth: bool = True  # finite differences make sense at a random point

    def __repr__(self) -> str:
        return self.name


def kernel() -> Tensor:
    return torch.rand(3, 5, generator=rng(3), dtype=torch.float64)


LINEAR = [
    Case("identity", lambda: Identity(SHAPE), SHAPE, svd=True),
    Case("inpainting", lambda: Inpainting(SHAPE, random_mask(SHAPE[1:], 0.4, rng())), SHAPE, svd=True),
    Case("inpainting-colour", lambda: Inpainting(SHAPE, (rand(*SHAPE) > 0).float()), SHAPE, svd=True),
    Case("average", lambda: SuperResolution(SHAPE, 4), (3, 2, 4), svd=True),
    Case("bicubic", lambda: SuperResolution(SHAPE, 2, "bicubic"), (3, 4, 8), svd=True),
    *(
        Case(f"gaussian-{rule}", lambda rule=rule: GaussianBlur(SHAPE, 9, 1.0, boundary=rule), SHAPE, True, 2e-3)
        for rule in ("reflect", "circular", "zero")
    ),
    *(
        Case(f"blur-{rule}", lambda rule=rule: Blur(SHAPE, kernel(), boundary=rule), SHAPE, rule == "circular", 1e-2)
        for rule in ("reflect", "circular", "zero")
    ),
    # A kernel wider than the image wraps or reflects more than once.
    *(
        Case(
            f"motion-{rule}",
            lambda rule=rule: MotionBlur(SHAPE, rng(), 41, 0.5, boundary=rule),
            SHAPE,
            rule == "circular",
            1e-2,
        )
        for rule in ("reflect", "circular", "zero")
    ),
    Case("gaussian-valid", lambda: GaussianBlur(SHAPE, 5, 1.0, boundary="valid"), (3, 4, 12), True, 2e-3),
    Case("blur-valid", lambda: Blur(SHAPE, kernel(), boundary="valid"), (3, 6, 12), False, 1e-2),
    Case("fourier", lambda: MaskedFourier(SHAPE, cartesian_mask(SHAPE[1:], 2.0, rng())), (6, 8, 16), svd=True),
    Case("fourier-any", lambda: MaskedFourier(SHAPE, (rand(8, 16) > 0).float()), (6, 8, 16), svd=True),
    Case("uniform", lambda: SeparableBlur(SHAPE, torch.full((9,), 1 / 9), boundary="zero"), SHAPE, True, 2e-3),
    Case("colorization", lambda: Colorization(SHAPE), (1, 8, 16), svd=True),
    Case("luma", lambda: Colorization(SHAPE, "luma"), (1, 8, 16), svd=True),
    Case("hadamard", lambda: CompressedSensing(SHAPE, 0.25, rng()), (3, 32), svd=True),
    Case("dct", lambda: CompressedSensing(SHAPE, 0.25, rng(), transform="dct"), (3, 32), svd=True),
    Case("composition", lambda: SuperResolution(SHAPE, 2) @ Inpainting(SHAPE, random_mask(SHAPE[1:], 0.1, rng())),
         (3, 4, 8), residual=1e-5),
]  # fmt: skip
NONLINEAR = [
    Case("hdr", lambda: HDR(SHAPE), SHAPE),
    Case("hdr-unit", lambda: HDR(SHAPE, value_range=(0.0, 1.0)), SHAPE),
    Case("phase-daps", lambda: PhaseRetrieval(SHAPE), (3, 12, 24)),
    Case("phase-dps", lambda: PhaseRetrieval(SHAPE, amplitude_range=(-1.0, 1.0)), (3, 12, 24)),
    Case("camera", lambda: NonlinearBlur(SHAPE), SHAPE),
    Case("module", lambda: NonlinearBlur(SHAPE, torch.nn.Softplus(), value_range=(0.0, 1.0)), SHAPE),
    Case("jpeg-420", lambda: JPEG(SHAPE, 30), SHAPE, smooth=False),
    Case("jpeg-444", lambda: JPEG(SHAPE, 30, subsampling="4:4:4"), SHAPE, smooth=False),
    Case("quantisation", lambda: Quantisation(SHAPE, 3), SHAPE, smooth=False),
]
DECOMPOSABLE = [case for case in LINEAR if case.svd]


def linear(case: Case) -> LinearOperator:
    operator = case.build()
    assert isinstance(operator, LinearOperator)
    return operator


@pytest.mark.parametrize("case", LINEAR + NONLINEAR, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_dtype_and_determinism(case: Case, dtype: torch.dtype) -> None:
    operator, again = case.build(), case.build()
    assert operator.domain_shape == SHAPE and operator.range_shape == case.range_shape
    x = rand(2, 2, *SHAPE, dtype=dtype)
    before = x.clone()
    y = operator(x)
    assert y.shape == (2, 2, *case.range_shape) and y.dtype == dtype
    assert torch.equal(y, again(x)) and torch.equal(x, before)
    assert operator(x.half()).dtype == torch.float32
    assert operator.vjp(x, torch.ones_like(y)).shape == x.shape


@pytest.mark.parametrize("case", LINEAR + NONLINEAR, ids=repr)
def test_batch_of_n_is_n_batches_of_one_bit_for_bit(case: Case) -> None:
    operator = case.build()
    x = rand(5, *SHAPE, dtype=torch.float32)
    y = operator(x)
    assert torch.equal(y, torch.cat([operator(x[i : i + 1]) for i in range(5)]))
    if isinstance(operator, LinearOperator):
        assert_batch_invariant(operator)
    else:
        v = rand(5, *case.range_shape, dtype=torch.float32)
        assert torch.equal(operator.vjp(x, v), torch.cat([operator.vjp(x[i : i + 1], v[i : i + 1]) for i in range(5)]))


@pytest.mark.parametrize("case", LINEAR + NONLINEAR, ids=repr)
def test_bad_input_names_the_operator_and_the_shape(case: Case) -> None:
    operator = case.build()
    with pytest.raises(ValueError, match=r"trailing shape \(3, 8, 16\), got shape \(1, 3, 16, 8\)"):
        operator(torch.zeros(1, 3, 16, 8))
    with pytest.raises(TypeError, match="floating-point"):
        operator(torch.zeros(1, *SHAPE, dtype=torch.long))


@pytest.mark.parametrize("case", LINEAR + NONLINEAR, ids=repr)
def test_state_survives_pickle_copy_and_module_calls(case: Case) -> None:
    operator = case.build()
    x = rand(1, *SHAPE)
    for other in (pickle.loads(pickle.dumps(operator)) if not case.name.startswith("compo") else operator,
                  copy.deepcopy(operator), operator.to("cpu")):  # fmt: skip
        assert torch.equal(other(x), operator(x))
    assert not any(parameter.requires_grad for parameter in operator.parameters())


@pytest.mark.parametrize("case", LINEAR, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adjoint_and_linearity(case: Case, dtype: torch.dtype) -> None:
    operator = linear(case)
    rtol = 1e-6 if dtype == torch.float32 else 1e-13
    for seed in range(3):
        assert_adjoint(operator, rtol=rtol, dtype=dtype, seed=seed)
        assert_linear(operator, dtype=dtype, seed=seed)
    assert operator.T.T is operator
    assert_adjoint(operator.T, rtol=rtol, dtype=dtype)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    size=st.tuples(st.sampled_from([1, 3, 7, 15]), st.sampled_from([1, 5, 9])),
    boundary=st.sampled_from(["reflect", "circular", "zero"]),
    seed=st.integers(0, 1000),
)
def test_blurs_of_any_size_are_adjoint(
    height: int, width: int, size: tuple[int, int], boundary: Boundary, seed: int
) -> None:
    weights = torch.rand(size, generator=rng(seed), dtype=torch.float64)
    assert_adjoint(Blur((2, height, width), weights, boundary=boundary), rtol=1e-13, seed=seed)
    assert_adjoint(SeparableBlur((2, height, width), weights[:, 0], boundary=boundary), rtol=1e-13, seed=seed)


@pytest.mark.parametrize("case", LINEAR, ids=repr)
def test_gradients_of_linear_operators_to_second_order(case: Case) -> None:
    assert_gradients(linear(case))


@pytest.mark.parametrize("case", [case for case in NONLINEAR if case.smooth], ids=repr)
def test_gradients_of_nonlinear_operators(case: Case) -> None:
    assert_gradients(case.build(), second_order=False, scale=0.3, seed=4)


@pytest.mark.parametrize("case", LINEAR + NONLINEAR, ids=repr)
def test_vjp_is_that_of_autograd_and_of_vmap(case: Case) -> None:
    operator = case.build()
    x, v = rand(3, *SHAPE, seed=1), rand(3, *case.range_shape, seed=2)
    point = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(operator(point), point, v)
    torch.testing.assert_close(operator.vjp(x, v), expected)
    torch.testing.assert_close(torch.func.vmap(operator)(x), operator(x))


@pytest.mark.parametrize("case", LINEAR, ids=repr)
def test_pseudo_inverse_reproduces_the_data(case: Case) -> None:
    operator = linear(case)
    y = operator(rand(2, *SHAPE))
    error = (operator(operator.pseudo_inverse(y)) - y).norm() / y.norm()
    assert error < case.residual


@pytest.mark.parametrize("case", DECOMPOSABLE, ids=repr)
def test_decomposition(case: Case) -> None:
    operator = linear(case)
    assert isinstance(operator, Decomposable)
    svd = operator.svd()
    s = svd.singular_values.double()
    x, y = rand(2, *SHAPE), rand(2, *case.range_shape, seed=9)
    assert bool((s >= 0).all()) and s.numel() == x[0].numel() and svd.spectral_shape == tuple(s.shape)
    spectral = svd.to_spectral(x)
    assert spectral.shape == (2, *svd.spectral_shape)
    # V is orthogonal, A = U S V^T, and its transpose.
    torch.testing.assert_close(svd.from_spectral(spectral), x)
    torch.testing.assert_close(spectral.square().sum(), x.square().sum())
    torch.testing.assert_close(svd.data_from_spectral(s * spectral), operator(x))
    torch.testing.assert_close(svd.from_spectral(s * svd.data_to_spectral(y)), operator.adjoint(y))
    # U^T U = I where s > 0: the noise of the data stays white in spectral space.
    coefficients = rand(2, *svd.spectral_shape, seed=5) * (s > 1e-8 * s.max())
    torch.testing.assert_close(svd.data_to_spectral(svd.data_from_spectral(coefficients)), coefficients)
    assert operator.norm(iterations=500, tolerance=1e-9) == pytest.approx(float(s.max()), rel=5e-3)


@pytest.mark.parametrize("case", DECOMPOSABLE, ids=repr)
def test_decomposition_in_single_precision(case: Case) -> None:
    operator = linear(case)
    assert isinstance(operator, Decomposable)
    svd, x = operator.svd(), rand(2, *SHAPE, dtype=torch.float32)
    product = svd.data_from_spectral(svd.singular_values.to(x) * svd.to_spectral(x))
    torch.testing.assert_close(product, operator(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", [case for case in NONLINEAR if case.name[:3] in ("hdr", "qua")], ids=repr)
def test_pseudo_inverse_of_pointwise_operators(case: Case) -> None:
    operator = case.build()
    y = operator(rand(2, *SHAPE))
    torch.testing.assert_close(operator(operator.pseudo_inverse(y)), y)


def test_operators_without_pseudo_inverse_say_so() -> None:
    with pytest.raises(TypeError, match="PhaseRetrieval has no pseudo-inverse"):
        PhaseRetrieval(SHAPE).pseudo_inverse(torch.zeros(1, 3, 12, 24))


@pytest.mark.parametrize("case", LINEAR + NONLINEAR, ids=repr)
def test_operators_say_whether_they_have_a_pseudo_inverse(case: Case) -> None:
    operator = case.build()
    try:
        operator.pseudo_inverse(rand(1, *operator.range_shape))
    except TypeError:
        assert not operator.has_pseudo_inverse
    else:
        assert operator.has_pseudo_inverse


def test_one_mask_for_each_image() -> None:
    masks = torch.stack([freeform_mask((32, 32), rng(seed)) for seed in range(3)])
    operator = Inpainting((3, 32, 32), masks)
    x = rand(3, 3, 32, 32)
    for i in range(3):
        torch.testing.assert_close(operator(x)[i], Inpainting((3, 32, 32), masks[i])(x[i]))
    with pytest.raises(ValueError, match="the 3 masks need as many images, got 2"):
        operator(x[:2])
    for decomposed in (operator, -2 * operator):
        svd, y = decomposed.svd(), decomposed(x)
        assert svd.spectral_shape == (3, 32, 32)
        torch.testing.assert_close(svd.data_from_spectral(svd.singular_values * svd.to_spectral(x)), y)
        torch.testing.assert_close(svd.pseudo_inverse(y), operator(x))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Inpainting(SHAPE, torch.full((1, 8, 16), 0.5)), "only 0 .missing. and 1"),
        (lambda: Inpainting(SHAPE, torch.ones(1, 16, 8)), "broadcastable"),
        (lambda: Inpainting(SHAPE, torch.ones(2, 2, 1, 8, 16)), "one batch axis"),
        (lambda: SuperResolution(SHAPE, 3), "scale must divide"),
        (lambda: SuperResolution(SHAPE, 2, "lanczos"), "'average' or 'bicubic'"),
        (lambda: GaussianBlur(SHAPE, 8, 1.0), "odd"),
        (lambda: GaussianBlur(SHAPE, 9, 0.0), "positive"),
        (lambda: GaussianBlur(SHAPE, 9, 1.0, boundary="wrap"), "boundary must be one of"),
        (lambda: Blur(SHAPE, torch.ones(2, 3)), "odd sides"),
        (lambda: Blur(SHAPE, torch.ones(3, 3), boundary="wrap"), "boundary must be one of"),
        (lambda: Blur(SHAPE, torch.ones(3, 3)).svd(), "only boundary='circular'"),
        (lambda: SeparableBlur(SHAPE, torch.ones(4)), "odd length"),
        (lambda: MotionBlur(SHAPE, rng(), 9, 2.0), "intensity"),
        (lambda: HDR(SHAPE, 0.0), "gain"),
        (lambda: HDR(SHAPE, value_range=(1.0, -1.0)), "low < high"),
        (lambda: PhaseRetrieval((1, 9, 9)), "whole pixels"),
        (lambda: Colorization(SHAPE, (1.0, 0.0)), "3 numbers"),
        (lambda: Colorization(SHAPE, "max"), "'mean', 'luma'"),
        (lambda: JPEG(SHAPE, 0), r"1\.\.100"),
        (lambda: JPEG((2, 8, 8)), "1 or 3 channels"),
        (lambda: JPEG(SHAPE, subsampling="4:2:2"), "subsampling"),
        (lambda: CompressedSensing(SHAPE, 0.0, rng()), "ratio"),
        (lambda: CompressedSensing(SHAPE, 0.5, rng(), transform="fft"), "transform"),
        (lambda: CompressedSensing((3, 9, 9), 0.5, rng()), "power of two"),
        (lambda: Quantisation(SHAPE, 0), "bits"),
        (lambda: NonlinearBlur.camera(SHAPE, rng(), exposure=0.0), "exposure"),
    ],
)
def test_bad_parameters_are_refused(build: Callable[[], Operator], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_a_quality_for_each_image_or_one_for_all() -> None:
    one = JPEG((1, 8, 8), 50)
    assert one.images is None and one.select_images(lambda rows: rows[:1]) is one
    many = JPEG((1, 8, 8), [20, 50, 80])
    assert many.images == 3
    picked = many.select_images(lambda rows: rows[[2, 0]])
    assert picked.images == 2 and picked.quality == (80, 20)
    with pytest.raises(ValueError, match="quality is an empty sequence; give one for each image"):
        JPEG((1, 8, 8), [])


def test_a_shaking_camera_as_it_is_by_default() -> None:
    """41 pixels, half the intensity, and light enough to saturate the brightest parts."""
    x = 2 * torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0)) - 1

    def blurred(**options: float) -> torch.Tensor:
        operator = NonlinearBlur.camera((3, 48, 48), torch.Generator().manual_seed(1), **options)  # type: ignore
        return operator(x)

    plain = blurred()
    assert torch.equal(plain, blurred(kernel_size=41, intensity=0.5, exposure=1.25))
    for other in ({"kernel_size": 31}, {"intensity": 0.4}, {"exposure": 1.5}):
        assert not torch.equal(plain, blurred(**other))
    shape, seed = (3, 48, 48), torch.Generator().manual_seed
    own = CameraShake(shape, seed(1))
    assert torch.equal(own(x), CameraShake(shape, seed(1), kernel_size=41, intensity=0.5, exposure=1.25)(x))
