"""The search for the parameters of many methods on several scans, with one budget and in one order."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import CTPack
from deft_ct.evaluation.problem import prepare
from deft_ct.evaluation.tuning import Objective, tune
from deft_ct.methods.presets import Preset, load_preset
from deft_ct.methods.registry import method_class
from deft_ct.reconstructor import Reconstructor

Build = Callable[[str, dict[str, Any]], Reconstructor]
"""``build(method, options)``: a method, its networks loaded once and shared."""

CT_STEPS: Mapping[str, Mapping[str, Any]] = {
    "fbp": {}, "sirt": {}, "cgls": {}, "tikhonov": {}, "tv": {},
    "dds": {"steps": 50}, "ddnm": {"steps": 50}, "diffpir": {"steps": 50}, "pigdm": {"steps": 50},
    "daps": {"steps": 40, "ode_steps": 4}, "reddiff": {"steps": 150},
    "dps": {"steps": 200}, "mcg": {"steps": 200}, "deft": {"steps": 20},
}  # fmt: skip
"""Budgets of network evaluations that a CPU affords, for every method that applies to CT and has parameters; options
that are set and not searched. At most 50 evaluations for the methods that solve for the data, 160 for DAPS."""

_PROBE_STEPS = 4


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What every search of a campaign has in common.

    Args:
        trials: for each pair of method and scan.
        every: every k-th slice, as the pack was read; for the record.
        objective: see :func:`~deft_ct.evaluation.tuning.tune`.
        samples: posterior samples of each slice.
        seed: of noise, sampling and search.
        batch_size: slices at once.
        device: where to compute.

    Raises:
        ValueError: a count is below 1.
    """

    trials: int = 12
    every: int = 1
    objective: Objective = "psnr"
    samples: int = 1
    seed: int = 0
    batch_size: int = 8
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("trials", "every", "samples", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


def seconds_per_trial(
    methods: Mapping[str, Mapping[str, Any]], build: Build, pack: CTPack, scan: Scan, budget: Budget
) -> dict[str, float]:
    """What a trial of each method costs, from one slice and a few steps.

    A short walk is scaled by its steps and all by the number of slices, so the estimate is too high where batches are
    faster than single slices, and for methods without steps by what they set up once.

    Args:
        methods: name -> fixed options.
        build: makes a method.
        pack: the slices of a trial.
        scan: what is simulated.
        budget: samples, batches and device.
    """
    first = CTPack(pack.path, every=len(pack) * budget.every)
    y, measurement, names = prepare(first, scan, seed=budget.seed, batch_size=1, device=budget.device).batches[0]
    out = {}
    for name, fixed in methods.items():
        options, share = dict(fixed), 1.0
        if "steps" in {field.name for field in fields(method_class(name).config_type)}:
            full: int = build(name, options).config.steps
            share = min(_PROBE_STEPS, full) / full
            build(name, options | {"steps": 1}).reconstruct(y, measurement, image_ids=names)  # what is set up only once
            options["steps"] = min(_PROBE_STEPS, full)
        solver = build(name, options)
        began = time.perf_counter()
        solver.reconstruct(y, measurement, num_samples=budget.samples, seed=budget.seed, image_ids=names)
        out[name] = (time.perf_counter() - began) / share * len(pack)
    return out


def run_campaign(
    methods: Mapping[str, Mapping[str, Any]],
    build: Build,
    pack: CTPack,
    scans: Sequence[Scan],
    folder: Path,
    budget: Budget,
    *,
    seconds: float | None = None,
    tell: Callable[[str], None] | None = None,
) -> list[Preset]:
    """Tune every method on every scan, scan by scan.

    A study is kept in ``folder/studies/SCAN/METHOD`` and goes on where it stopped; its preset is also written to
    ``folder/presets/SCAN/METHOD.json``, the layout that ``deft-ct compare --preset-folder`` reads and that is
    shipped. After its defaults, a method first tries the best parameters of the scans before.

    Args:
        methods: name -> fixed options.
        build: makes a method.
        pack: validation slices.
        scans: what is simulated, in order.
        folder: of studies and presets.
        budget: what the searches have in common.
        seconds: no trial begins after this time; studies that are cut short give a preset of the trials they have.
        tell: is told what happens.

    Returns:
        The presets, in the order of the work; fewer where time ran out.

    Raises:
        ValueError: a method has nothing to tune, or a study in the folder has other settings.
    """
    for name, fixed in methods.items():
        if not set(method_class(name).search_space) - set(fixed):
            raise ValueError(f"{name} declares no parameters to tune (search_space)")
        build(name, dict(fixed))  # bad options and missing networks fail before any work
    say = tell or (lambda _: None)
    began = time.monotonic()

    def late() -> bool:
        return seconds is not None and time.monotonic() - began >= seconds

    presets: list[Preset] = []
    for scan in scans:
        for name, fixed in methods.items():
            target = folder / "presets" / scan.name / f"{name}.json"
            preset = _finished(target, build(name, dict(fixed)), dict(fixed), pack, scan, budget)
            if preset is not None:
                say(f"{scan.name} {name}: done before")
            elif late():
                say(f"{scan.name} {name}: no time left")
                continue
            else:
                guesses = [p.options for p in presets if p.method == name and p.scan != scan.name]
                try:
                    preset = tune(
                        name, _builder(build, name), pack, scan, folder / "studies" / scan.name / name, fixed=fixed,
                        guesses=guesses, enough=late, tell=_prefixed(say, f"{scan.name} {name}: "), **asdict(budget),
                    )  # fmt: skip
                except ValueError as error:
                    if "no trial of" not in str(error):
                        raise
                    say(f"{scan.name} {name}: {error}")  # the other methods go on
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / "studies" / scan.name / name / f"{name}.json", target)
            presets.append(preset)
    return presets


def _builder(build: Build, name: str) -> Callable[..., Reconstructor]:
    return lambda **options: build(name, options)


def _prefixed(say: Callable[[str], None], prefix: str) -> Callable[[str], None]:
    return lambda line: say(prefix + line)


def _finished(
    path: Path, solver: Reconstructor, fixed: dict[str, Any], pack: CTPack, scan: Scan, budget: Budget
) -> Preset | None:
    """The preset of an earlier run with the same settings and networks and at least as many trials."""
    if not path.is_file():
        return None
    preset = load_preset(solver.name, path)
    wanted = asdict(budget) | {
        "fixed": fixed, "data": pack.path.name, "slices": len(pack), "scan": scan.name, "networks": solver.describe()
    }  # fmt: skip
    del wanted["batch_size"], wanted["device"]
    trials = wanted.pop("trials")
    same = all(preset.provenance.get(key) == json.loads(json.dumps(value)) for key, value in wanted.items())
    return preset if same and preset.provenance["trials"] >= trials else None
