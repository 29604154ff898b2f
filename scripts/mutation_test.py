"""Mutation testing: change one thing in the code, and see whether a test notices.

    pip install "cosmic-ray>=8.4"
    python scripts/mutation_test.py operators --count 80 --seed 0 --out operators.json

A script and not a command, because only the tests need it. The changes are Cosmic Ray's, and the deletion of a
statement; ``AREAS`` names the code and the tests that mirror it. Cosmic Ray's own runner rewrites files and takes the
whole suite for each mutant. Here a mutant lives in the memory of a forked process, and only the tests run that reach
the changed statement, the fastest first. So the working tree is never touched. Processes that a test starts itself see
the unchanged code, but for the child reader: ``SCRIPTS`` says who starts it, and the changed file is run in its place.

Most mutants are run by :mod:`mutation.in_place`, which is several times as fast. Those that change what is done at the
import are run in a process that imports the changed file.

The file of results grows mutant by mutant, and a second call goes on where the first one ended.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import functools
import importlib.abc
import importlib.util
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

from mutation.in_place import InPlace, Outcome
from mutation.mutants import ROOT, Mutant, difference, places_of, sample
from scipy.stats import binomtest

PACKAGES = {"operators": "deft_ct.operators", "datasets": "deft_ct.datasets", "deft_ct": "deft_ct"}


@dataclass(frozen=True)
class Area:
    """Code to change, and the tests that must notice."""

    code: tuple[str, ...]
    tests: tuple[str, ...]
    without: tuple[str, ...] = ()


AREAS = {
    # Without the back ends that need a GPU, and Numba's compiled kernels, which a coverage tool cannot see.
    "operators": Area(
        ("operators",),
        ("tests/operators", "tests/test_values.py"),
        ("operators/ct/backends/cuda.py", "operators/ct/backends/triton.py",
         "operators/ct/backends/_triton_kernels.py", "operators/ct/backends/_cone_kernels.py",
         "operators/ct/backends/_csr_kernels.py", "operators/ct/backends/_fbp_kernels.py",
         "operators/ct/backends/_helix_kernels.py", "operators/ct/backends/_vector_kernels.py"),
    ),
    "measurement": Area(("deft_ct/measurement",), ("tests/measurement", "tests/test_values.py")),
    "samplers": Area(
        ("deft_ct/diffusion/samplers", "deft_ct/methods/guided"),
        ("tests/diffusion/samplers", "tests/methods/guided", "tests/methods/test_divergence.py",
         "tests/test_values.py"),
    ),
    # Without what makes phantoms in 3D, and writes scans of them for the tests of the reader of DICOM-CT-PD.
    "readers": Area(
        ("deft_ct/io", "datasets"),
        ("tests/io", "tests/datasets", "tests/test_values.py"),
        ("datasets/ellipsoids.py", "datasets/synthetic_ct_pd.py"),
    ),
}  # fmt: skip

# Files that run as processes of their own: the module that starts them, its constant with their path, and the function
# through which every question to them goes.
SCRIPTS = {"deft_ct/io/child_reader.py": ("deft_ct/io/reading_process.py", "CHILD", "_running")}


class Changed(importlib.abc.MetaPathFinder):
    """Gives one module other source code."""

    def __init__(self, path: Path, source: str) -> None:
        relative = path.relative_to(ROOT).with_suffix("").parts
        parts = [PACKAGES[relative[0]], *relative[1:]]
        self.module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        self.path, self.source = path, source

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The changed module, and nothing else."""
        if name != self.module:
            return None
        source = self.source

        class Loader(SourceFileLoader):
            def get_code(self, fullname: str) -> CodeType:
                return compile(source, self.path, "exec", dont_inherit=True)

        return importlib.util.spec_from_file_location(name, self.path, loader=Loader(name, str(self.path)))


def pytest_exit(arguments: list[str], timeout: float, prepare: Any = None, plugin: Any = None) -> tuple[int, str]:
    """Exit status and output of pytest in a forked process; -1 for one that took too long or died."""
    with tempfile.TemporaryFile("w+") as log:
        child = os.fork()
        if child == 0:
            os.setsid()
            os.dup2(log.fileno(), 1), os.dup2(log.fileno(), 2)
            status = 3
            try:
                import pytest

                if prepare is not None:
                    prepare()
                flags = ["-q", "-p", "no:cacheprovider", "--no-header", "-m", "not slow"]
                status = int(pytest.main([*flags, *arguments], plugins=[plugin] if plugin else None))
            except BaseException:  # noqa: BLE001, whatever it was, it goes into the log
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        end = time.monotonic() + timeout
        status = -1
        while time.monotonic() < end:
            done, code = os.waitpid(child, os.WNOHANG)
            if done:
                status = os.waitstatus_to_exitcode(code)
                break
            time.sleep(0.02)
        else:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
        log.seek(0)
        return status, log.read()[-4000:]


