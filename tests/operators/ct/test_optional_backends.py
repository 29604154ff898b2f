"""Backends of other libraries: ODL on the CPU; ASTRA and tomosipo on a GPU, as far as a CPU can tell."""

from __future__ import annotations

import copy
import json
import math
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deft_ct.operators.ct import ConeGeometry, FanGeometry, ParallelGeometry, RayTransform
from deft_ct.operators.ct.backends import backend_names, cuda
from deft_ct.operators.ct.convert import from_astra
from deft_ct.testing import assert_adjoint, assert_batch_invariant, assert_linear

PARALLEL = ParallelGeometry.for_image((20, 24), 1.0, 12).replace(detector_offset_mm=0.4, axis_offset_mm=-0.9)
FAN = FanGeometry.for_image((24, 24), 1.0, 10, source_to_center_mm=60, source_to_detector_mm=100)
FAN = FAN.replace(detector_offset_mm=0.4, axis_offset_mm=-0.9)
CONE = ConeGeometry.for_image((6, 8, 9), 1.0, 5, source_to_center_mm=60, source_to_detector_mm=100)
CONE = CONE.replace(detector_offset_mm=(0.3, -0.4), pitch_mm=2.0)


@pytest.fixture(scope="module")
def odl():
    from deft_ct.operators.interop import import_odl

    pytest.importorskip("astra")
    try:
        return import_odl()
    except ImportError:
        pytest.skip("ODL is not installed")


