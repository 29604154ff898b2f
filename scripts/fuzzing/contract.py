"""What a reader may do with damaged input, and how much memory it took."""

from __future__ import annotations

import re
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).resolve().parents[1]
"""Frames from here are those of the fuzzer itself."""


def judged(call: Callable[[], Any]) -> str | None:
    """None where a call keeps the contract, else what it did: the exception and where it was raised."""
    import numpy as np
    import torch

    from deft_ct.io.errors import ReadError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = call()
    except ReadError:
        return None
    except BaseException as error:  # noqa: BLE001
        frames = traceback.extract_tb(error.__traceback__)
        places = [f for f in frames if SCRIPTS not in Path(f.filename).resolve().parents]
        ours = bool(places) and re.search(r"(deft_ct|operators|datasets)/", places[-1].filename) is not None
        # Errors of arguments and of names are plain; anything else, or one raised by a library, is an accident.
        plain = type(error) in (ValueError, FileNotFoundError) or type(error).__module__.startswith("deft_ct")
        if ours and plain and isinstance(error, ValueError | OSError):
            return None
        where = f"{Path(places[-1].filename).name}:{places[-1].name}" if places else "?"
        inner = [f for f in places if re.search(r"(deft_ct|operators|datasets)/", f.filename)]
        mine = f" from {Path(inner[-1].filename).name}:{inner[-1].lineno}" if inner else ""
        return f"{type(error).__name__} in {where}{mine}: {str(error)[:160]}"
    values = result.numpy() if isinstance(result, torch.Tensor) else result
    if isinstance(values, np.ndarray) and not np.isfinite(values).all():
        return "a result that is not finite"
    return None


def memory() -> int:
    """Peak resident bytes of this process and of the one that reads for it."""
    import psutil

    total = 0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
            total += 1024 * int(status.split("VmHWM:")[1].split()[0])
        except (OSError, IndexError, psutil.Error):
            continue
    return total