class Reached:
    """Which tests run which lines, and how long each takes."""

    def __init__(self, target: Path) -> None:
        self.target, self.seconds = target, {}  # type: ignore[var-annotated]

    def start(self) -> None:
        """Begin before the package is imported."""
        import coverage

        self.tool = coverage.Coverage(data_file=None, source=[str(ROOT / p) for p in PACKAGES], config_file=False)
        self.tool.start()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Lines from now on belong to this test."""
        self.tool.switch_context(nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Add up set-up and call."""
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration

    def pytest_sessionfinish(self) -> None:
        """Write ``{file: {line: [tests]}}``."""
        self.tool.stop()
        data, lines = self.tool.get_data(), {}
        for file in data.measured_files():
            name = os.path.relpath(os.path.realpath(file), ROOT)
            found = {n: sorted(c for c in tests if c) for n, tests in data.contexts_by_lineno(file).items()}
            lines[name] = {n: tests for n, tests in found.items() if tests}
        self.target.write_text(json.dumps({"lines": lines, "seconds": self.seconds}))


def reach(area: Area, target: Path) -> dict[str, Any]:
    """What :class:`Reached` found, from a file if it is there."""
    if not target.exists():
        recorder = Reached(target)
        status, log = pytest_exit(list(area.tests), 7200, recorder.start, recorder)
        if status != 0:
            raise SystemExit(f"the tests must pass before anything is changed:\n{log}")
    reached = json.loads(target.read_text())
    status, log = pytest_exit(["--collect-only", *reached["seconds"]], 600)
    if status != 0:  # else every mutant would count as killed
        raise SystemExit(f"{target} names tests that are not there; remove it:\n{log}")
    return dict(reached)


def tests_of(mutant: Mutant, reached: dict[str, Any], budget: float) -> list[str]:
    """Tests that run the changed statement, the fastest first, for at most ``budget`` seconds."""
    lines = {int(n): tests for n, tests in reached["lines"].get(mutant.path, {}).items()}
    tree = ast.parse((ROOT / mutant.path).read_text())
    wanted = {t for n in _lines_of(tree, mutant.line) for t in lines.get(n, [])}
    if mutant.path in SCRIPTS:  # the lines of a child are not seen, so every test that starts one may notice
        starter, _, asks = SCRIPTS[mutant.path]
        wanted |= _tests_that_use(starter, asks, reached)
    if not _in_function(tree, mutant.line):  # what is done at the import is seen from outside, too
        inside = {t for file in reached["lines"].values() for found in file.values() for t in found}
        wanted |= set(reached["seconds"]) - inside
    wanted = wanted or {t for tests in lines.values() for t in tests}
    ordered = sorted(wanted, key=lambda t: reached["seconds"].get(t, 0.0))
    chosen, total = [], 0.0
    for test in ordered:
        total += reached["seconds"].get(test, 0.0)
        if chosen and total > budget:
            break
        chosen.append(test)
    return chosen


def _in_function(tree: ast.Module, line: int) -> bool:
    """Whether a line lies in the body of a function."""
    functions = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef))
    return any(f.body[0].lineno <= line <= (f.end_lineno or 0) for f in functions)


def _tests_that_use(path: str, name: str, reached: dict[str, Any]) -> set[str]:
    """Tests that run a line where a name is used."""
    used = {n.lineno for n in ast.walk(ast.parse((ROOT / path).read_text())) if getattr(n, "id", None) == name}
    return {t for n, tests in reached["lines"].get(path, {}).items() if int(n) in used for t in tests}


def change_code(mutant: Mutant, folder: Path) -> None:
    """Give this process, and a script that it starts, the changed code."""
    sys.meta_path.insert(0, Changed(ROOT / mutant.path, mutant.source()))
    change_script(mutant, str(folder))


def change_script(mutant: Mutant, folder: str) -> None:
    """Let the changed script be run in place of the right one."""
    if mutant.path in SCRIPTS:
        starter, constant, _ = SCRIPTS[mutant.path]
        script = Path(folder) / Path(mutant.path).name
        script.write_text(mutant.source())
        setattr(importlib.import_module(starter.removesuffix(".py").replace("/", ".")), constant, script)