@pytest.mark.filterwarnings("ignore")  # ODL's own
@pytest.mark.parametrize("geometry", [PARALLEL, FAN], ids=["parallel", "fan"])
@pytest.mark.parametrize("uniform", [True, False])
def test_odl_is_astra_with_the_plain_transpose(odl, geometry, uniform):
    if geometry is PARALLEL:
        geometry = geometry.replace(axis_offset_mm=geometry.detector_offset_mm)
    if not uniform:
        geometry = geometry.replace(angles=[-0.3, 0.1, 0.2, 1.9, 2.8])
    op, astra = RayTransform(geometry, "odl"), RayTransform(geometry, "astra")
    assert op.matched
    assert_adjoint(op, dtype=torch.float32)
    assert_linear(op, dtype=torch.float32)
    assert_batch_invariant(op, batch=3)
    x = torch.rand(2, 1, *geometry.image_shape, generator=torch.Generator().manual_seed(0))
    y = astra(x)
    torch.testing.assert_close(op(x), y, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(op.adjoint(y), astra.adjoint(y), rtol=1e-4, atol=1e-2)
    assert torch.equal(copy.deepcopy(op)(x), op(x))


@pytest.mark.filterwarnings("ignore")
def test_odl_says_what_it_cannot_do(odl, monkeypatch):
    with pytest.raises(ValueError, match="curved"):
        RayTransform(FAN.replace(detector="curved"), "odl")
    with pytest.raises(ValueError, match="square pixels"):
        RayTransform(FAN.replace(pixel_mm=(1.0, 1.1)), "odl")
    with pytest.raises(ValueError, match="no 3D projector"):
        RayTransform(CONE, "odl")
    with pytest.raises(ValueError, match="ignores the offset of a parallel detector"):
        RayTransform(PARALLEL, "odl")
    with pytest.raises(TypeError, match="float32"):
        RayTransform(PARALLEL.replace(axis_offset_mm=0.4), "odl")(torch.rand(20, 24, dtype=torch.float64))
    for missing in ("astra", "odl"):  # ODL's projectors are ASTRA's
        monkeypatch.setitem(sys.modules, missing, None)
        with pytest.raises(ImportError, match=rf"pip install deft-ct\[{missing}\]"):
            RayTransform(FAN, "odl")


def test_names():
    assert backend_names() == [
        "auto", "astra", "astra_cuda", "joseph", "matrix", "odl", "symmetric", "tomosipo", "triton", "triton_fp16"
    ]  # fmt: skip


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
@pytest.mark.parametrize("name", ["astra_cuda", "tomosipo"])
@pytest.mark.parametrize("geometry", [PARALLEL, CONE], ids=["parallel", "cone"])
def test_no_gpu_is_said_before_astra_is_called(name, geometry, monkeypatch):
    astra = pytest.importorskip("astra")

    def never(*_, **__):
        raise AssertionError("ASTRA was called without a GPU")

    monkeypatch.setattr(astra, "create_projector", never)
    with pytest.raises(RuntimeError, match=f"backend '{name}' needs a CUDA device"):
        RayTransform(geometry, name)


def test_geometries_that_they_lack():
    pytest.importorskip("astra")
    with pytest.raises(ValueError, match="tomosipo has no fan"):
        RayTransform(FAN, "tomosipo")
    with pytest.raises(ValueError, match="curved"):
        RayTransform(FAN.replace(detector="curved"), "astra_cuda")
    with pytest.raises(ValueError, match="square pixels"):
        RayTransform(FAN.replace(pixel_mm=(1.0, 1.1)), "astra_cuda")


def stand_in() -> SimpleNamespace:
    """ASTRA's interface on the CPU, computed by our projector from the geometries that it is handed."""
    made: list[tuple] = []

    def create(kind, projection, volume):
        made.append((RayTransform(from_astra(volume, projection), "matrix"), kind, projection))
        return len(made) - 1

    def direct(adjoint, dimensions):
        def run(number, source, *, out):
            op, kind, projection = made[number]
            assert kind == ("cuda3d" if dimensions == 3 else "cuda")
            assert source.ndim == out.ndim == dimensions
            assert source.is_contiguous()
            assert out.is_contiguous()
            if dimensions == 2:
                out.copy_(op.adjoint(source) if adjoint else op(source))
                return
            cone = isinstance(op.geometry, ConeGeometry)
            if not cone:
                assert projection["DetectorRowCount"] == len(out) == len(source)
            # Rows of 3D volumes count upwards; data are (detector rows, views, columns).
            if adjoint:
                out.copy_(op.adjoint(source.movedim(0, 1) if cone else source).flip(-2))
            else:
                result = op(source.flip(-2))
                out.copy_(result.movedim(1, 0) if cone else result)

        return run

    def namespace(dimensions):
        return SimpleNamespace(
            direct_FP=direct(False, dimensions), direct_BP=direct(True, dimensions), delete=lambda number: None
        )

    return SimpleNamespace(create_projector=create, projector=namespace(2), projector3d=namespace(3))


@pytest.mark.parametrize("geometry", [PARALLEL, FAN, CONE], ids=["parallel", "fan", "cone"])
def test_layouts_of_the_cuda_backend(monkeypatch, geometry):
    """Flips, axes and batches; that ASTRA computes right is for the tests on a GPU."""
    monkeypatch.setattr(cuda, "require_cuda", lambda name: stand_in())
    monkeypatch.setattr(cuda.CudaBackend, "_check", lambda self, x: None)
    op, expected = RayTransform(geometry, "astra_cuda"), RayTransform(geometry, "matrix")
    assert not op.matched
    x = torch.rand(3, *geometry.image_shape, generator=torch.Generator().manual_seed(0))
    y = expected(x)
    torch.testing.assert_close(op(x), y, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(op.adjoint(y), expected.adjoint(y), rtol=1e-5, atol=1e-4)
    assert op(x[:0]).shape == (0, *op.range_shape)


def test_silent_failures_are_noticed(monkeypatch):
    fake = stand_in()
    fake.projector3d.direct_FP = lambda number, source, *, out: None
    monkeypatch.setattr(cuda, "require_cuda", lambda name: fake)
    monkeypatch.setattr(cuda.CudaBackend, "_check", lambda self, x: None)
    with pytest.raises(RuntimeError, match="returned no result"):
        RayTransform(PARALLEL, "astra_cuda")(torch.rand(2, 20, 24))


def test_host_tensors_are_refused(monkeypatch):
    monkeypatch.setattr(cuda, "require_cuda", lambda name: stand_in())
    with pytest.raises(ValueError, match=r"works on CUDA tensors, got one on cpu"):
        RayTransform(PARALLEL, "astra_cuda")(torch.rand(2, 20, 24))


@pytest.mark.gpu
@pytest.mark.parametrize("geometry", [PARALLEL, FAN, CONE], ids=["parallel", "fan", "cone"])
def test_matrix_on_the_gpu_has_an_exact_adjoint_in_both_types(geometry):
    for dtype, limit in ((torch.float32, 1e-6), (torch.float64, 1e-13)):
        op = RayTransform(geometry, "matrix").to("cuda")
        generator = torch.Generator("cuda").manual_seed(0)
        x = torch.randn(3, *op.domain_shape, generator=generator, device="cuda", dtype=dtype)
        y = torch.randn(3, *op.range_shape, generator=generator, device="cuda", dtype=dtype)
        ax, aty = op(x), op.adjoint(y)
        assert ax.is_cuda and aty.is_cuda and ax.dtype == aty.dtype == dtype
        left, right = float((ax.double() * y.double()).sum()), float((x.double() * aty.double()).sum())
        assert abs(left - right) < limit * float(ax.double().norm() * y.double().norm())


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["matrix", "triton", "astra_cuda", "tomosipo"])
@pytest.mark.parametrize("geometry", [PARALLEL, FAN, CONE], ids=["parallel", "fan", "cone"])
def test_gpu_agrees_with_the_cpu(name, geometry):
    exact = name in ("matrix", "triton")
    if name == "triton":
        pytest.importorskip("triton", reason="Triton is not installed")
        if geometry is CONE:
            pytest.skip("the Triton kernels have no cone beam")
    elif not exact:
        pytest.importorskip("astra")
    if name == "tomosipo":
        pytest.importorskip("tomosipo", reason="tomosipo is not installed")
        if geometry is FAN:
            pytest.skip("tomosipo has no fan beam")
    op, cpu = RayTransform(geometry, name).to("cuda"), RayTransform(geometry, "matrix")
    x = smooth(geometry)
    y = cpu(x)
    tolerance = 1e-5 if exact else 0.02  # other discretisations than ours
    on_gpu = op(x.cuda())
    assert on_gpu.is_cuda
    assert float((on_gpu.cpu() - y).norm() / y.norm()) < tolerance
    z = cpu.adjoint(y)
    assert float((op.adjoint(y.cuda()).cpu() - z).norm() / z.norm()) < max(tolerance, 0.05 * (not exact))


def watch(monkeypatch, astra) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Every (source, out) that ASTRA's direct calls are handed from now on."""
    handed: list[tuple[torch.Tensor, torch.Tensor]] = []

    def spied(call):
        def run(number, source, *, out):
            handed.append((source, out))
            return call(number, source, out=out)

        return run

    for module in (astra.projector, astra.projector3d):
        for name in ("direct_FP", "direct_BP"):
            monkeypatch.setattr(module, name, spied(getattr(module, name)))
    return handed


def addresses(tensors) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors]


