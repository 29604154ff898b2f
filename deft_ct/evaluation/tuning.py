"""The search for the parameters of a method on validation slices, by Optuna; test data are refused."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from deft_ct.ct.scan import Scan
from deft_ct.datasets.packs import CTPack
from deft_ct.evaluation.problem import prepare, score
from deft_ct.methods.presets import Preset
from deft_ct.methods.registry import method_class
from deft_ct.reconstructor import Reconstructor
from deft_ct.runtime.search_space import Choice, SearchSpace
from deft_ct.runtime.seeds import derive_seed

Objective = Literal["psnr", "rmse"]
Build = Callable[..., Reconstructor]
"""``build(**options)``: the method with some options, its networks loaded once and shared."""

JOURNAL = "study.journal"


def tune(
    method: str,
    build: Build,
    pack: CTPack,
    scan: Scan,
    folder: Path,
    *,
    trials: int = 30,
    objective: Objective = "psnr",
    fixed: Mapping[str, Any] | None = None,
    every: int = 1,
    samples: int = 1,
    seed: int = 0,
    refine: int = 2,
    batch_size: int = 8,
    device: str = "cpu",
    guesses: Sequence[Mapping[str, Any]] = (),
    enough: Callable[[], bool] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Preset:
    """Search the parameters that a method declares in ``search_space``.

    The first trial is the method's defaults, so the result is never worse than those. Every trial depends on the seed
    and on the trials before it alone; they are kept in ``folder/study.journal``, and a later call goes on from them.

    Args:
        method: name.
        build: makes the method.
        pack: validation slices.
        scan: what is simulated.
        folder: of the study and of the preset, ``METHOD.json``.
        trials: how many in all.
        objective: ``"psnr"`` (whole slice) or ``"rmse"`` (HU, in the body), mean over slices.
        fixed: options that are set and not searched, for example a budget of steps.
        every: every how many slices the pack was read; for the record.
        samples: posterior samples of each slice.
        seed: of noise, sampling and search.
        refine: grid refinement of the simulation.
        batch_size: slices at once.
        device: where to compute.
        guesses: parameters that are tried after the defaults, for example the best ones of another scan; those that
            are not searched are left out.
        enough: asked before every trial but the first; True ends the search with what there is.
        tell: is told of every trial.

    Returns:
        The best parameters, also written to the folder.

    Raises:
        ValueError: the pack is a test set, the method has nothing to tune, no trial succeeded, or the folder holds
            another study.
        ImportError: Optuna is not installed.
    """
    if "test" in pack.path.stem.lower():
        raise ValueError(f"{pack.path.name} is a test set: parameters are chosen on validation data only (val)")
    if trials < 1:
        raise ValueError(f"trials must be at least 1, got {trials}")
    if objective not in ("psnr", "rmse"):
        raise ValueError(f"objective must be psnr or rmse, got {objective!r}")
    fixed = dict(fixed or {})
    space = {name: where for name, where in method_class(method).search_space.items() if name not in fixed}
    if not space:
        raise ValueError(f"{method} declares no parameters to tune (search_space)")
    optuna = _optuna()
    default = build(**fixed)
    setup = {
        "method": method, "scan": scan.name, "data": pack.path.name, "every": every, "slices": len(pack),
        "objective": objective, "fixed": fixed, "samples": samples, "seed": seed, "simulation_refinement": refine,
        "space": {name: repr(where) for name, where in space.items()}, "networks": default.describe(),
    }  # fmt: skip
    study = _study(optuna, folder, setup)
    problem = prepare(pack, scan, seed=seed, refine=refine, batch_size=batch_size, device=device)
    say = tell or (lambda _: None)
    finished = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    first = [_defaults(default, space), *({k: v for k, v in guess.items() if k in space} for guess in guesses)]
    while (done := len(study.get_trials(deepcopy=False, states=finished))) < trials:
        if done and enough is not None and enough():
            break
        study.sampler = optuna.samplers.TPESampler(seed=derive_seed(seed, "trial", done) % 2**32)
        if done < len(first):
            study.enqueue_trial(first[done])
        trial = study.ask()
        options = {name: _suggest(trial, name, where) for name, where in space.items()}
        try:
            value = _value(build(**fixed, **options), problem, objective, samples)
        except (ValueError, FloatingPointError) as error:  # diverged, or a combination that the method refuses
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            say(f"trial {done + 1} of {trials}: {_words(options)} failed ({error})")
            continue
        study.tell(trial, value)
        say(f"trial {done + 1} of {trials}: {_words(options)} gives {objective} {value:.3f}")
    complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if not complete:
        raise ValueError(f"no trial of {method} succeeded; the messages above say why")
    best = study.best_trial
    preset = Preset(
        method=method,
        scan=scan.name,
        options={**fixed, **best.params},
        provenance={
            **setup,
            "trials": len(study.get_trials(deepcopy=False, states=finished)),
            "best_value": best.value,
            "default_value": complete[0].value,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": {
                "deft_ct": version("deft-ct"), "optuna": version("optuna"), "torch": version("torch"),
                "python": platform.python_version(),
            },
        },
    )  # fmt: skip
    preset.write(folder / f"{method}.json")
    return preset


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ImportError("tuning needs Optuna: pip install deft-ct[tune]") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _study(optuna: Any, folder: Path, setup: dict[str, Any]) -> Any:
    """The study of a folder, new or resumed."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    folder.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
    direction = "maximize" if setup["objective"] == "psnr" else "minimize"
    study = optuna.create_study(storage=storage, study_name="tune", direction=direction, load_if_exists=True)
    plain = json.loads(json.dumps(setup))
    before = study.user_attrs.get("setup")
    if before is None:
        study.set_user_attr("setup", plain)
        before = dict(plain)
    before.setdefault("networks", plain["networks"])  # a study of before they were noted
    if before != plain:
        changed = sorted(key for key in plain.keys() | before.keys() if plain.get(key) != before.get(key))
        raise ValueError(
            f"{folder} holds a study with another {', '.join(changed)}: use the same settings to go on, or "
            "another folder"
        )
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)  # interrupted
    return study


def _defaults(solver: Reconstructor, space: SearchSpace) -> dict[str, Any]:
    return {name: getattr(solver.config, name) for name in space}


def _suggest(trial: Any, name: str, where: Any) -> Any:
    if isinstance(where, Choice):
        return trial.suggest_categorical(name, list(where.options))
    if where.whole:
        return trial.suggest_int(name, int(where.low), int(where.high), log=where.log)
    return trial.suggest_float(name, where.low, where.high, log=where.log)


def _value(solver: Reconstructor, problem: Any, objective: Objective, samples: int) -> float:
    metrics = score(solver.name, solver, problem, samples=samples).metrics
    value = float(np.nanmean(metrics.psnr if objective == "psnr" else metrics.rmse_hu))
    if not np.isfinite(value):
        raise ValueError(f"the {objective} is {value}")
    return value


def _words(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in options.items())
