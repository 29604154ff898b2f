"""Numba kernels of the stored matrix: a sparse matrix in packed rows times several vectors (lanes) at once.

The vectors lie lane-last, so that one column of all lanes is one vector load. Eight sums grow side by side, because
each addition waits for the one before it. They are added up in one order, whatever the numbers of lanes and of threads.
So an image has the same bits alone and in any batch.

Loads set the speed. So four values are loaded at once, and as many column numbers as fit into a word of 64 bits.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from deft_ct.operators.ct.backends._compile import compiled
from deft_ct.operators.ct.backends._vector_kernels import address_of, fused_multiply_add, vector_type

GROUP = 8
"""Number of sums. A row has a multiple of it entries."""

_FOUR = 4
_WORD = ir.IntType(64)
_INT32 = ir.IntType(32)


def _four_columns(builder: Any, data: Any, n: Any, bits: int) -> list[Any]:
    """The column numbers ``n`` to ``n + 3``, from words of 64 bits."""
    together = 64 // bits
    found = []
    for first in range(0, _FOUR, together):
        place = builder.gep(data, [builder.add(n, ir.Constant(n.type, first))])
        word = builder.load(builder.bitcast(place, _WORD.as_pointer()), align=bits // 8)
        for k in range(together):
            part = builder.lshr(word, ir.Constant(_WORD, bits * k))
            found.append(builder.and_(part, ir.Constant(_WORD, 2**bits - 1)))
    return found


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def _row_product(
    typingctx: Any, lanes: Any, values: Any, columns: Any, begin: Any, end: Any, x: Any, out: Any, row: Any
) -> Any:
    """``out[:, row] = sum of values[n] * x[columns[n]] for n in [begin, end)``; the range has a multiple of 8 entries.

    A single lane holds its sums in two vectors of four; several lanes have a vector of lanes for each sum.
    """
    sig = types.void(lanes, values, columns, types.intp, types.intp, x, out, types.intp)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        width = lanes.literal_value
        scalar, vector, align = vector_type(signature, 1, width if width > 1 else _FOUR)
        _, _, _, first, last, _, _, target = args
        pitch = first.type
        four = ir.VectorType(scalar, _FOUR)
        value_data = context.make_array(signature.args[1])(context, builder, args[1]).data
        column_data = context.make_array(signature.args[2])(context, builder, args[2]).data
        zero = ir.Constant(vector, [0.0] * vector.count)
        sums = [cgutils.alloca_once_value(builder, zero) for _ in range(GROUP if width > 1 else GROUP // _FOUR)]
        fma = fused_multiply_add(builder.module, vector, align)

        def vector_at(column: Any, kind: Any) -> Any:
            at = builder.mul(column, ir.Constant(pitch, width))
            return builder.load(address_of(context, builder, signature, args, 5, at, kind), align=align)

        def add(total: Any, value: Any, seen: Any) -> None:
            builder.store(builder.call(fma, [value, seen, builder.load(total)]), total)

        with cgutils.for_range_slice(builder, first, last, ir.Constant(pitch, GROUP), pitch) as (n, _):
            for part in range(GROUP // _FOUR):
                at = builder.add(n, ir.Constant(pitch, _FOUR * part))
                place = builder.bitcast(builder.gep(value_data, [at]), four.as_pointer())
                value = builder.load(place, align=align)
                together = ir.Constant(four, ir.Undefined)
                for k, column in enumerate(_four_columns(builder, column_data, at, columns.dtype.bitwidth)):
                    if width == 1:
                        number = builder.load(address_of(context, builder, signature, args, 5, column, scalar))
                        together = builder.insert_element(together, number, ir.Constant(_INT32, k))
                    else:
                        same = ir.Constant(ir.VectorType(_INT32, width), [k] * width)
                        spread = builder.shuffle_vector(value, ir.Constant(four, ir.Undefined), same)
                        add(sums[_FOUR * part + k], spread, vector_at(column, vector))
                if width == 1:
                    add(sums[part], value, together)

        parts = [builder.load(total) for total in sums]
        if width == 1:
            parts = [builder.extract_element(part, ir.Constant(_INT32, k)) for part in parts for k in range(_FOUR)]
        while len(parts) > 1:
            half = len(parts) // 2
            parts = [builder.fadd(a, b) for a, b in zip(parts[:half], parts[half:], strict=True)]
        array = context.make_array(signature.args[6])(context, builder, args[6])
        (_, rows) = cgutils.unpack_tuple(builder, array.shape)
        for lane in range(width):
            index = builder.add(builder.mul(rows, ir.Constant(pitch, lane)), target)
            number = parts[0] if width == 1 else builder.extract_element(parts[0], ir.Constant(_INT32, lane))
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


@compiled  # type: ignore[untyped-decorator]
def fill_rows(values, columns, ends, padded_ends, padded_values, padded_columns):  # type: ignore[no-untyped-def]
    """Copy rows to longer ones. What is left of a row has the value zero, in the column of its last entry."""
    for row in range(len(ends) - 1):
        first, last, target = ends[row], ends[row + 1], padded_ends[row]
        for n in range(first, last):
            padded_values[target] = values[n]
            padded_columns[target] = columns[n]
            target += 1
        for rest in range(target, padded_ends[row + 1]):
            padded_values[rest] = 0
            padded_columns[rest] = columns[last - 1]
