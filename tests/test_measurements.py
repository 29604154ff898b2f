"""The Makefile of the measurements: what its commands are, and which of the stored results it makes."""

from __future__ import annotations

import ast
import itertools
import json
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import typer
from commands import leaf_commands, parse_line

from deft_ct.cli import app

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
SHARED = ROOT / "deft_ct/workflows/experiments/arguments.py"
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def make(*arguments: str) -> str:
    """What make prints for the Makefile of the measurements."""
    words = ["make", "-f", "benchmarks/Makefile", f"PYTHON={sys.executable}", *arguments]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@cache
def commands_of_all() -> list[str]:
    """Every command of every measurement."""
    lines = make("-n", "RUNS=/nowhere", "networks", "times").splitlines()
    return [command.strip() for line in lines for command in line.split("&&")]


def measured() -> set[str]:
    """Names of the results."""
    return {Path(line.split()[1]).stem for line in commands_of_all() if line.startswith("touch ")}


def test_each_measurement_is_a_stored_result() -> None:
    stored = {path.stem for path in RESULTS.iterdir()}
    assert len(measured()) > 30
    assert measured() <= stored


def test_every_result_of_the_shipped_networks_can_be_measured_again() -> None:
    """Or results of earlier networks would stay when new ones are shipped."""
    described = json.loads((ROOT / "deft_ct/assets/htransforms/ct256-small-refined/htransform.json").read_text())
    of_network = {path.stem for path in RESULTS.glob("*.json") if described["sha256"] in path.read_text()}
    assert len(of_network) > 5
    assert of_network <= measured()


def test_commands_know_their_options() -> None:
    commands = dict(leaf_commands(typer.main.get_command(app)))
    lines = [line for line in commands_of_all() if " -m deft_ct " in line]
    assert len(lines) > 20
    for line in lines:
        parse_line(commands, "deft-ct " + line.partition(" -m deft_ct ")[2])


def test_experiments_know_their_options() -> None:
    lines = [line for line in commands_of_all() if re.search(r"benchmarks/(experiments|speed)/", line)]
    assert len(lines) > 10
    for line in lines:
        words = shlex.split(line)
        (script,) = [word for word in words if word.endswith(".py")]
        known = {
            node.value
            for path in (ROOT / script, SHARED)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        used = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert used <= known, f"{script} knows no {used - known}"


def test_a_measurement_is_done_once(tmp_path: Path) -> None:
    runs, results = tmp_path / "runs", tmp_path / "results"
    runs.mkdir()
    results.mkdir()
    (runs / "compare_parallel60_1e5.done").touch()  # what the table is made of
    shutil.copy(RESULTS / "compare_parallel60_1e5.json", results)
    folders = (f"RUNS={runs}", f"RESULTS={results}")
    make(*folders, "break_even")
    assert (results / "break_even.md").read_text() == (RESULTS / "break_even.md").read_text()
    assert "break_even.py" not in make(*folders, "break_even")


def test_what_is_copied_is_what_the_commands_write() -> None:
    words = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "deft_ct").rglob("*.py"))
    lines = make("-n", "RUNS=/nowhere", "networks", "times").splitlines()
    copied = {
        Path(command.split()[1]).name
        for line in lines if " -m deft_ct " in line for command in line.split(" && ") if command.startswith("cp ")
    }  # fmt: skip
    assert {"comparison.json", "spread.json", "report.json"} < copied
    assert not [name for name in sorted(copied) if f'"{name}"' not in words]


def test_the_stored_comparisons_are_those_of_the_commands() -> None:
    lines = make("-n", "RUNS=/nowhere", "networks", "times").splitlines()
    compared = [line for line in lines if " -m deft_ct compare " in line]
    assert len(compared) > 8
    for line in compared:
        name = Path(line.split()[-1]).stem
        words = shlex.split(re.split(r" -m deft_ct compare | && cp ", line)[1])
        said = list(itertools.pairwise(words))
        found = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        for option in ("every", "samples", "seed", "batch-size"):
            (value,) = [after for word, after in said if word == f"--{option}"]
            assert found["protocol"][option.replace("-", "_")] == int(value), (name, option)
        for option, key in (("scan", "scan"), ("method", "label")):
            assert {after for word, after in said if word == f"--{option}"} == {one[key] for one in found["cells"]}, (
                name
            )
