"""The Triton kernels, on a GPU where there is one and in Triton's interpreter elsewhere.

The interpreter runs what the kernels say, not what the compiler makes of it; the last test has them compiled for a GPU.
"""

from __future__ import annotations

import itertools
import os
import pickle
import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from deft_ct.operators.ct import ConeGeometry, FanGeometry, ParallelGeometry, RayTransform, VectorFanGeometry
from deft_ct.operators.ct.backends import triton as backend_module
from deft_ct.operators.ct.backends.triton import Tile, TritonBackend

pytest.importorskip("triton", reason="Triton is not installed: pip install deft-ct[triton]")

PARALLEL = ParallelGeometry.for_image((24, 20), 1.0, 7).replace(detector_offset_mm=0.4, axis_offset_mm=-0.9)
FAN = FanGeometry.for_image((17, 23), 1.0, 6, source_to_center_mm=60, source_to_detector_mm=100)
SCANS: dict[str, Any] = {
    "parallel": PARALLEL,
    "few, wide elements": PARALLEL.replace(detectors=5, detector_mm=3.3, pixel_mm=(0.8, 1.3)),
    "narrow elements": PARALLEL.replace(detectors=61, detector_mm=0.45),
    "flat": FAN.replace(detector_offset_mm=0.4, axis_offset_mm=-0.9),
    "curved": FAN.replace(detector="curved"),
    "by vectors": VectorFanGeometry.from_fan(FAN),
    "one pixel": ParallelGeometry(image_shape=(1, 1), pixel_mm=1.0, views=3, detectors=1, detector_mm=1.0),
}


@pytest.fixture(scope="module")
def device() -> torch.device:
    """Where the kernels run; ``tests/conftest.py`` asks for the interpreter where there is no GPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(autouse=True)
def tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few large programs: the interpreter runs them one after the other."""
    monkeypatch.setattr(backend_module, "FORWARD_TILE", Tile(rows=4, columns=64, lanes=64, warps=4))
    monkeypatch.setattr(backend_module, "ADJOINT_TILE", Tile(rows=32, columns=32, lanes=64, warps=4))


def tiny(name: str) -> Any:
    return SCANS[name].replace(image_shape=(9, 7))


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) - 0.3


def error(found: Tensor, expected: Tensor) -> float:
    return float((found.cpu().double() - expected).norm() / expected.norm().clamp_min(1e-30))


@pytest.mark.parametrize("name", SCANS)
def test_agrees_with_the_cpu(name: str, device: torch.device) -> None:
    """With the stored matrix in double precision, and with the kernels of the CPU in single precision."""
    geometry = SCANS[name]
    op, exact = RayTransform(geometry, "triton"), RayTransform(geometry, "matrix")
    x, y = drawn(3, *op.domain_shape), drawn(3, *op.range_shape, seed=1)
    assert op.matched and op.backend == "triton"
    assert error(op(x.to(device)), exact(x.double())) < 1e-6
    assert error(op.adjoint(y.to(device)), exact.adjoint(y.double())) < 1e-6
    pytest.importorskip("numba")
    kernels = RayTransform(geometry, "joseph")
    assert error(op(x.to(device)), kernels(x).double()) < 1e-5
    assert error(op.adjoint(y.to(device)), kernels.adjoint(y).double()) < 1e-5


