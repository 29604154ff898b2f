"""Imports point downwards, and nothing imports in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

# Lowest first. A module may import its own layer and the layers before it. A name stands for itself and everything
# below it; the longest matching name counts.
LAYERS: tuple[tuple[str, ...], ...] = (
    (
        "deft_ct.operators",
        "deft_ct.networks",
        "deft_ct.diffusion.schedule",
        "deft_ct.runtime.seeds",
        "deft_ct.measurement.scales",
        "deft_ct.ct.volume",
        "deft_ct.evaluation.metrics",
        "deft_ct.testing",
        "deft_ct.runtime.memory",
        "deft_ct.runtime.progress",
        "deft_ct.runtime.search_space",
    ),
    (
        "deft_ct.diffusion.samplers",
        "deft_ct.diffusion",
        "deft_ct.measurement.measurement",
        "deft_ct.measurement.data_term",
        "deft_ct.evaluation.null_space",
        "deft_ct.training",
        "deft_ct.reconstructor",
        "deft_ct.ct.scan",
        "deft_ct.training.pairs",
        "deft_ct.methods.presets",
        "deft_ct.evaluation.spread",
        "deft_ct.methods.deft.spread_calibration",
    ),
    ("deft_ct.methods.guided", "deft_ct.methods.classical", "deft_ct.methods.supervised", "deft_ct.methods.deft"),
    ("deft_ct.methods.registry",),
    ("deft_ct.io", "deft_ct.report", "deft_ct.datasets"),
    (
        "deft_ct.evaluation.problem",
        "deft_ct.evaluation.runner",
        "deft_ct.evaluation.tuning",
        "deft_ct.evaluation.sweep",
        "deft_ct.evaluation.spread_fit",
    ),
    ("deft_ct.workflows.training_setup", "deft_ct.workflows.series_output"),
    ("deft_ct.workflows",),
    ("deft_ct",),  # deft_ct/__init__.py: the public names
    ("deft_ct.cli", "deft_ct.__main__", "scripts", "benchmarks"),
)
MAPPED = {"operators": "deft_ct.operators", "datasets": "deft_ct.datasets"}


def layer_of(name: str) -> int:
    matches = [
        (len(prefix), rank)
        for rank, prefixes in enumerate(LAYERS)
        for prefix in prefixes
        if name == prefix or (name.startswith(prefix + ".") and prefix != "deft_ct")
    ]
    if not matches:
        raise AssertionError(f"{name} belongs to no layer: add it to LAYERS in {Path(__file__).name}")
    return max(matches)[1]


def modules(root: Path) -> dict[str, Path]:
    """Dotted name -> file of every module of the project, read through the real folders and never through links."""
    found = {}
    for folder, prefix in {"deft_ct": "deft_ct", "scripts": "scripts", "benchmarks": "benchmarks", **MAPPED}.items():
        top = root / folder
        for path in sorted(top.rglob("*.py")):
            if any(p.is_symlink() for p in path.parents if top in p.parents):
                continue
            parts = path.relative_to(top).with_suffix("").parts
            parts = parts[:-1] if parts and parts[-1] == "__init__" else parts
            found[".".join((prefix, *parts))] = path
    return found


def _is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _statements(body: list[ast.stmt], *, lazy: bool) -> Iterator[ast.stmt]:
    """Import statements that run: inside functions only with `lazy`, never under TYPE_CHECKING."""
    for statement in body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            yield statement
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef) and not lazy:
            continue
        if isinstance(statement, ast.If) and _is_type_checking(statement.test):
            yield from _statements(statement.orelse, lazy=lazy)
            continue
        for field in ("body", "orelse", "finalbody"):
            yield from _statements(getattr(statement, field, []), lazy=lazy)
        for handler in [*getattr(statement, "handlers", []), *getattr(statement, "cases", [])]:
            yield from _statements(handler.body, lazy=lazy)


def imports(name: str, path: Path, known: dict[str, Path], *, lazy: bool) -> set[str]:
    """The project's modules that a module imports; `from package import module` counts as the module."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found: set[str] = set()
    for statement in _statements(ast.parse(path.read_text()).body, lazy=lazy):
        if isinstance(statement, ast.Import):
            found |= {alias.name for alias in statement.names if alias.name in known}
            continue
        base = statement.module or ""
        if statement.level:
            up = package.split(".")[: len(package.split(".")) - (statement.level - 1)]
            base = ".".join([*up, *([base] if base else [])])
        for alias in statement.names:
            target = f"{base}.{alias.name}"
            found |= {target} if target in known else {base} if base in known else set()
    return found - {name}


