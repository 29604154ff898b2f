"""The search for the parameters of methods, by Optuna: of one method on one problem, or of many in a sweep.

Parameters are chosen on training or validation data; test sets are refused.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from deft_ct.evaluation.problem import Problem, refuse_test_data
from deft_ct.evaluation.score import score
from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.presets import Preset, load_preset
from deft_ct.methods.registry import method_class
from deft_ct.networks import weights_digest
from deft_ct.reconstructor import Reconstructor, UnsupportedError
from deft_ct.runtime.atomic import occupy_folder
from deft_ct.runtime.content_key import ANEW, ContentKey, OtherContentError, result_versions
from deft_ct.runtime.fields import check_fields
from deft_ct.runtime.machine import versions
from deft_ct.runtime.search_space import SearchSpace
from deft_ct.runtime.seeds import derive_seed

Build = Callable[[str, dict[str, Any]], Reconstructor]
"""``build(method, options)``: a method, its networks loaded once and shared."""
Log = Callable[[str], None]

JOURNAL = "study.journal"
MOST_TRIALS = 10**5
"""Largest number of trials of a search. The sampler reads all of them before each one."""
_STUDY, _KEY = "tune", "content_key"
_PROBE_STEPS = 4


class NoTrialSucceeded(ValueError):  # noqa: N818  # the name says what happened
    """Every trial of a search failed, so there is no best one."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """The method whose parameters are searched.

    Args:
        method: name.
        fixed: options that are set and not searched, for example a number of steps.
        guesses: parameters that are tried after the defaults, for example the best ones on another problem; those that
            are not searched are left out.
        ranges: where to search some of the parameters, instead of where the method says: its ranges are in the units
            of CT.
    """

    method: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    guesses: Sequence[Mapping[str, Any]] = ()
    ranges: SearchSpace = field(default_factory=dict)

    def check(self) -> None:
        """Raise a ValueError if the method is unknown, or there is nothing to search."""
        if not set(method_class(self.method).search_space) - set(self.fixed):
            raise ValueError(f"{self.method} declares no parameters to tune (search_space)")

    def space(self, measurement: Measurement) -> SearchSpace:
        """The parameters that are searched, and where, in the unit of the images of a measurement."""
        declared = {**method_class(self.method).search_space_for(measurement), **self.ranges}
        return {name: where for name, where in declared.items() if name not in self.fixed}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long and by what a search goes.

    Args:
        trials: total number, including trials of earlier runs.
        objective: name of a metric of the problem; its mean over images is optimised.
        samples: posterior samples of each image.
        overwrite: forget the trials of earlier runs.

    Raises:
        ValueError: a count is below 1, or too large.
    """

    trials: int = 30
    objective: str = "psnr"
    samples: int = 1
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("trials", "samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.trials > MOST_TRIALS:
            raise ValueError(f"trials must be at most {MOST_TRIALS}, got {self.trials}")


def tune(
    search: Search,
    build: Build,
    problem: Problem,
    folder: Path,
    budget: Budget,
    *,
    should_stop: Callable[[], bool] | None = None,
    log: Log | None = None,
) -> Preset:
    """Search the parameters that a method declares in ``search_space``.

    The first trial is the method's defaults, so the result is never worse than those. Every trial depends on the seed
    of the problem and on the trials before it alone. Trials are kept in ``folder/study.journal``, and a later call
    resumes from them.

    Args:
        search: the method.
        build: makes the method.
        problem: validation images with their data.
        folder: of the study and of the preset, ``METHOD.json``.
        budget: number of trials, and what is optimised.
        should_stop: asked before every trial but the first; True ends the search with the trials so far.
        log: gets a line for every trial.

    Returns:
        The best parameters, also written to the folder.

    Raises:
        ValueError: the problem is of a test set, or the method has nothing to tune.
        OtherContentError: the folder holds a study of other data or settings, and ``budget.overwrite`` is false.
        NoTrialSucceeded: every trial failed, or the method is not for this measurement.
        ImportError: Optuna is not installed.
        InUseError: another process writes to the folder.
    """
    with occupy_folder(folder):
        return _tune(search, build, problem, folder, budget, should_stop, log)


def _tune(
    search: Search, build: Build, problem: Problem, folder: Path, budget: Budget,
    should_stop: Callable[[], bool] | None, log: Log | None,
) -> Preset:  # fmt: skip
    """:func:`tune`, in a folder that is held."""
    refuse_test_data(problem)
    best_is = problem.metric(budget.objective).best
    search.check()
    optuna = _optuna()
    measurement = problem.batches[0].measurement
    space = search.space(measurement)
    default = build(search.method, dict(search.fixed))
    config = default.config_for(measurement)
    settings = _settings(search, problem, budget, default, space)
    key = ContentKey(settings)
    if budget.overwrite:
        (folder / JOURNAL).unlink(missing_ok=True)
    study = _study(optuna, folder, key, "maximize" if best_is == "highest" else "minimize")
    say = log or (lambda _: None)
    if problem.split is None:
        say(f"{problem.data} does not say which split it is; make sure that it is not a test set")
    finished = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    first = [
        {name: getattr(config, name) for name in space},
        *({name: value for name, value in guess.items() if name in space} for guess in search.guesses),
    ]
    distributions = {name: where.distribution() for name, where in space.items()}
    while (done := len(study.get_trials(deepcopy=False, states=finished))) < budget.trials:
        if done and should_stop is not None and should_stop():
            break
        study.sampler = optuna.samplers.TPESampler(seed=derive_seed(problem.seed, "trial", done) % 2**32)
        if done < len(first):
            study.enqueue_trial(first[done])
        trial = study.ask(fixed_distributions=distributions)
        options = dict(trial.params)
        try:
            value = _value(build(search.method, {**search.fixed, **options}), problem, budget)
        except UnsupportedError as error:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            if not study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)):
                raise NoTrialSucceeded(f"not applicable: {error}") from error
            say(f"trial {done + 1} of {budget.trials}: {_in_words(options)} failed ({error})")
            continue
        except (ValueError, FloatingPointError) as error:  # diverged, or a combination that the method refuses
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            say(f"trial {done + 1} of {budget.trials}: {_in_words(options)} failed ({error})")
            continue
        study.tell(trial, value)
        say(f"trial {done + 1} of {budget.trials}: {_in_words(options)} gives {budget.objective} {value:.3f}")
    complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if not complete:
        raise NoTrialSucceeded(f"no trial of {search.method} succeeded; the messages above say why")
    best = study.best_trial
    preset = Preset(
        method=search.method,
        scan=problem.name,
        options={**search.fixed, **best.params},
        provenance={
            **settings,
            "content_key": key.digest,
            "split": problem.split,
            "trials": len(study.get_trials(deepcopy=False, states=finished)),
            "best_value": best.value,
            "default_value": complete[0].value,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": versions() | settings["versions"],
        },
    )  # fmt: skip
    preset.write(folder / f"{search.method}.json")
    return preset