def _lines_of(tree: ast.Module, line: int) -> set[int]:
    """Lines of a statement; for a default or a constant those of the functions that use it."""
    owners = [n for n in ast.walk(tree) if isinstance(n, ast.stmt) and n.lineno <= line <= (n.end_lineno or n.lineno)]
    if not owners:  # a decorator
        return set()
    statement = max(owners, key=lambda n: n.lineno)
    functions = [n for n in owners if isinstance(n, ast.FunctionDef)]
    body = getattr(statement, "body", None)
    if isinstance(statement, ast.FunctionDef):
        return set(range(statement.body[0].lineno, (statement.end_lineno or 0) + 1))
    if functions:
        end = body[0].lineno - 1 if body else statement.end_lineno
        return set(range(statement.lineno, max(statement.lineno, end or 0) + 1))
    names = {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    users = [
        f
        for f in ast.walk(tree)
        if isinstance(f, ast.FunctionDef)
        and any(getattr(n, "id", getattr(n, "attr", None)) in names for n in ast.walk(f))
    ]
    return {n for f in users for n in range(f.body[0].lineno, (f.end_lineno or 0) + 1)}


def seconds_for(tests: list[str], reached: dict[str, Any]) -> float:
    """What tests may take: ten times as long as without a change, longer where others use the machine."""
    others = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    return (20 + 10 * sum(reached["seconds"].get(test, 0.0) for test in tests)) * others


def run_in_place(
    area: Area,
    mutants: dict[Mutant, list[str]],
    reached: dict[str, Any],
    note: Callable[[Mutant, bool, str, float], None],
) -> None:
    """Note what becomes of mutants in a fork of one session; others are left to :func:`killed_by_import`."""

    def report(mutant: Mutant, outcome: Outcome, by: str, seconds: float) -> None:
        if outcome != "not possible":
            note(mutant, outcome == "killed", by, seconds)

    session = os.fork()  # so that this process does not import the package
    if session == 0:
        import pytest

        plugin = InPlace(mutants.items(), lambda test: seconds_for([test], reached), report, change_script)
        flags = ["-q", "-s", "-p", "no:cacheprovider", "--no-header", "-m", "not slow"]
        pytest.main([*flags, *area.tests], plugins=[plugin])
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(session, 0)


def killed_by_import(mutant: Mutant, tests: list[str], reached: dict[str, Any]) -> tuple[bool, str, float]:
    """Whether a process that imports the changed file fails one of the tests; which one, and the seconds."""
    started, status, log = time.monotonic(), 0, ""
    if tests:
        with tempfile.TemporaryDirectory() as folder:
            change = functools.partial(change_code, mutant, Path(folder))
            status, log = pytest_exit(["-x", *tests], seconds_for(tests, reached), change)
    by = next((x for x in log.splitlines() if x.startswith(("FAILED", "ERROR"))), "")
    return status not in (0, 5), by, time.monotonic() - started


def files_of(area: Area) -> list[Path]:
    """The Python files of an area."""
    found = sorted(p for folder in area.code for p in (ROOT / folder).rglob("*.py"))
    return [p for p in found if str(p.relative_to(ROOT)) not in area.without]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("area", choices=AREAS)
    parser.add_argument("--count", type=int, default=80, help="places to change")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of places")
    parser.add_argument("--out", type=Path, required=True, help="JSON of results; goes on where it ended")
    parser.add_argument("--reach", type=Path, help="JSON of which tests reach which lines; made if it is not there")
    parser.add_argument("--budget", type=float, default=60, help="seconds of tests for a mutant, as measured unchanged")
    parser.add_argument("--again", action="store_true", help="run the survivors of the file once more")
    parser.add_argument("--only", help="only mutants of files whose path has this in it")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    os.chdir(ROOT)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Compiled test modules are kept, away from the tree: without them a mutant takes several times as long. The changed
    # module is never among them.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix = str(options.out.resolve().with_suffix(".pycache"))
    sys.dont_write_bytecode = False
    for module in ("torch", "scipy.stats", "scipy.ndimage", "scipy.sparse", "skimage.metrics", "skimage.transform",
                   "pydicom", "h5py", "nibabel", "coverage"):  # fmt: skip
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    area = AREAS[options.area]
    reached = reach(area, options.reach or options.out.with_suffix(".reach.json"))
    results: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {}
    places = [place for path in files_of(area) for place in places_of(path)]
    chosen = sample(places, options.count, options.seed)
    print(f"{options.area}: {len(chosen)} of {len(places)} places, seed {options.seed}", flush=True)
    open_ones = {
        mutant: tests_of(mutant, reached, options.budget)
        for mutant in chosen
        if not (options.only and options.only not in mutant.path)
        if mutant.key not in results or (options.again and not results[mutant.key]["killed"])
    }

    def note(mutant: Mutant, killed: bool, by: str, seconds: float) -> None:
        results[mutant.key] = {
            "killed": killed, "tests": len(open_ones[mutant]), "seconds": round(seconds, 1),
            "change": difference(mutant), "by": by[:160],
        }  # fmt: skip
        options.out.write_text(json.dumps(results, indent=1))
        word = "killed" if killed else "SURVIVED"
        print(f"{word} {mutant.key} ({seconds:.1f} s, {len(open_ones[mutant])} tests)", flush=True)
        if not killed:
            print(difference(mutant), flush=True)

    for mutant in open_ones:
        results.pop(mutant.key, None)
    options.out.write_text(json.dumps(results, indent=1))
    run_in_place(area, open_ones, reached, note)
    results = json.loads(options.out.read_text())
    for mutant, tests in open_ones.items():
        if mutant.key not in results:
            note(mutant, *killed_by_import(mutant, tests, reached))
    judged = [results[m.key] for m in chosen if m.key in results]
    killed = sum(r["killed"] for r in judged)
    low, high = binomtest(killed, len(judged)).proportion_ci(method="wilson")
    print(f"killed {killed} of {len(judged)}: {killed / len(judged):.1%}, 95 % interval {low:.1%} to {high:.1%}")


if __name__ == "__main__":
    main()
