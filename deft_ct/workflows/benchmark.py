"""A benchmark from a suite to its tables: problems and methods by name, rows in a folder, text for people."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from deft_ct.ct.scan import Scan
from deft_ct.evaluation.comparison import Comparison
from deft_ct.evaluation.execution import Engine
from deft_ct.evaluation.parquet_store import read_metrics, read_rows
from deft_ct.evaluation.problem import Problem
from deft_ct.evaluation.runner import RunOptions, failures, run_benchmark
from deft_ct.evaluation.worker import Benchmark
from deft_ct.methods.presets import load_preset, shipped_presets
from deft_ct.methods.registry import Networks, method_class
from deft_ct.methods.registry import methods as known_methods
from deft_ct.problems.by_name import ProblemOptions, ct_problems
from deft_ct.problems.ct import build_for_scan
from deft_ct.problems.natural_data import NATURAL_STEPS, natural_problems
from deft_ct.reconstructor import Reconstructor
from deft_ct.runtime.atomic import write_text
from deft_ct.runtime.device import check_device
from deft_ct.runtime.extras import optional_library
from deft_ct.workflows.natural_networks import NaturalNetworks
from deft_ct.workflows.suite import Suite, SuiteMethod

Say = Callable[[str], None]


class FailedMethodsError(ValueError):
    """Methods of a finished benchmark have failed; one line says which and why."""


@dataclass(frozen=True, kw_only=True)
class SuiteRun:
    """How a suite is run.

    Attributes:
        overwrite: measure everything anew.
        progress: show progress bars.
        engine: where the work is done; this process when None.
        say: gets a line on what is being done.
    """

    overwrite: bool = False
    progress: bool = False
    engine: Engine | None = None
    say: Say | None = None


def run_suite(suite: Suite, out: Path, how: SuiteRun | None = None) -> tuple[Comparison, list[str]]:
    """Run a suite in a folder and write its tables.

    Args:
        suite: what is measured.
        out: folder of the results. Several processes may share it; finished rows are kept.
        how: how.

    Returns:
        The tables, and a line on each method that failed.

    Raises:
        FileNotFoundError: data, or the networks of a named method, are not there.
        ValueError: a name or an option is unknown.
        InUseError: ``overwrite``, while another process works in the folder.
        MissingExtraError: a library of the extra ``benchmark`` is not installed.
    """
    how = how or SuiteRun()
    say = how.say or (lambda _: None)
    for library in ("pyarrow", "pandas", "jinja2"):  # before any work
        optional_library(library, "benchmark")
    suite = replace(suite, data=tuple(suite.data_names))
    problems = suite_problems(suite)  # before the networks: they take long
    suite = with_methods(suite, say)
    benchmark = build_benchmark(suite, say, problems)
    options = RunOptions(
        overwrite=how.overwrite, progress=how.progress, log=how.say, engine=how.engine,
        make=partial(build_benchmark, suite),
    )  # fmt: skip
    rows = run_benchmark(benchmark, out, options)
    comparison = Comparison(benchmark, rows)
    write_text(out / "comparison.json", json.dumps(comparison.to_dict(), indent=1, allow_nan=False) + "\n")
    # pandas and Matplotlib take a second
    from deft_ct.report.benchmark_page import PageExtras, write_benchmark_outputs
    from deft_ct.report.benchmark_panels import draw_panels
    from deft_ct.report.benchmark_pictures import write_pictures

    say("drawing the page")
    panels = draw_panels(out, benchmark, say)
    if suite.pictures:
        say("writing the pictures")
        write_pictures(out, benchmark, say)
    extras = PageExtras(panels=panels, measured=comparison.measured(), group_noun=problems[0].group_noun)
    write_benchmark_outputs(out, read_rows(out), read_metrics(out), extras)
    return comparison, failures(rows)


def refuse_failures(lines: list[str], out: Path) -> None:
    """End with one line if methods have failed.

    Raises:
        FailedMethodsError: there are lines.
    """
    if lines:
        raise FailedMethodsError(f"{'; '.join(lines)} (all other rows are in {out})")


def suite_problems(suite: Suite) -> list[Problem]:
    """The problems of a suite: data x seeds x measurements.

    Raises:
        FileNotFoundError: data are not there.
        ValueError: a name is unknown.
    """
    check_device(suite.device)
    for method in suite.chosen or ():
        method_class(method.name)
    return [
        problem
        for data in suite.data
        for seed in suite.seeds
        for problem in _problems_of(
            suite, data,
            ProblemOptions(
                every=suite.every, limit=suite.limit, seed=seed, batch_size=suite.batch_size, device=suite.device
            ),
        )
    ]  # fmt: skip


def _problems_of(suite: Suite, data: str, options: ProblemOptions) -> list[Problem]:
    """The problems of one data set and one seed."""
    if suite.photographs:
        return natural_problems(data, suite.task_list, options)
    return ct_problems(data, suite.scan_list, options)


def build_benchmark(suite: Suite, say: Say | None = None, problems: Sequence[Problem] | None = None) -> Benchmark:
    """The problems and methods of a suite, the same in every process.

    Args:
        suite: with its methods named.
        say: gets a line on each preset.
        problems: of :func:`suite_problems`; they are made when None.

    Raises:
        FileNotFoundError: data, or the networks of a method, are not there.
        ValueError: a name or an option is unknown, or the suite names no methods.
    """
    if suite.chosen is None:
        raise ValueError("a benchmark needs its methods by name")
    problems = suite_problems(suite) if problems is None else list(problems)
    networks, of_tasks = suite.networks(), NaturalNetworks(suite)
    if suite.photographs:
        for method in suite.chosen:
            of_tasks.check(method.name)
    else:
        networks.load_named()
    built: dict[tuple[str, str], tuple[Reconstructor, str | None]] = {}

    def chosen(problem: Problem) -> dict[str, Reconstructor]:
        scan = _scan_of(problem)
        name = problem.name if suite.photographs else "" if scan is None else scan.name
        for method in suite.chosen or ():
            if (name, method.title) not in built:
                built[name, method.title] = (
                    _with_task_preset(of_tasks.for_task(name), method, name, suite)
                    if suite.photographs
                    else _with_preset(networks, method, scan, suite)
                )
                if say is not None and (preset := built[name, method.title][1]) is not None:
                    say(f"{method.title}: preset {preset}")
        return {method.title: built[name, method.title][0] for method in suite.chosen or ()}

    methods = [chosen(problem) for problem in problems]
    return Benchmark(problems, methods, samples=suite.samples, panels=suite.panels, keep_all=suite.pictures)


def default_methods() -> list[str]:
    """Every method that applies to CT and does not train for every slice, and both estimates of DEFT."""
    names = [
        name
        for name in known_methods()
        if name != "deft_online" and getattr(method_class(name), "needs", "any") != "svd"
    ]
    return [*names, "deft:estimate=samples"]


def default_natural_methods() -> list[str]:
    """Every method that applies to photographs, and both estimates of DEFT."""
    return [*NATURAL_STEPS, "deft:estimate=samples"]


def with_methods(suite: Suite, say: Say | None = None) -> Suite:
    """A suite with its methods named: all that can be built, where it names none.

    Args:
        suite: the suite.
        say: gets a line on each method that is left out.
    """
    if suite.methods is not None:
        return suite
    networks, of_tasks, found = suite.networks(), NaturalNetworks(suite), []
    for text in default_natural_methods() if suite.photographs else default_methods():
        method = SuiteMethod(method=text)
        try:
            if suite.photographs:
                of_tasks.check(method.name)
            else:
                networks.build(method.name, method.values)
        except FileNotFoundError as error:
            if say is not None:
                say(f"left out: {text} ({error})")
        else:
            found.append(text)
    return replace(suite, methods=tuple(found))


def _with_preset(
    networks: Networks, method: SuiteMethod, scan: Scan | None, suite: Suite
) -> tuple[Reconstructor, str | None]:
    """A method with the preset of the folder of a suite, or else the shipped one, if there is one."""
    path = _own_preset(method, "" if scan is None else scan.name, suite)
    if scan is None:
        return networks.build(method.name, method.values), None
    if path is not None:
        return networks.build(method.name, method.values, preset=path), path
    return build_for_scan(networks, method.name, method.values, scan, presets=suite.presets)


def _with_task_preset(
    networks: Networks, method: SuiteMethod, task: str, suite: Suite
) -> tuple[Reconstructor, str | None]:
    """A method with its preset for a task of photographs; that of another task does not suit."""
    preset = _own_preset(method, task, suite)
    if preset is None and suite.presets and task in shipped_presets(method.name):
        preset = task
    return networks.build(method.name, method.values, preset=preset), preset


def _own_preset(method: SuiteMethod, name: str, suite: Suite) -> str | None:
    """The file of a method in the preset folder of a suite, for a scan or a task; None if there is none.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the file is of another scan or task.
    """
    folder = None if suite.preset_folder is None else Path(suite.preset_folder)
    if folder is not None and not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder} with presets")
    if folder is None or not suite.presets or not name:
        return None
    path = folder / name / f"{method.name}.json"
    if not path.is_file():
        return None
    tuned = load_preset(method.name, path)
    if tuned.scan != name:
        raise ValueError(f"{path} was tuned for {tuned.scan}, not for {name}: move it to the folder {tuned.scan}")
    return str(path)


def _scan_of(problem: Problem) -> Scan | None:
    """The scan that a problem simulates, or that resembles its own measurement most; None where there is none."""
    found = getattr(problem, "scan", None)
    return found if isinstance(found, Scan) else None