def sweep(
    searches: Sequence[Search],
    build: Build,
    problems: Sequence[Problem],
    folder: Path,
    budget: Budget,
    *,
    seconds: float | None = None,
    log: Log | None = None,
) -> list[Preset]:
    """Tune every method on every problem, problem by problem.

    A study is kept in ``folder/studies/PROBLEM/METHOD`` and resumes where it stopped. Its preset is also written to
    ``folder/presets/PROBLEM/METHOD.json``, the layout of the shipped presets and of ``deft-ct compare
    --preset-folder``. After its defaults, a method first tries the best parameters of the problems before.

    Args:
        searches: the methods.
        build: makes a method.
        problems: validation images with data of several measurements, in order.
        folder: of studies and presets.
        budget: what the searches have in common.
        seconds: no trial begins after this time; studies that are cut short give a preset of the trials they have.
        log: gets a line on what happens.

    Returns:
        The presets, in the order of the work; fewer where time ran out or no trial succeeded.

    Raises:
        ValueError: a method has nothing to tune.
        OtherContentError: the folder holds a study of other data or settings, and ``budget.overwrite`` is false.
    """
    for search in searches:
        search.check()  # bad options and missing networks fail before any work
        build(search.method, dict(search.fixed))
    say = log or (lambda _: None)
    began = time.monotonic()

    def late() -> bool:
        return seconds is not None and time.monotonic() - began >= seconds

    presets: list[Preset] = []
    for problem in problems:
        for search in searches:
            label = f"{problem.name} {search.method}"
            target = folder / "presets" / problem.name / f"{search.method}.json"
            space = search.space(problem.batches[0].measurement)
            key = ContentKey(_settings(search, problem, budget, build(search.method, dict(search.fixed)), space))
            preset = None if budget.overwrite else _finished(target, search.method, key, budget)
            if preset is not None:
                say(f"{label}: done before")
            elif late():
                say(f"{label}: no time left")
                continue
            else:
                guesses = [p.options for p in presets if p.method == search.method and p.scan != problem.name]
                try:
                    preset = tune(
                        replace(search, guesses=[*search.guesses, *guesses]), build, problem,
                        folder / "studies" / problem.name / search.method, budget, should_stop=late,
                        log=_prefixed(say, f"{label}: "),
                    )  # fmt: skip
                except NoTrialSucceeded as error:
                    say(f"{label}: {error}")  # the other methods are still tuned
                    continue
                preset.write(target)
            presets.append(preset)
        problem.release()
    return presets


