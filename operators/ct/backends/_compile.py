"""The decorator of the Numba kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a kernel on first use, and keep it on the disk where that is possible.

    Numba refuses to decorate a function whose compiled form it cannot keep: neither beside the file nor in the cache
    folder of the user, as in a container with a read-only file system. The kernel is then compiled in every process,
    which takes seconds. No folder for all users, such as /tmp, is used: whoever writes there could run code here.
    """
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # "cannot cache function ...: no locator available"
        return njit(nogil=True)(function)