def assert_on_torchs_memory(op, handed, x) -> None:
    """ASTRA writes into the sinogram that the caller gets, and reads the sinogram that the caller gives.

    Images are turned upside down on their way in and out, which takes a tensor of its own; sinograms go as they are.
    """
    y = op(x)
    stack = isinstance(op.geometry, ParallelGeometry)
    assert addresses(out for _, out in handed) == addresses([y] if stack else y)
    handed.clear()
    given = y.clone()
    op.adjoint(given)
    assert addresses(source for source, _ in handed) == addresses([given] if stack else given)


@pytest.mark.parametrize("geometry", [PARALLEL, FAN], ids=["parallel", "fan"])
def test_astra_is_handed_torchs_memory(monkeypatch, geometry):
    """The logic of the test on a GPU, on what stands in for ASTRA."""
    fake = stand_in()
    monkeypatch.setattr(cuda, "require_cuda", lambda name: fake)
    monkeypatch.setattr(cuda.CudaBackend, "_check", lambda self, x: None)
    handed = watch(monkeypatch, fake)
    assert_on_torchs_memory(RayTransform(geometry, "astra_cuda"), handed, torch.rand(3, *geometry.image_shape))


def test_astra_on_the_cpu_works_on_torchs_memory(monkeypatch):
    astra = pytest.importorskip("astra")
    handed = watch(monkeypatch, astra)
    op, x = RayTransform(PARALLEL, "astra"), torch.rand(2, *PARALLEL.image_shape)
    y = op(x)
    assert sorted(addresses(source for source, _ in handed)) == addresses(x)
    assert sorted(addresses(out for _, out in handed)) == addresses(y)


