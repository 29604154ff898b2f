"""Feed damaged input to every reader, the options parser and the model folders, and hold them to their contract.

Each target runs in a worker process of its own, so that a crash or a hang is a finding and not the end. The contract: a
right result, or one error of our own that names what is wrong; no other exception, no crash, nothing longer than 15 s,
no more than 1.5 GiB. Atheris would guide by coverage, but not across the process that reads HDF5 and MATLAB files, and
it ends with the first native crash.

    python scripts/fuzz.py --minutes 30 --target all
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from fuzzing.contract import judged, memory
from fuzzing.damage import case_number
from fuzzing.sound_files import Case
from fuzzing.targets import TARGETS, seeds

SLOWEST_S = 15.0
MOST_BYTES = int(1.5 * 2**30)
START_S = 120.0


def work(name: str, seed: int, first: int, seed_file: Path, coverage_file: Path | None) -> None:
    """Run cases from a number on for ever; says what happens line by line on stdout."""
    measured: Any = None
    if coverage_file is not None:
        import coverage

        root = Path(__file__).resolve().parents[1]
        measured = coverage.Coverage(
            data_file=str(coverage_file),
            config_file=False,
            include=[f"{root}/deft_ct/io/*", f"{root}/datasets/*"],
            branch=False,
        )
        measured.start()
    logging.disable(logging.CRITICAL)
    known = [
        {file: bytes.fromhex(data) for file, data in case.items()} for case in json.loads(seed_file.read_text("utf-8"))
    ]
    from deft_ct.io import limits

    limits.LIMITS = dataclasses.replace(limits.LIMITS, seconds=4.0)  # so that hanging files cost less of the time
    saved = time.monotonic()
    number = first
    while True:
        print(f"start {number}", flush=True)
        case = case_number(number, name, seed, known)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            for file, data in case.items():
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (folder / file).write_bytes(data)
            problems = [problem for call in TARGETS[name].reads(folder) if (problem := judged(call)) is not None]
        used = memory()
        if used > MOST_BYTES:
            problems.append(f"{used / 2**30:.1f} GiB of memory")
        print("end " + json.dumps({"number": number, "problems": problems, "memory": used}), flush=True)
        number += 1
        if measured is not None and time.monotonic() - saved > 5:
            measured.save()
            saved = time.monotonic()


@dataclasses.dataclass
class Result:
    """What a target did so far."""

    cases: int = 0
    memory: int = 0
    findings: dict[str, int] = dataclasses.field(default_factory=dict)

    def add(self, problem: str, number: int) -> bool:
        """Note a problem; False where one of its kind is known."""
        key = re.sub(r"0x[0-9a-f]+|\d+|'[^']*'|/\S+", "#", problem)[:120]
        if key in self.findings:
            return False
        self.findings[key] = number
        return True


class Run:
    """All targets in turn until the time is over.

    Args:
        seed: of all cases.
        corpus: folder of further seeds.
        keep: folder for the inputs that broke the contract; None to keep none.
        scratch: for the seeds, and the data of coverage.
        coverage: whether it is measured.
    """

    def __init__(self, seed: int, corpus: Path | None, keep: Path | None, scratch: Path, *, coverage: bool) -> None:
        self.seed, self.corpus, self.keep, self.scratch, self.coverage = seed, corpus, keep, scratch, coverage
        self.seeds: dict[str, list[Case]] = {}
        self.results = {name: Result() for name in TARGETS}
        self.parts = 0

    def _seed_file(self, name: str) -> Path:
        """The seeds of a target as the workers read them: made once, because times change with every writing."""
        path = self.scratch / f"{name}.json"
        if name not in self.seeds:
            self.seeds[name] = seeds(name, self.corpus)
            content = [{file: data.hex() for file, data in case.items()} for case in self.seeds[name]]
            path.write_text(json.dumps(content), "utf-8")
        return path

    def target(self, name: str, seconds: float) -> None:
        """Fuzz one target for a time; workers that end or hang are replaced."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._worker(name, end)

    def _worker(self, name: str, end: float) -> None:
        result = self.results[name]
        self.parts += 1
        command = [sys.executable, str(Path(__file__).resolve()), "--worker", name, "--seed", str(self.seed)]
        command += ["--first", str(result.cases), "--seed-file", str(self._seed_file(name))]
        if self.coverage:
            command += ["--coverage-file", str(self.scratch / f".coverage.{name}.{self.parts}")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None and process.stderr is not None
        errors: list[str] = []
        drain = threading.Thread(target=lambda: errors.extend(process.stderr or []), daemon=True)
        drain.start()
        current: int | None = None
        deadline = [time.monotonic() + START_S]
        ended = [""]

        def watch() -> None:
            while process.poll() is None:
                now = time.monotonic()
                if now > deadline[0] or (now > end + SLOWEST_S):
                    ended[0] = "hang" if now > deadline[0] else "time"
                    process.kill()
                    return
                time.sleep(0.05)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            for line in process.stdout:
                word, _, rest = line.partition(" ")
                if word == "start":
                    current, deadline[0] = int(rest), time.monotonic() + SLOWEST_S
                elif word == "end":
                    told = json.loads(rest)
                    result.cases, result.memory = told["number"] + 1, max(result.memory, told["memory"])
                    current = None
                    deadline[0] = time.monotonic() + SLOWEST_S
                    for problem in told["problems"]:
                        self._found(name, told["number"], problem)
                    if time.monotonic() > end:
                        ended[0] = "time"
                        break
        finally:
            process.kill()
            code = process.wait()
            watcher.join()
            drain.join(timeout=5)
        if current is not None and ended[0] != "time":
            what = f"no end within {SLOWEST_S:.0f} s" if ended[0] == "hang" else f"the process ended with status {code}"
            self._found(name, current, what)
            result.cases = current + 1
        elif current is None and not ended[0]:
            raise SystemExit(f"the worker of {name} does not start:\n" + "".join(errors[-20:]))

    def _found(self, name: str, number: int, problem: str) -> None:
        if not self.results[name].add(problem, number):
            return
        print(f"FOUND {name} case {number} (seed {self.seed}): {problem}", flush=True)
        if self.keep is not None:
            case = case_number(number, name, self.seed, self.seeds[name])
            folder = self.keep / f"{name}-{hashlib.sha256(problem.encode()).hexdigest()[:10]}"
            if folder.exists():
                shutil.rmtree(folder)
            for file, data in case.items():
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (folder / file).write_bytes(data)
            (folder / "PROBLEM.txt").write_text(f"{name} case {number} seed {self.seed}: {problem}\n")

    def report(self) -> int:
        """Print the table; the number of findings."""
        total = 0
        print(f"{'target':12} {'cases':>8} {'findings':>8} {'peak MiB':>8}")
        for name, result in self.results.items():
            total += len(result.findings)
            print(f"{name:12} {result.cases:8} {len(result.findings):8} {result.memory / 2**20:8.0f}")
        print(f"{'all':12} {sum(r.cases for r in self.results.values()):8} {total:8}")
        return total


def main(
    target: Annotated[list[str] | None, typer.Option(help="A target, may be repeated, or `all`.")] = None,
    minutes: Annotated[float, typer.Option(help="Time for all of them.", min=0.01)] = 30.0,
    seed: Annotated[int, typer.Option(help="Of all cases.")] = 0,
    corpus: Annotated[Path | None, typer.Option(help="Further seeds, `../shared/data/hostile` for example.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Folder for inputs that break the contract.")] = None,
    coverage: Annotated[bool, typer.Option(help="Measure the lines of io/ and datasets/ that are reached.")] = False,
    first: Annotated[int, typer.Option(hidden=True)] = 0,
    worker: Annotated[str | None, typer.Option(hidden=True)] = None,
    seed_file: Annotated[Path | None, typer.Option(hidden=True)] = None,
    coverage_file: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Fuzz; status 1 where something broke the contract."""
    if worker is not None:
        assert seed_file is not None
        work(worker, seed, first, seed_file, coverage_file)
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    chosen = list(TARGETS) if not target or "all" in target else target
    if unknown := sorted(set(chosen) - set(TARGETS)):
        raise SystemExit(f"unknown target {', '.join(unknown)}; known: all, {', '.join(TARGETS)}")
    with tempfile.TemporaryDirectory() as scratch:
        run = Run(seed, corpus, keep, Path(scratch), coverage=coverage)
        for name in chosen:
            run.target(name, 60 * minutes / len(chosen))
        found = run.report()
        if coverage:
            _report_coverage(Path(scratch))
    raise SystemExit(1 if found else 0)


def _report_coverage(folder: Path) -> None:
    import coverage

    total = coverage.Coverage(data_file=str(folder / ".coverage"), config_file=False)
    total.combine([str(folder)])
    total.report(show_missing=False, skip_covered=False)


if __name__ == "__main__":
    typer.run(main)
