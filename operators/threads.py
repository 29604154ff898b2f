"""Run compiled kernels on several threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch


def run_tasks(kernel: Callable[..., None], tasks: Sequence[tuple[Any, ...]]) -> None:
    """Call a kernel that releases the GIL with each of the arguments, on as many threads as PyTorch uses.

    Args:
        kernel: writes its result to a part of its arguments that no other task writes to.
        tasks: the arguments of each call.
    """
    workers = min(torch.get_num_threads(), len(tasks))
    if workers <= 1:
        for task in tasks:
            kernel(*task)
    else:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(lambda task: kernel(*task), tasks))
