"""Run the benchmark of tests/evaluation/test_workers.py on two workers of a local Ray cluster, and kill one of them.

PYTHONPATH=tests/support python tests/support/ray_killed_worker.py PACK OUT LOG
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
import time
from pathlib import Path

from counted_method import counted_benchmark, logged

from deft_ct.evaluation.execution import RayCluster
from deft_ct.evaluation.runner import RunOptions, run_benchmark

SECONDS = 1.0


def main() -> None:
    """Kill the second worker that has measured something, while it measures."""
    pack, out, log = (Path(text) for text in sys.argv[1:])

    def kill_one() -> None:
        while len(found := list(dict.fromkeys(process for process, _, _ in logged(log)))) < 2:
            time.sleep(0.05)
        time.sleep(SECONDS / 2)
        os.kill(found[1], signal.SIGKILL)
        print(f"killed {found[1]}")  # noqa: T201

    threading.Thread(target=kill_one, daemon=True).start()
    options = RunOptions(
        engine=RayCluster("local", workers=2), make=functools.partial(counted_benchmark, pack, SECONDS)
    )
    run_benchmark(counted_benchmark(pack, SECONDS), out, options)


if __name__ == "__main__":
    main()
