"""The commands that resume, each with a base run and changes of its options one at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate.state import AcceleratorState
from click.testing import Result
from typer.testing import CliRunner

from deft_ct.cli import app
from deft_ct.networks import UNetConfig

SCAN = "parallel12_1e5_48bins"
SMALL = UNetConfig(patch=2, channels=(32,), attention=(False,), norm_groups=8, scale_shift=True)


@dataclass(frozen=True)
class Command:
    """One command that resumes.

    Attributes:
        words: its name.
        base: options of the run that is resumed, by name without dashes; a list repeats the option.
        changes: option -> another value of it.
        free: options that may change on resuming, because no result depends on them, or because they say how long to go
            on; with the reason.
    """

    words: tuple[str, ...]
    base: Mapping[str, Any]
    changes: Mapping[str, Any]
    free: Mapping[str, str] = field(default_factory=dict)


FASTER = "changes speed and memory, not what is computed"
FREE = {
    "out": "names the folder", "progress": "shows bars", "overwrite": "asks for a fresh result",
    "max-minutes": "says how long to go on",
}  # fmt: skip
FREE_IN_TRAINING = {"compile": FASTER, "channels-last": FASTER, "tensorboard": "writes events"}
PHOTOGRAPHS = {name: "of photographs, refused with slices" for name in ("operator", "noise", "draws")}

LOOP = {
    "steps": 3, "batch-size": 4, "learning-rate": 1e-4, "optimizer": "adamw", "momentum": 0.5, "warmup": 3,
    "ema-decay": 0.5, "seed": 1, "accumulate": 2, "precision": "bfloat16",
}  # fmt: skip
SCANS = {"scan": ["parallel10_1e5_48bins"], "data": "other.h5"}
"""``--scan`` names the whole scan. Its parts are options of their own, see VALUES."""
VALUES = {"views": 10, "geometry": "fan", "degrees": 120, "start": 15, "photons": 1e4, "detectors": 40}

TRAIN = {"data": "one.h5", "steps": 2, "batch-size": 2, "scan": [SCAN], "channels": "32", "patch": 2}
COMMANDS = [
    Command(
        ("compare",),
        {"data": "one.h5", "every": 2, "scan": [SCAN], "method": ["fbp"], "samples": 1},
        SCANS | {
            "every": 3, "limit": 1, "method": ["fbp:filter=ram-lak"], "samples": 2, "seed": 1, "batch-size": 1,
        },
        {
            "prior": "see test_networks_of_a_comparison", "htransform": "same", "model": "same", "precision": "same",
            "presets": "see test_presets_of_a_comparison", "preset-folder": "same",
            "device": "there is one here; it is in the protocol", "operator": "of photographs, refused with slices",
            "pictures": "same",
        },
    ),
    Command(
        ("tune",),
        {"": "fbp", "data": "one.h5", "every": 2, "scan": [SCAN], "trials": 2, "samples": 1},
        SCANS | {
            "every": 3, "": "fbp:filter=hann", "objective": "rmse", "samples": 2, "seed": 1, "batch-size": 1,
        },
        {
            "trials": "says how long to go on", "prior": "see test_networks_of_a_search", "htransform": "same",
            "model": "same", "precision": "same", "device": "there is one here; it is in the settings",
            "estimate": "reads and writes nothing", "methods": "the argument",
            "operator": "of photographs, refused with slices",
        },
    ),
    Command(
        ("train", "prior"),
        {"data": "one.h5", "steps": 2, "batch-size": 2, "channels": "32", "patch": 2},
        LOOP | {
            "data": "other.h5", "channels": "64", "patch": 4, "layers": 2, "attention": "1", "schedule": "vp_sde",
            "initial": "prior32",
        },
        FREE_IN_TRAINING,
    ),
    Command(
        ("train", "htransform"),
        {k: v for k, v in TRAIN.items() if k != "patch"}
        | {"prior": "prior", "initial-reconstruction": "tv", "tv-iterations": 2, "loss": "denoising"},
        LOOP | SCANS | {
            "prior": "prior2", "initial-reconstruction": "fbp", "guidance": "adjoint", "channels": "64",
            "initial": "head", "refinement": "refinement", "batches": 2, "loss": "log-variance",
            "any-scan": True, "tv-iterations": 3,
        },
        FREE_IN_TRAINING | PHOTOGRAPHS | {
            "paths": "only of a loss without images, see below", "path-steps": "same",
            "any-start": "needs --any-scan, see below", "table": "only with --batches, see test_a_foreign_table",
        },
    ),
    Command(
        ("train", "htransform"),
        {k: v for k, v in TRAIN.items() if k != "patch"}
        | {"prior": "prior", "initial-reconstruction": "fbp", "loss": "log-variance", "paths": 2, "path-steps": 3},
        LOOP | SCANS | {
            "prior": "prior2", "guidance": "adjoint", "channels": "64", "loss": "trajectory-balance", "paths": 3,
            "path-steps": 4, "initial-reconstruction": "tv", "tv-iterations": 3, "initial": "head32",
        },
        FREE_IN_TRAINING | PHOTOGRAPHS | {
            "any-scan": "refused with this loss", "any-start": "same", "refinement": "not with this loss",
            "table": "not with this loss", "batches": "not with this loss",
        },
    ),
    Command(
        ("train", "refinement"),
        TRAIN | {"batches": 2, "tv-iterations": 2},
        LOOP | SCANS | {
            "batches": 3, "tv-iterations": 3, "channels": "64", "patch": 4, "initial": "refinement", "any-scan": True,
            "second": "second", "larger": "other.h5",
        },
        FREE_IN_TRAINING | PHOTOGRAPHS | {
            "mirror": "needs --any-start, see below", "any-start": "needs --any-scan, see below",
        },
    ),
    Command(
        ("train", "spread"),
        TRAIN | {"batches": 2, "prior": "prior", "htransform": "head"},
        LOOP | SCANS | {"batches": 3, "channels": "64", "patch": 4, "htransform": "head32", "any-scan": True},
        FREE_IN_TRAINING | {
            "any-start": "needs --any-scan, see below", "prior": "an h-transform belongs to one prior",
            "folds": "adds networks and leaves the first one as it is",
        },
    ),
    Command(
        ("train", "fbp-unet"), TRAIN,
        LOOP | SCANS | {"initial-reconstruction": "tv", "typical-error": 0.2, "channels": "64", "patch": 4},
        FREE_IN_TRAINING | {"initial": "see test_the_start_of_a_supervised_training"},
    ),
    Command(
        ("train", "learned-primal-dual"),
        {k: v for k, v in TRAIN.items() if k not in ("patch", "channels")} | {"iterations": 2, "features": 4},
        LOOP | SCANS | {
            "initial-reconstruction": "none", "typical-error": 0.2, "iterations": 3, "memory": 3, "features": 5,
            "any-scan": True,
        },
        FREE_IN_TRAINING | {
            "initial": "see test_the_start_of_a_supervised_training", "any-start": "needs --any-scan, see below",
        },
    ),
    Command(
        ("train", "conditional"), TRAIN,
        LOOP | SCANS | {
            "initial-reconstruction": "tv", "typical-error": 0.2, "residual": False, "channels": "64", "patch": 4,
        },
        FREE_IN_TRAINING | {"initial": "see test_the_start_of_a_supervised_training"},
    ),
    Command(
        ("train", "amortised"),
        {"data": "backbones:chains.h5", "initial": "chains", "steps": 2, "batch-size": 2},
        LOOP | {"data": "backbones:other_chains.h5", "initial": "chains2", "batch-size": 3},
        FREE_IN_TRAINING,
    ),
    Command(
        ("train", "i2sb"), TRAIN,
        LOOP | SCANS | {"initial-reconstruction": "tv", "channels": "64", "patch": 4},
        FREE_IN_TRAINING | {"initial": "see test_the_start_of_a_supervised_training"},
    ),
    Command(
        ("finetune",),
        {
            "data": "one", "steps": 2, "batch-size": 2, "scan": [SCAN], "prior": "prior", "initial": "refined",
            "refinement-steps": 2, "one-scan": True,
        },
        LOOP | {
            "data": "other", "scan": ["parallel10_1e5_48bins"], "every": 2, "initial": "refined2",
            "refinement-steps": 0, "refinement-rate": 1e-4, "any-scan": True, "prior": "prior2",
        },
        FREE_IN_TRAINING | {"hu-range": "see test_pictures", "pixel-mm": "see test_pictures"},
    ),
]  # fmt: skip


COMPARE, TUNE, PRIOR = COMMANDS[:3]


def arguments_of(command: Command, options: Mapping[str, Any], out: Path) -> list[str]:
    found = [*command.words, "--out", str(out)]
    found += ["--no-progress"] if command.words != ("tune",) else []
    for name, value in options.items():
        for item in value if isinstance(value, list) else [value]:
            if not name:
                found.append(item)
            elif item is True or item is False:
                found.append(f"--{name}" if item else f"--no-{name}")
            else:
                found += [f"--{name}", str(item)]
    return found


def run(command: Command, options: Mapping[str, Any], out: Path) -> Result:
    AcceleratorState._reset_state(reset_partial_state=True)  # it knows one precision a process
    result = CliRunner().invoke(app, arguments_of(command, options, out))
    AcceleratorState._reset_state(reset_partial_state=True)
    return result


def values_of(command: Command, result: Result, out: Path, scan: str | None = None) -> object:
    """What the run has found: hashes of a network, or figures without times; of presets only those of a scan."""
    assert result.exit_code == 0, result.output
    if command.words == ("compare",):
        record = json.loads((out / "comparison.json").read_text())
        return [(c["scan"], c["label"], c["values"]["psnr_db"]) for c in record["cells"]]
    if command.words == ("tune",):
        found = sorted((out / "presets" / (scan or SCAN)).rglob("*.json"))
        presets = [json.loads(path.read_text()) for path in found]
        return [(p["scan"], p["options"], p["provenance"]["best_value"]) for p in presets]
    return json.loads(result.stdout.splitlines()[-1])["sha256"]


def name_of(command: Command) -> str:
    return "-".join(command.words) + ("-control" if command.base.get("loss") == "log-variance" else "")


def changed_options(command: Command, change: str, value: object) -> dict[str, Any]:
    options = dict(command.base)
    if change in VALUES:
        options.pop("scan")
    if change == "any-scan":
        options.pop("one-scan", None)
    return options | {change: value}
