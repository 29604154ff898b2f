"""The arguments that fuzzing found, see ``hostile/README.md`` of the data: texts of methods, and settings of scans."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from deft_ct.cli import app
from deft_ct.cli.options import ScanOptions
from deft_ct.ct.scan import Scan
from deft_ct.io import sample_series_path
from deft_ct.methods.method_text import parse_method
from deft_ct.methods.registry import Networks
from deft_ct.workflows.reconstruct_series import SparseView

ANSI = re.compile(r"\x1b\[[0-9;]*m")
LIKE_THEM = [
    "cgls:strength={[]:1},tolerance=T\0ue,cutoff=é", "fbp:cutoff=hlnn,views={1:{}},tolera", "{'start': 'x', 'size': 1}",
    "{'photons': inf, 'views': None}", "tv:tolerance=\0", "{'views': 1.5}", "{'degrees': '180'}", "{'samples': nan}",
    "{'geometry': [1]}", "{'compare': 3}", "{'device': 'meta'}", "{'device': 'cuda:99'}", "{'device': ''}",
    "{'seed': 'x'}", "{'size': -1}", "{'photons': 1e400}", "{'precision': 'int8'}", "{'refine': 10**40}",
]  # fmt: skip
"""The cases of the data, and others of their kinds, so that the test also runs without the data."""


def cases(folder: Path) -> list[str]:
    """The arguments in a folder of fuzz cases."""
    return [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*-cli-*/cli.txt"))]


def try_in_library(text: str) -> None:
    """Use arguments as the command line does, without the work."""
    if text.startswith("{"):
        values: dict[str, Any] = eval(text, {"inf": float("inf"), "nan": float("nan")})
        names = set(ScanOptions.__dataclass_fields__) & set(values)
        if names == set(values):
            ScanOptions(**values).scans()
        if set(values) <= set(Scan.__dataclass_fields__):
            Scan(**values)
        SparseView(**values)
    else:
        Networks().build(*parse_method(text))


def refused_in_one_line(text: str, out: Path) -> None:
    words = ["reconstruct", str(sample_series_path()), "--out", str(out), "--compare", "", "--no-progress"]
    if text.startswith("{"):
        values = eval(text, {"inf": float("inf"), "nan": float("nan")})
        words += [part for name, value in values.items() for part in (f"--{name}", str(value))]
    else:
        words += ["--method", text]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2, (text, result.output)
    lines = ANSI.sub("", result.output).splitlines()
    assert sum(line.startswith(("error: ", "╭─ Error ─")) for line in lines) == 1 and "Traceback" not in result.output
    assert not out.exists()


@pytest.mark.parametrize("text", LIKE_THEM)
def test_arguments_like_those_of_the_fuzzer(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        try_in_library(text)
    if text not in ("{'compare': 3}", "{'refine': 10**40}", "{'degrees': '180'}"):  # no such option, or good as text
        refused_in_one_line(text, tmp_path / "out")


@pytest.mark.data
def test_the_arguments_that_the_fuzzer_found(data_root: Path, tmp_path: Path) -> None:
    found = cases(data_root / "hostile" / "fuzz")
    assert len(found) >= 5
    for text in found:
        with pytest.raises(ValueError, match=r"\w"):
            try_in_library(text)
        refused_in_one_line(text, tmp_path / "out")
