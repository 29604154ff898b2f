"""Kill commands at random times, run them again, and compare with an unbroken run.

    PYTHONPATH=.:tests/support python tests/support/kills.py --kills 500 --seed 0 --folder FOLDER [--only COMMAND ...]

Every run is a fork of this process, which has everything imported, so that a kill can hit any part of the work.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from tiny_commands import REPLACED, commands, leftovers, small
from typer.testing import CliRunner

from deft_ct.cli import app


def fork(arguments: list[object], out: Path, kill_after: float | None) -> int:
    """Run a command in a fork; returns its exit status, or minus the signal that ended it."""
    child = os.fork()
    if not child:
        with small():
            done = CliRunner().invoke(app, [str(a) for a in (*arguments, "--out", out)])
        if done.exit_code:
            sys.stderr.write(f"{arguments[:2]}: {done.output[-600:]}\n")
            sys.stderr.flush()
        os._exit(done.exit_code)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    """Kill, resume, compare, and print the counts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--only", nargs="*", help="commands, for example 'train prior'; all if left out")
    options = parser.parse_args()
    options.folder.mkdir(parents=True)
    rng, began, problems = random.Random(options.seed), time.monotonic(), []
    known = {}
    for name, (arguments, read) in commands(options.folder).items():
        if options.only and name not in options.only:
            continue
        work = options.folder / "unbroken"
        started = time.monotonic()
        if fork(arguments, work / "out", None):
            problems.append(f"{name}: the unbroken run failed")
            continue
        known[name] = (arguments, read, read(work / "out"), time.monotonic() - started)
        shutil.rmtree(work)
    counts = dict.fromkeys(known, 0)
    with contextlib.suppress(KeyboardInterrupt):  # what was found until then is printed
        while known and sum(counts.values()) < options.kills and time.monotonic() - began < 60 * options.minutes:
            name = rng.choice(sorted(known))
            arguments, read, expected, seconds = known[name]
            work = options.folder / "killed"
            (work / "out").mkdir(parents=True)
            if name not in REPLACED:
                (work / "out" / "thesis.txt").write_text("of the user")
            hit = fork(arguments, work / "out", rng.uniform(0, seconds)) == -signal.SIGKILL
            if fork(arguments, work / "out", None):
                problems.append(f"{name}: the next run failed")
            elif read(work / "out") != expected:
                problems.append(f"{name}: {read(work / 'out')} instead of {expected}")
            if name not in REPLACED and (work / "out" / "thesis.txt").read_text() != "of the user":
                problems.append(f"{name}: a file of the user is lost")
            problems += [f"{name}: left {path}" for path in leftovers(work)]
            counts[name] += hit
            shutil.rmtree(work)
            sys.stderr.write(f"\r{sum(counts.values())} kills, {len(problems)} problems")
    sys.stdout.write(json.dumps({"kills": sum(counts.values()), "of": counts, "problems": problems}, indent=1) + "\n")
    raise SystemExit(bool(problems))


if __name__ == "__main__":
    main()