@settings(max_examples=12, deadline=None, derandomize=True)
@given(data=st.data())
def test_agrees_on_random_scans(random_geometries: Any, device: torch.device, data: st.DataObject) -> None:
    geometry = data.draw(random_geometries(size=7))
    op, exact = RayTransform(geometry, "triton"), RayTransform(geometry, "matrix")
    x, y = drawn(2, *op.domain_shape), drawn(2, *op.range_shape, seed=1)
    ax, aty = exact(x.double()), exact.adjoint(y.double())
    torch.testing.assert_close(op(x.to(device)).cpu().double(), ax, rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(op.adjoint(y.to(device)).cpu().double(), aty, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("name", ["parallel", "flat", "curved"])
def test_inner_products_agree(name: str, device: torch.device) -> None:
    """``<A x, y> = <x, A^T y>``, for numbers of both signs and for ``y = A x``."""
    op = RayTransform(SCANS[name], "triton")
    x, y = drawn(2, *op.domain_shape).to(device), drawn(2, *op.range_shape, seed=1).to(device)
    for given_y in (y, op(x)):
        ax, aty = op(x).double(), op.adjoint(given_y).double()
        left, right = float((ax * given_y).sum()), float((x * aty).sum())
        assert abs(left - right) < 1e-6 * float(ax.norm() * given_y.norm())


@pytest.mark.parametrize("name", ["parallel", "flat", "curved", "narrow elements"])
def test_the_adjoint_is_the_transpose_bit_for_bit(name: str, device: torch.device) -> None:
    """Both matrices, column by column: an image of one pixel, a sinogram of one ray."""
    op = RayTransform(tiny(name), "triton")
    pixels, rays = 9 * 7, op.range_shape[0] * op.range_shape[1]
    columns = op(torch.eye(pixels, device=device).reshape(-1, *op.domain_shape)).reshape(pixels, rays)
    rows = op.adjoint(torch.eye(rays, device=device).reshape(-1, *op.range_shape)).reshape(rays, pixels)
    assert torch.equal(columns, rows.T)
    assert (columns > 0).any(1).all()


def test_neither_batch_nor_tile_changes_a_bit(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    geometry = tiny("flat")
    x, y = drawn(5, *geometry.image_shape).to(device), drawn(5, *geometry.sinogram_shape, seed=1).to(device)
    whole = TritonBackend(geometry)
    ax, aty = whole.forward(x), whole.adjoint(y)
    for tile, lanes in itertools.product(((2, 16), (1, 32)), (1, 4)):
        other = TritonBackend(geometry)
        other.forward_tile = other.adjoint_tile = Tile(*tile, lanes=lanes, warps=2)
        assert torch.equal(other.forward(x[1:3]), ax[1:3]) and torch.equal(other.adjoint(y[1:3]), aty[1:3])
    assert torch.equal(whole.forward(x[4:]), ax[4:]) and torch.equal(whole.adjoint(y[4:]), aty[4:])
    # Offsets are 32-bit numbers, so a larger batch goes in parts: here two images each.
    monkeypatch.setattr(backend_module, "_MOST_VALUES", 2 * max(x[0].numel(), y[0].numel()))
    sizes: list[int] = []
    project = whole._project
    monkeypatch.setattr(whole, "_project", lambda image, out: sizes.append(image.shape[-1]) or project(image, out))
    assert torch.equal(whole.forward(x), ax) and torch.equal(whole.adjoint(y), aty)
    assert sizes == [2, 2, 1]
    assert whole.forward(x[:0]).shape == (0, *geometry.sinogram_shape)


@pytest.mark.parametrize("name", ["parallel", "flat"])
def test_half_precision_is_of_the_storage_alone(name: str, device: torch.device) -> None:
    """As if the input had been rounded to 11 bits, and everything else were single precision."""
    single, half = RayTransform(tiny(name), "triton"), RayTransform(tiny(name), "triton_fp16")
    x, y = drawn(2, *single.domain_shape).to(device), drawn(2, *single.range_shape, seed=1).to(device)
    for call, full, given_x in ((half, single, x), (half.adjoint, single.adjoint, y)):
        result = call(given_x)
        assert result.dtype == torch.float32
        assert torch.equal(result, full(given_x.half().float()))
        assert not torch.equal(result, full(given_x))
        # Attenuation in 1/mm and residuals with photon weights are far apart: neither is lost.
        for factor in (2.0**-40, 2.0**40, 0.0):
            assert torch.equal(call(given_x * factor), result * factor)
    assert half.backend == "triton_fp16" and half.matched


def test_differentiates_and_crosses_to_another_process(device: torch.device) -> None:
    op = RayTransform(tiny("parallel"), "triton")
    x = drawn(2, *op.domain_shape).to(device).requires_grad_()
    v = drawn(2, *op.range_shape, seed=1).to(device)
    (gradient,) = torch.autograd.grad((op(x) * v).sum(), x)
    assert torch.equal(gradient, op.adjoint(v))
    for backend in ("triton", "triton_fp16"):
        operator = RayTransform(op.geometry, backend)
        assert torch.equal(pickle.loads(pickle.dumps(operator))(x.detach()), operator(x.detach()))


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="for parallel and fan beams"):
        RayTransform(ConeGeometry.for_image((6, 8, 9), 1.0, 5), "triton")
    op = RayTransform(PARALLEL, "triton")
    with pytest.raises(TypeError, match=r"computes in \(torch.float32,\)"):
        op(drawn(*op.domain_shape).double())
    monkeypatch.setattr(op._backend._kernels, "INTERPRETED", False)
    with pytest.raises(ValueError, match="backend 'triton' works on CUDA tensors, got one on cpu"):
        op(drawn(*op.domain_shape))


@pytest.mark.slow
@pytest.mark.parametrize("make", [ParallelGeometry, FanGeometry])
def test_agrees_at_full_size(make: Any, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """256 x 256 pixels, where positions along a ray have the fewest bits after the point."""
    monkeypatch.setattr(backend_module, "FORWARD_TILE", Tile(rows=4, columns=512, lanes=64, warps=8))
    monkeypatch.setattr(backend_module, "ADJOINT_TILE", Tile(rows=64, columns=256, lanes=64, warps=8))
    geometry = make.for_image((256, 256), 1.5, 15)
    op, exact = RayTransform(geometry, "triton"), RayTransform(geometry, "matrix")
    x, y = drawn(2, *op.domain_shape), drawn(2, *op.range_shape, seed=1)
    assert error(op(x.to(device)), exact(x.double())) < 1e-5
    assert error(op.adjoint(y.to(device)), exact.adjoint(y.double())) < 1e-5


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from deft_ct.operators.ct.backends import _triton_kernels as kernels

def compiled(kernel, types, constants, warps=8):
    names = kernel.arg_names
    signature = dict(zip(names, types)) | dict.fromkeys(constants, "constexpr")
    assert set(signature) == set(names)
    source = ASTSource(kernel, signature, constants)
    options = {"num_warps": warps, "enable_fp_fusion": False}
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)

forward = dict(VIEWS=4, ELEMENTS=16, LANES=64)
adjoint = dict(NEAR=3, ROWS=8, COLUMNS=8, LANES=64)
for stored in ("*fp32", "*fp16"):
    rays = [stored, "*fp32", "*fp32", "*fp32", "*fp32"]
    one = compiled(kernels.project_batch, [*rays, "*i8", "*i32", "*i32", *5 * ["i32"]], forward)
    two = compiled(kernels.backproject_batch, [*rays, "*i16", "*i32", "*i32", *6 * ["i32"]], adjoint)
    for kernel in (one, two):
        print("atom" in kernel.asm["ptx"], len(kernel.asm["cubin"]) > 1000)
"""


@pytest.mark.slow
def test_a_compiler_takes_the_kernels_and_needs_no_atomics() -> None:
    """For the processor of an H100 or H200; that takes no GPU."""
    pytest.importorskip("triton.backends.nvidia.compiler", reason="this Triton has no compiler for NVIDIA's GPUs")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False", "True"] * 4
