"""Numba kernels of the matrix-free backend: interpolate along a ray for several images (lanes) at once.

The images lie batch-last, so that one pixel of all lanes is one vector load. Numba does not vectorise such a loop by
itself; the two intrinsics below spell it out in LLVM's vector types. Each lane sees the same operations for any number
of lanes, so the results do not depend on how a batch is cut.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from deft_ct.operators.ct.backends._compile import compiled


def vector_type(sig: Any, argument: int, lanes: int) -> tuple[ir.Type, ir.Type, int]:
    """The type of a number in an argument of a kernel, that of ``lanes`` of them, and the bytes of one."""
    double = sig.args[argument].dtype == types.float64
    scalar = ir.DoubleType() if double else ir.FloatType()
    return scalar, ir.VectorType(scalar, lanes), 8 if double else 4


def splat(builder: Any, value: Any, vector: Any) -> Any:
    """A vector of equal numbers."""
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, undefined, mask)


def fused_multiply_add(module: Any, vector: Any, size: int) -> Any:
    """LLVM's ``a * b + c`` with one rounding, for a vector of numbers of ``size`` bytes."""
    name = f"llvm.fma.v{vector.count}f{8 * size}"
    return cgutils.get_or_insert_function(module, ir.FunctionType(vector, [vector] * 3), name)


def address_of(context: Any, builder: Any, sig: Any, args: Any, argument: int, index: Any, vector: Any) -> Any:
    """Where the vector that begins at an index of an array argument lies."""
    data = context.make_array(sig.args[argument])(context, builder, args[argument]).data
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


def _interpolation(builder: Any, scalar: Any, k: Any, start: Any, slope: Any) -> tuple[Any, Any, Any]:
    """Cell of the ray on major line ``k`` and the weights of the cell and its neighbour."""
    double = ir.DoubleType()
    position = builder.fadd(start, builder.fmul(slope, builder.sitofp(k, double)))
    cell = builder.fptosi(position, k.type)
    fraction = builder.fsub(position, builder.sitofp(cell, double))
    rest = builder.fsub(ir.Constant(double, 1.0), fraction)
    if scalar != double:
        fraction, rest = builder.fptrunc(fraction, scalar), builder.fptrunc(rest, scalar)
    return cell, rest, fraction


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def _gather(
    typingctx: Any, lanes: Any, image: Any, stride: Any, first: Any, last: Any, start: Any, slope: Any, weight: Any,
    out: Any, ray: Any,
) -> Any:  # fmt: skip
    """``out[ray] = weight * sum over k in [first, last) of the interpolated image``, for ``lanes`` lanes."""
    sig = types.void(
        lanes, image, types.intp, types.intp, types.intp, types.float64, types.float64, types.float64, out, types.intp
    )

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        width = lanes.literal_value
        scalar, vector, align = vector_type(signature, 1, width)
        _, _, pitch, begin, end, a, b, scale, _, row = args
        zero = ir.Constant(vector, [0.0] * width)
        near, far = cgutils.alloca_once_value(builder, zero), cgutils.alloca_once_value(builder, zero)
        fma = fused_multiply_add(builder.module, vector, align)
        lanes_const = ir.Constant(pitch.type, width)
        with cgutils.for_range_slice(builder, begin, end, ir.Constant(pitch.type, 1), pitch.type) as (k, _):
            cell, w0, w1 = _interpolation(builder, scalar, k, a, b)
            index = builder.mul(builder.add(builder.mul(k, pitch), cell), lanes_const)
            for accumulator, share, at in ((near, w0, index), (far, w1, builder.add(index, lanes_const))):
                value = builder.load(address_of(context, builder, signature, args, 1, at, vector), align=align)
                total = builder.call(fma, [splat(builder, share, vector), value, builder.load(accumulator)])
                builder.store(total, accumulator)
        total = builder.fadd(builder.load(near), builder.load(far))
        scale = scale if align == 8 else builder.fptrunc(scale, scalar)
        target = address_of(context, builder, signature, args, 8, builder.mul(row, lanes_const), vector)
        builder.store(builder.fmul(total, splat(builder, scale, vector)), target, align=align)
        return context.get_dummy_value()

    return sig, codegen


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def _scatter(
    typingctx: Any, lanes: Any, image: Any, stride: Any, first: Any, last: Any, start: Any, slope: Any, weight: Any,
    data: Any, ray: Any,
) -> Any:  # fmt: skip
    """The transpose of :func:`_gather`: add ``weight * data[ray]`` along the ray to the image."""
    sig = types.void(
        lanes, image, types.intp, types.intp, types.intp, types.float64, types.float64, types.float64, data, types.intp
    )

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        width = lanes.literal_value
        scalar, vector, align = vector_type(signature, 1, width)
        _, _, pitch, begin, end, a, b, scale, _, row = args
        fma = fused_multiply_add(builder.module, vector, align)
        lanes_const = ir.Constant(pitch.type, width)
        scale = scale if align == 8 else builder.fptrunc(scale, scalar)
        source = address_of(context, builder, signature, args, 8, builder.mul(row, lanes_const), vector)
        value = builder.fmul(builder.load(source, align=align), splat(builder, scale, vector))
        with cgutils.for_range_slice(builder, begin, end, ir.Constant(pitch.type, 1), pitch.type) as (k, _):
            cell, w0, w1 = _interpolation(builder, scalar, k, a, b)
            index = builder.mul(builder.add(builder.mul(k, pitch), cell), lanes_const)
            for share, at in ((w0, index), (w1, builder.add(index, lanes_const))):
                pointer = address_of(context, builder, signature, args, 1, at, vector)
                old = builder.load(pointer, align=align)
                builder.store(builder.call(fma, [splat(builder, share, vector), value, old]), pointer, align=align)
        return context.get_dummy_value()

    return sig, codegen


@compiled  # type: ignore[untyped-decorator]
def project_rays(image, rays, start, slope, weight, first, last, begin, end, out):  # type: ignore[no-untyped-def]
    """Line integrals of the rays ``rays[begin:end]`` in a padded image ``(major, minor, lanes)``."""
    lanes, stride = image.shape[2], image.shape[1]
    for n in range(begin, end):
        r = rays[n]
        if lanes == 8:
            _gather(8, image, stride, first[r], last[r], start[r], slope[r], weight[r], out, r)
        elif lanes == 4:
            _gather(4, image, stride, first[r], last[r], start[r], slope[r], weight[r], out, r)
        else:
            _gather(1, image, stride, first[r], last[r], start[r], slope[r], weight[r], out, r)


@compiled  # type: ignore[untyped-decorator]
def backproject_rays(image, rays, start, slope, weight, first, last, begin, end, data):  # type: ignore[no-untyped-def]
    """Add the transpose of :func:`project_rays` to the major lines ``begin:end`` of the image."""
    lanes, stride = image.shape[2], image.shape[1]
    for n in range(len(rays)):
        r = rays[n]
        low, high = max(first[r], begin), min(last[r], end)
        if low >= high:
            continue
        if lanes == 8:
            _scatter(8, image, stride, low, high, start[r], slope[r], weight[r], data, r)
        elif lanes == 4:
            _scatter(4, image, stride, low, high, start[r], slope[r], weight[r], data, r)
        else:
            _scatter(1, image, stride, low, high, start[r], slope[r], weight[r], data, r)
