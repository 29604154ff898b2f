"""Mutants in forks of one pytest session: the changed code takes the place of that of the functions that exist.

Importing the package and collecting the tests takes seconds, most of the time of a mutant. Here it is done once. A fork
of that process gives the functions of a file the code of the changed file, and runs the tests. This works where the
change lies in the body of a function, and not where it changes what is done at the import.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import CodeType, FunctionType
from typing import Any, Literal

import pytest

from mutation.mutants import ROOT, Mutant

Outcome = Literal["killed", "survived", "not possible"]
_OPTIMIZED = 0x1  # the code of a function; that of a class body or a module has no such flag
_NOT_POSSIBLE = 77


@dataclass
class InPlace:
    """A plugin of pytest that runs mutants instead of tests, and keeps what becomes of them.

    Args:
        mutants: each with the tests to run.
        seconds: that a test may take; beyond them the mutant hangs, which counts as killed.
        report: called after each mutant with its outcome, the failed test and the seconds that it took.
        prepare: called in the fork before the code is changed, with the mutant and a folder for temporary files.
    """

    mutants: Iterable[tuple[Mutant, list[str]]]
    seconds: Callable[[str], float]
    report: Callable[[Mutant, Outcome, str, float], None]
    prepare: Callable[[Mutant, str], None]
    functions: dict[str, list[FunctionType]] = field(default_factory=dict)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """All mutants, one after the other."""
        items = {item.nodeid: item for item in session.items}
        self.functions = _functions_by_file()
        gc.collect()
        gc.freeze()  # pages that no fork writes to are shared
        for mutant, tests in self.mutants:
            started = time.monotonic()
            chosen = [items[test] for test in tests if test in items]
            outcome, by = self._fork(mutant, chosen) if chosen else ("not possible", "")
            self.report(mutant, outcome, by, time.monotonic() - started)
        return True

    def _fork(self, mutant: Mutant, items: list[pytest.Item]) -> tuple[Outcome, str]:
        folder = tempfile.mkdtemp(prefix="mutant-")
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.setsid()
            os.write(writing, self._judge(mutant, items, folder).encode()[:4000])
            os._exit(0)
        os.close(writing)
        _, code = os.waitpid(child, 0)
        status = os.waitstatus_to_exitcode(code)
        with contextlib.suppress(ProcessLookupError):  # processes that the tests started, too
            os.killpg(child, signal.SIGKILL)
        with os.fdopen(reading, "rb") as pipe:
            said = pipe.read().decode("utf-8", "replace") if status == 0 else f"killed status {status}"
        shutil.rmtree(folder, ignore_errors=True)
        for outcome in ("survived", "not possible"):
            if said == outcome:
                return outcome, ""  # type: ignore[return-value]
        return "killed", said.removeprefix("killed ")

    def _judge(self, mutant: Mutant, items: list[pytest.Item], folder: str) -> str:
        """In the fork: "survived", "not possible", or "killed" and what failed."""
        try:
            faulthandler.disable()  # a mutant that crashes is dead, and that is all
            silent = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silent, 1), os.dup2(silent, 2)
            os.environ["PYTEST_DEBUG_TEMPROOT"] = tempfile.tempdir = folder
            if not self._swap(mutant):
                return "not possible"
            self.prepare(mutant, folder)
            manager = items[0].config.pluginmanager
            reporter = manager.get_plugin("terminalreporter")
            if reporter is not None:
                manager.unregister(reporter)
            failed = _Failed()
            manager.register(failed)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            for item, following in zip(items, [*items[1:], None], strict=True):
                signal.setitimer(signal.ITIMER_REAL, self.seconds(item.nodeid))
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                if failed.test:
                    return f"killed {failed.test}"
        except BaseException:  # noqa: BLE001, whatever it was, a test did not pass
            return f"killed {traceback.format_exc()[-1000:]}"
        return "survived"

    def _swap(self, mutant: Mutant) -> bool:
        """Give the functions of the file the changed code; whether that is the whole change."""
        path = ROOT / mutant.path
        before, after = (
            compile(text, str(path), "exec", dont_inherit=True) for text in (path.read_text(), mutant.source())
        )
        if _at_import(before) != _at_import(after):
            return False
        old, new = _by_name(before), _by_name(after)
        swapped: set[str] = set()
        for function in self.functions.get(os.path.realpath(path), []):
            code = function.__code__
            name = code.co_qualname
            if old.get(name) == new.get(name) or name not in new:
                continue
            place = [one.co_firstlineno for one in old[name]].index(code.co_firstlineno)
            if new[name][place].co_freevars != code.co_freevars:
                return False
            function.__code__ = new[name][place]
            swapped.add(name)
        # What lies inside of a function changes with it.
        changed = {name for name in new if new[name] != old.get(name) and not _inside(name, swapped)}
        return bool(swapped) and not changed


class _Failed:
    test = ""

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Keep the first test that failed."""
        if report.failed and not self.test:
            self.test = report.nodeid


def _inside(name: str, swapped: set[str]) -> bool:
    return any(name == one or name.startswith(f"{one}.<locals>.") for one in swapped)


def _at_import(code: CodeType) -> tuple[Any, ...]:
    """What a module does at its import, without the bodies of functions."""
    inner = tuple(
        (one.co_name, None if one.co_flags & _OPTIMIZED else _at_import(one)) if isinstance(one, CodeType) else one
        for one in code.co_consts
    )
    return code.co_code, code.co_names, inner


def _by_name(code: CodeType) -> Mapping[str, list[CodeType]]:
    """The code of all functions, those inside of others too; several may have one name."""
    found: dict[str, list[CodeType]] = {}
    waiting = [code]
    while waiting:
        for one in waiting.pop().co_consts:
            if isinstance(one, CodeType):
                waiting.append(one)
                if one.co_flags & _OPTIMIZED:
                    found.setdefault(one.co_qualname, []).append(one)
    for several in found.values():
        several.sort(key=lambda one: one.co_firstlineno)
    return found


def _functions_by_file() -> dict[str, list[FunctionType]]:
    """All functions that there are."""
    found: dict[str, list[FunctionType]] = {}
    for one in gc.get_objects():
        if type(one) is FunctionType:  # isinstance would ask lazy objects for their class
            found.setdefault(os.path.realpath(one.__code__.co_filename), []).append(one)
    return found