@pytest.fixture(scope="module")
def known(repository_root: Path) -> dict[str, Path]:
    return modules(repository_root)


def test_every_module_belongs_to_a_layer(known: dict[str, Path]) -> None:
    assert "deft_ct.operators.base" in known
    for name in known:
        layer_of(name)


def test_imports_point_downwards(known: dict[str, Path]) -> None:
    upward = [
        f"{name} -> {target}"
        for name, path in known.items()
        for target in imports(name, path, known, lazy=True)
        if layer_of(target) > layer_of(name)
    ]
    assert not upward, "imports against the layers:\n" + "\n".join(sorted(upward))


def test_operators_stand_alone(known: dict[str, Path]) -> None:
    foreign = [
        f"{name} -> {target}"
        for name, path in known.items()
        if name.startswith("deft_ct.operators")
        for target in imports(name, path, known, lazy=True)
        if not target.startswith("deft_ct.operators")
    ]
    assert not foreign, foreign


def test_mapped_folders_are_imported_by_their_full_name(known: dict[str, Path]) -> None:
    for name, path in known.items():
        for node in ast.walk(ast.parse(path.read_text())):
            tops = [a.name.split(".")[0] for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                tops.append(node.module.split(".")[0])
            assert not {"operators", "scripts", "tests", "benchmarks"} & set(tops), f"{name}: import deft_ct.operators"


def test_no_import_cycles(known: dict[str, Path]) -> None:
    graph = {name: imports(name, path, known, lazy=False) for name, path in known.items()}
    assert not cycles(graph), cycles(graph)


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected components of more than one node (a node in one can reach itself through another)."""

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        stack = [start]
        while stack:
            for target in graph[stack.pop()] - seen:
                seen.add(target)
                stack.append(target)
        return seen

    reach = {name: reachable(name) for name in graph}
    groups = {tuple(sorted(b for b in reach[a] if a in reach[b])) for a in graph if a in reach[a]}
    return sorted(list(group) for group in groups)


def test_the_checks_can_fail(tmp_path: Path) -> None:
    (tmp_path / "deft_ct" / "io").mkdir(parents=True)
    (tmp_path / "deft_ct" / "io" / "__init__.py").write_text("from deft_ct.measurement.scales import hu\n")
    (tmp_path / "deft_ct" / "units.py").write_text("def hu():\n    from . import io\n")
    (tmp_path / "deft_ct" / "volume.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import deft_ct.io\n"
    )
    small = modules(tmp_path)
    assert imports("deft_ct.measurement.scales", small["deft_ct.measurement.scales"], small, lazy=True) == {
        "deft_ct.io"
    }
    assert imports("deft_ct.measurement.scales", small["deft_ct.measurement.scales"], small, lazy=False) == set()
    assert imports("deft_ct.ct.volume", small["deft_ct.ct.volume"], small, lazy=True) == set()
    assert layer_of("deft_ct.io") > layer_of("deft_ct.measurement.scales")
    with pytest.raises(AssertionError, match="belongs to no layer"):
        layer_of("deft_ct.misc")
    assert cycles({"a": {"b"}, "b": {"a"}, "c": {"a"}}) == [["a", "b"]]
