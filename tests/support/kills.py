"""Kill commands at random times, run them again, and compare with an unbroken run.

    PYTHONPATH=.:tests/support python tests/support/kills.py --kills 500 --seed 0 --folder FOLDER

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
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tiny import tiny_htransform, tiny_prior
from tiny_pack import write_tiny_pack
from typer.testing import CliRunner

from deft_ct.cli import app
from deft_ct.diffusion import load_prior, save_prior
from deft_ct.io import sample_series_path
from deft_ct.methods.deft import load_htransform, save_htransform
from deft_ct.methods.supervised.fbp_unet import FBPUNetModel

SCAN = ("--scan", "parallel12_1e5_48bins")
STEPS = ("--steps", 6, "--batch-size", 2, "--no-progress")
Read = Callable[[Path], Any]


def commands(root: Path) -> dict[str, tuple[list[object], Read]]:
    """Name -> arguments without --out, and what the result is."""
    prior, head, pack = root / "prior", root / "head", root / "val.h5"
    save_prior(tiny_prior(), prior)
    save_htransform(tiny_htransform(tiny_prior(), reference="fbp"), head)
    write_tiny_pack(pack, count=2)
    data = ("--data", pack)
    networks = ("--prior", prior, "--htransform", head)
    fbp_only = ("--method", "fbp", "--compare", "", "--views", 12, "--size", 32, "--overwrite", "--no-progress")
    small = ("--channels", "32,32", "--patch", 2)
    return {
        "reconstruct": (["reconstruct", sample_series_path(), *fbp_only], _run),
        "compare": (
            ["compare", *data, "--every", 1, *SCAN, "--method", "fbp", "--method", "sirt:iterations=5"],
            _table,
        ),
        "tune": (["tune", "fbp", *data, "--every", 1, *SCAN, "--trials", 6], _preset),
        "calibrate": (
            ["calibrate", "deft:steps=2", *data, "--every", 1, *SCAN, "--samples", 2, *networks, "--no-progress"],
            _factor,
        ),
        "train prior": (["train", "prior", *data, *small, *STEPS], lambda p: load_prior(p / "prior").content_hash()),
        "train fbp-unet": (
            ["train", "fbp-unet", *data, *SCAN, *small, *STEPS],
            lambda p: FBPUNetModel.load(p / "model").content_hash(),
        ),
        "finetune": (
            ["finetune", *data, *SCAN, *STEPS, "--prior", prior, "--initial", head],
            lambda p: load_htransform(p / "htransform").content_hash(),
        ),
    }


def _run(out: Path) -> Any:
    record = json.loads((out / "run.json").read_text())
    assert all((out / name).is_file() for name in record["files"]) and len(list(out.rglob("*.dcm"))) == 8
    return [row["metrics"] for row in record["metrics"]]


def _table(out: Path) -> Any:
    cells = json.loads((out / "comparison.json").read_text())["cells"]
    return [cell["summary"] for cell in cells]


def _preset(out: Path) -> Any:
    [path] = (out / "presets").rglob("fbp.json")
    return json.loads(path.read_text())["options"]


def _factor(out: Path) -> Any:
    [path] = out.glob("calibration-*.json")
    return json.loads(path.read_text())["factor"]


def fork(arguments: list[object], out: Path, kill_after: float | None) -> int:
    """Run a command in a fork; returns its exit status, or minus the signal that ended it."""
    child = os.fork()
    if not child:
        done = CliRunner().invoke(app, [str(a) for a in (*arguments, "--out", out)])
        if done.exit_code:
            sys.stderr.write(f"{arguments[:2]}: {done.output[-600:]}\n")
            sys.stderr.flush()
        os._exit(done.exit_code)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def leftovers(folder: Path) -> list[str]:
    """Hidden files and folders: locks and unfinished results."""
    return [str(p.relative_to(folder)) for p in folder.rglob(".*")]


def main() -> None:
    """Kill, resume, compare, and print the counts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    options.folder.mkdir(parents=True)
    rng, began, problems = random.Random(options.seed), time.monotonic(), []
    known = {}
    for name, (arguments, read) in commands(options.folder).items():
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
            if name != "reconstruct":
                (work / "out" / "thesis.txt").write_text("of the user")
            hit = fork(arguments, work / "out", rng.uniform(0, seconds)) == -signal.SIGKILL
            if fork(arguments, work / "out", None):
                problems.append(f"{name}: the next run failed")
            elif read(work / "out") != expected:
                problems.append(f"{name}: {read(work / 'out')} instead of {expected}")
            if name != "reconstruct" and (work / "out" / "thesis.txt").read_text() != "of the user":
                problems.append(f"{name}: a file of the user is lost")
            problems += [f"{name}: left {path}" for path in leftovers(work)]
            counts[name] += hit
            shutil.rmtree(work)
            sys.stderr.write(f"\r{sum(counts.values())} kills, {len(problems)} problems")
    sys.stdout.write(json.dumps({"kills": sum(counts.values()), "of": counts, "problems": problems}, indent=1) + "\n")
    raise SystemExit(bool(problems))


if __name__ == "__main__":
    main()