def seconds_per_trial(searches: Sequence[Search], build: Build, problem: Problem, budget: Budget) -> dict[str, float]:
    """What a trial of each method costs, from one image and a few steps.

    A run of a few steps is scaled to all steps, and one image to all images. The estimate is too high where batches
    are faster than single images, and for methods without steps by what they set up once.

    Args:
        searches: the methods.
        build: makes a method.
        problem: images with their data.
        budget: posterior samples.
    """
    y, measurement, image_ids = problem.batches[0]
    y, measurement, image_ids = y[:1], measurement[:1], image_ids[:1]
    out = {}
    for search in searches:
        options, share = dict(search.fixed), 1.0
        if "steps" in {item.name for item in fields(method_class(search.method).config_type)}:
            full: int = build(search.method, options).config.steps
            share = min(_PROBE_STEPS, full) / full
            warm_up = build(search.method, options | {"steps": 1})  # what is set up only once
            warm_up.reconstruct(y, measurement, image_ids=image_ids)
            options["steps"] = min(_PROBE_STEPS, full)
        reconstructor = build(search.method, options)
        began = time.perf_counter()
        reconstructor.reconstruct(y, measurement, num_samples=budget.samples, seed=problem.seed, image_ids=image_ids)
        out[search.method] = (time.perf_counter() - began) / share * len(problem)
    return out


def _settings(
    search: Search, problem: Problem, budget: Budget, default: Reconstructor, space: SearchSpace
) -> dict[str, Any]:
    """The values that a preset depends on, except the number of trials, as read back from JSON."""
    settings = {
        **problem.content(), "method": search.method, "scan": problem.name, "objective": budget.objective,
        "samples": budget.samples, "fixed": dict(search.fixed), "networks": default.describe(),
        "weights_sha256": weights_digest(default),
        "space": {name: repr(where) for name, where in space.items()},
        "batch_size": problem.batch_size, "device": problem.device,
        "versions": result_versions() | {"optuna": version("optuna")},
    }  # fmt: skip
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


def _finished(path: Path, method: str, key: ContentKey, budget: Budget) -> Preset | None:
    """The preset of an earlier run that depends on the same and has at least as many trials."""
    if not path.is_file():
        return None
    preset = load_preset(method, path)
    same = preset.provenance.get("content_key") == key.digest
    return preset if same and preset.provenance["trials"] >= budget.trials else None


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ImportError("tuning needs Optuna: pip install deft-ct[tune]") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _study(optuna: Any, folder: Path, key: ContentKey, direction: str) -> Any:
    """The study of a folder, new or resumed."""
    from optuna.storages import JournalStorage

    from deft_ct.evaluation.journal import journal_backend

    folder.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(journal_backend(folder / JOURNAL))
    known = {study.study_name: study for study in optuna.get_all_study_summaries(storage=storage)}
    if _STUDY in known:  # compared before it is opened: another objective may have another direction
        before = known[_STUDY].user_attrs.get(_KEY)
        if before is not None:
            key.check(before, folder)
        elif known[_STUDY].n_trials:
            raise OtherContentError(
                f"{folder} holds a study of an older version, which did not record all that it depends on: {ANEW}"
            )
    study = optuna.create_study(storage=storage, study_name=_STUDY, direction=direction, load_if_exists=True)
    study.set_user_attr(_KEY, dict(key.parts))
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)  # interrupted
    return study


def _value(reconstructor: Reconstructor, problem: Problem, budget: Budget) -> float:
    found = score(reconstructor.name, reconstructor, problem, samples=budget.samples).values[budget.objective]
    value = float(np.nanmean(found))
    if not np.isfinite(value):
        raise ValueError(f"the {budget.objective} is {value}")
    return value


def _prefixed(say: Log, prefix: str) -> Log:
    return lambda line: say(prefix + line)


def _in_words(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in options.items())
