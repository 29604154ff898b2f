"""``benchmarks/`` holds specifications and tables: whatever two of its files would share is in the library."""

from __future__ import annotations

import ast
import re
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

MOST_PARAMETERS = 7
TABLE = re.compile(r"\|\s*:?-{3,}|:?-{3,}:?\s*\||-{3,}:")  # the rule below the headings of a Markdown table


def foreign_imports(tree: ast.Module, siblings: set[str]) -> list[str]:
    """Imports of the command line or of another file below ``benchmarks/``."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    top = {"benchmarks", *siblings}
    return [
        name
        for name in names
        if name.startswith((".", "deft_ct.cli.")) or name == "deft_ct.cli" or name.split(".")[0] in top
    ]


def own_tables(tree: ast.Module, siblings: set[str]) -> list[str]:
    """Text that draws a Markdown table without :func:`deft_ct.evaluation.tables.markdown_table`."""
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [text for text in texts if TABLE.search(text) or text in (" | ", "| ", "---", "---:")]


def own_bootstraps(tree: ast.Module, siblings: set[str]) -> list[str]:
    """Functions that resample or compute quantiles; :mod:`deft_ct.evaluation.statistics` has the intervals."""
    named = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and "bootstrap" in node.name]
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return named + sorted(attributes & {"quantile", "nanquantile", "bootstrap", "ppf"})


def long_signatures(tree: ast.Module, siblings: set[str]) -> list[str]:
    """Functions with more than :data:`MOST_PARAMETERS` parameters."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = node.args
            count = len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)
            if count + bool(arguments.vararg) + bool(arguments.kwarg) > MOST_PARAMETERS:
                found.append(node.name)
    return found


def private_access(tree: ast.Module, siblings: set[str]) -> list[str]:
    """Access to an underscore name of another object."""
    return [
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and re.match(r"_[^_]", node.attr)
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
    ]


Check = Callable[[ast.Module, set[str]], list[str]]
CHECKS: tuple[Check, ...] = (foreign_imports, own_tables, own_bootstraps, long_signatures, private_access)
OFFENCES = {
    foreign_imports: (
        "import halved", "from halved import halve", "from deft_ct.cli import options", "from deft_ct import cli",
        "import benchmarks.halved", "def f():\n    from .halved import halve",
    ),
    own_tables: ('x = "| a |\\n| --- |"', 'x = " | ".join(cells)', 'x = ["---", *["---:"] * 3]', 'x = f"|---|{a}|"'),
    own_bootstraps: ("def bootstrap_mean(x): ...", "low = np.quantile(x, 0.025)"),
    long_signatures: ("def f(a, b, c, d, e, f, g, h): ...", "def f(a, b, c, d, *, e, f, g, **h): ..."),
    private_access: ("x = method._describe()",),
}  # fmt: skip


def scripts(root: Path) -> list[Path]:
    return sorted((root / "benchmarks").rglob("*.py"))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_every_file_follows_the_rule(repository_root: Path, check: Check) -> None:
    files = scripts(repository_root)
    assert len(files) > 10
    names = {path.stem for path in files}
    found = {
        path.relative_to(repository_root).as_posix(): offences
        for path in files
        if (offences := check(ast.parse(path.read_text(encoding="utf-8")), names - {path.stem}))
    }
    assert not found


def test_every_file_can_be_loaded_and_has_a_main_function(repository_root: Path) -> None:
    for path in scripts(repository_root):
        assert callable(runpy.run_path(str(path), run_name="loaded")["main"]), path


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_every_rule_can_be_broken(check: Check) -> None:
    for text in OFFENCES[check]:
        assert check(ast.parse(text), {"halved"}), text
    allowed = "from deft_ct.datasets.halved import halve\n\ndef f(a, b, *, c):\n    return self._x\n"
    assert not check(ast.parse(allowed), {"halved"})
