"""Numba kernel of the stored matrix: a sparse matrix in compressed rows times several vectors (lanes) at once.

The vectors lie lane-last, so that one column of all lanes is one vector load. Four sums grow side by side, because each
addition waits for the one before it. They are added up in one order, whatever the numbers of lanes and of threads. So
an image has the same bits alone and in any batch.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from deft_ct.operators.ct.backends._compile import compiled
from deft_ct.operators.ct.backends._vector_kernels import address_of, fused_multiply_add, splat, vector_type

_SUMS = 4


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def _row_product(
    typingctx: Any, lanes: Any, values: Any, columns: Any, begin: Any, end: Any, x: Any, out: Any, row: Any
) -> Any:
    """``out[:, row] = sum of values[n] * x[columns[n]] for n in [begin, end)``."""
    sig = types.void(lanes, values, columns, types.intp, types.intp, x, out, types.intp)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        width = lanes.literal_value
        _, vector, align = vector_type(signature, 1, width)
        _, _, _, first, last, _, _, target = args
        pitch = first.type

        def whole(number: int) -> Any:
            return ir.Constant(pitch, number)

        fma = fused_multiply_add(builder.module, vector, align)
        value_data = context.make_array(signature.args[1])(context, builder, args[1]).data
        column_data = context.make_array(signature.args[2])(context, builder, args[2]).data
        zero = ir.Constant(vector, [0.0] * width)
        sums = [cgutils.alloca_once_value(builder, zero) for _ in range(_SUMS)]

        def add(n: Any, total: Any) -> None:
            value = builder.load(builder.gep(value_data, [n]))
            column = context.cast(builder, builder.load(builder.gep(column_data, [n])), columns.dtype, types.intp)
            at = address_of(context, builder, signature, args, 5, builder.mul(column, whole(width)), vector)
            terms = [splat(builder, value, vector), builder.load(at, align=align), builder.load(total)]
            builder.store(builder.call(fma, terms), total)

        rest = builder.add(first, builder.and_(builder.sub(last, first), whole(-_SUMS)))
        with cgutils.for_range_slice(builder, first, rest, whole(_SUMS), pitch) as (n, _):
            for step, total in enumerate(sums):
                add(builder.add(n, whole(step)), total)
        with cgutils.for_range_slice(builder, rest, last, whole(1), pitch) as (n, _):
            add(n, sums[0])
        a, b, c, d = (builder.load(total) for total in sums)
        result = builder.fadd(builder.fadd(a, b), builder.fadd(c, d))
        array = context.make_array(signature.args[6])(context, builder, args[6])
        (_, rows) = cgutils.unpack_tuple(builder, array.shape)
        for lane in range(width):
            index = builder.add(builder.mul(rows, whole(lane)), target)
            number = builder.extract_element(result, ir.Constant(ir.IntType(32), lane))
            builder.store(number, builder.gep(array.data, [index]))
        return context.get_dummy_value()

    return sig, codegen


@compiled  # type: ignore[untyped-decorator]
def csr_product(values, columns, ends, x, first, last, out):  # type: ignore[no-untyped-def]
    """The rows ``first:last`` of a matrix times ``x``, ``(columns, lanes)``, into ``out``, ``(lanes, rows)``."""
    lanes = x.shape[1]
    for row in range(first, last):
        if lanes == 16:
            _row_product(16, values, columns, ends[row], ends[row + 1], x, out, row)
        elif lanes == 8:
            _row_product(8, values, columns, ends[row], ends[row + 1], x, out, row)
        elif lanes == 4:
            _row_product(4, values, columns, ends[row], ends[row + 1], x, out, row)
        else:
            _row_product(1, values, columns, ends[row], ends[row + 1], x, out, row)
