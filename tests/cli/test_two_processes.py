"""Two processes with the same command and the same OUT: one result, and it is right; who is refused says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_commands
import typer
from commands import leaf_commands
from tiny_commands import commands, leftovers

from deft_ct.cli import app

QUICK = "reconstruct"
NAMES = [
    path
    for path, command in leaf_commands(typer.main.get_command(app))
    if any("--out" in parameter.opts for parameter in command.params)
]


def _start(arguments: list[object], out: Path, root: Path) -> subprocess.Popen[str]:
    support = Path(tiny_commands.__file__)
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{support.parent}", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(support), *map(str, arguments), "--out", str(out)], env=environment,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n == QUICK else [pytest.mark.slow]) for n in NAMES])
def test_two_processes_in_one_folder(name: str, tmp_path: Path, repository_root: Path) -> None:
    arguments, read = commands(tmp_path)[name]
    outs = [tmp_path / "shared" / "out", tmp_path / "shared" / "out", tmp_path / "alone" / "out"]
    runs = [_start(arguments, out, repository_root) for out in outs]
    for run in runs:
        assert run.stdout is not None and run.stdin is not None
        assert run.stdout.readline() == "ready\n"
    for run in runs:
        assert run.stdin is not None
        run.stdin.write("\n")
        run.stdin.flush()
    said = [run.communicate(timeout=600)[1] for run in runs]
    ends = [run.returncode for run in runs]
    assert ends[2] == 0 and 0 in ends[:2], (ends, said)
    for end, errors in zip(ends[:2], said, strict=False):
        lines = [line for line in errors.splitlines() if line.startswith("error: ")]
        assert end in (0, 2) and len(lines) == (end != 0), (ends, said)
        assert all("is in use by " in line for line in lines), lines
    assert read(outs[0]) == read(outs[2])
    assert leftovers(tmp_path / "shared") == []
