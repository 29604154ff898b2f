"""Comparison, tuning and statistics are for any domain: they import nothing of CT and no data set."""

from __future__ import annotations

import ast
from pathlib import Path

FORBIDDEN = ("deft_ct.ct", "deft_ct.operators.ct", "deft_ct.datasets", "deft_ct.problems", "deft_ct.report")


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_evaluation_imports_nothing_of_ct(repository_root: Path, tmp_path: Path) -> None:
    files = sorted((repository_root / "deft_ct" / "evaluation").glob("*.py"))
    assert len(files) > 5
    wrong = [
        f"{path.name}: {name}"
        for path in files
        for name in imported(path)
        if any(name == room or name.startswith(room + ".") for room in FORBIDDEN)
    ]
    assert not wrong, wrong
    (tmp_path / "bad.py").write_text("def f():\n    from deft_ct.ct import hounsfield\n")
    assert imported(tmp_path / "bad.py") == {"deft_ct.ct.hounsfield"}  # the check can fail


def test_optuna_is_imported_by_a_search_only(repository_root: Path) -> None:
    path = repository_root / "deft_ct" / "evaluation" / "tuning.py"
    top = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not any("optuna" in ast.unparse(node) for node in top)