def host_copies(run, folder) -> int:
    """Bytes that cross between host and GPU during a call, whichever library copies them, by CUDA's own records."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the profiler's own, on the clock or the buffers of some drivers
        with torch.profiler.profile(activities=activities) as profile:
            run()
            torch.cuda.synchronize()
    profile.export_chrome_trace(str(folder / "trace.json"))
    return crossing((folder / "trace.json").read_text())


def crossing(trace: str) -> int:
    events = json.loads(trace)["traceEvents"]
    copies = [event for event in events if event.get("cat") == "gpu_memcpy"]
    return sum(int(event["args"]["bytes"]) for event in copies if "HtoD" in event["name"] or "DtoH" in event["name"])


def test_copies_are_counted():
    def copy(name: str, size: int) -> dict[str, object]:
        return {"ph": "X", "cat": "gpu_memcpy", "name": name, "args": {"bytes": size}}

    events = [
        copy("Memcpy HtoD (Pageable -> Device)", 5), copy("Memcpy DtoH (Device -> Pinned)", 7),
        copy("Memcpy DtoD (Device -> Device)", 100), {"ph": "X", "cat": "kernel", "name": "HtoD", "args": {}},
    ]  # fmt: skip
    assert crossing(json.dumps({"traceEvents": events})) == 12


@pytest.mark.gpu
@pytest.mark.parametrize("geometry", [PARALLEL, FAN], ids=["parallel", "fan"])
def test_astra_on_a_gpu_works_on_torchs_memory(monkeypatch, geometry):
    astra = pytest.importorskip("astra")
    if not astra.use_cuda():
        pytest.skip("ASTRA finds no GPU")
    op = RayTransform(geometry, "astra_cuda").to("cuda")
    handed = watch(monkeypatch, astra)
    assert_on_torchs_memory(op, handed, torch.rand(3, *geometry.image_shape, device="cuda"))
    assert all(source.is_cuda and out.is_cuda for source, out in handed)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["matrix", "triton", "astra_cuda"])
@pytest.mark.parametrize("kind", ["parallel", "fan"])
def test_gpu_copies_no_data_to_or_from_the_host(name, kind, tmp_path):
    if name == "triton":
        pytest.importorskip("triton", reason="Triton is not installed")
    if name == "astra_cuda" and not pytest.importorskip("astra").use_cuda():
        pytest.skip("ASTRA finds no GPU")
    # Large enough that angles, and the one number that says whether ASTRA computed anything, are nothing beside them.
    geometry = {"parallel": ParallelGeometry, "fan": FanGeometry}[kind].for_image((256, 256), 1.0, 60)
    op = RayTransform(geometry, name).to("cuda")
    x = torch.rand(8, *geometry.image_shape, device="cuda")
    y = op(x)
    op.adjoint(y)  # builds what is built once
    least = min(x.nbytes, y.nbytes)
    assert host_copies(x.cpu, tmp_path) >= x.nbytes  # the profiler does see a copy
    most = least // 20 if name == "astra_cuda" else 1
    assert host_copies(lambda: op(x), tmp_path) < most
    assert host_copies(lambda: op.adjoint(y), tmp_path) < most
    if name == "astra_cuda":
        # The result, and images turned upside down on their way to and from ASTRA (twice for a fan, whose rows count
        # downwards again in two dimensions): nothing else of that size on torch's side.
        turned = 1 if kind == "parallel" else 2
        for call, argument, expected in ((op, x, turned * x.nbytes + y.nbytes), (op.adjoint, y, 2 * x.nbytes)):
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            call(argument)
            assert torch.cuda.max_memory_allocated() - before < expected + least // 2


def smooth(geometry) -> torch.Tensor:
    axes = [np.linspace(-1, 1, n) for n in geometry.image_shape]
    squares = sum(a**2 for a in np.meshgrid(*axes, indexing="ij"))
    return torch.from_numpy(np.exp(-3 * squares)).float()[None] * math.pi


@settings(max_examples=10, deadline=None, derandomize=True)
@given(data=st.data())
def test_odl_on_random_scans(random_geometries, data):
    pytest.importorskip("astra")
    pytest.importorskip("odl")
    geometry = data.draw(random_geometries(kinds=("parallel", "flat"), size=8))
    geometry = geometry.replace(pixel_mm=geometry.pixel_rc[0], angles=sorted({round(a, 3) for a in geometry.angles}))
    if isinstance(geometry, ParallelGeometry):
        geometry = geometry.replace(axis_offset_mm=geometry.detector_offset_mm)
    op = RayTransform(geometry, "odl")
    assert_adjoint(op, dtype=torch.float32)
    x = torch.rand(geometry.image_shape)
    torch.testing.assert_close(op(x), RayTransform(geometry, "astra")(x), rtol=1e-3, atol=1e-3)
