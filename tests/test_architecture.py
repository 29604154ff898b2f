"""The rooms of the house: one strict order, no cycles, CT only where CT lives, small signatures, no private access."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

# The order of the rooms: each may import only itself and the rooms before it. A name stands for itself and everything
# below it; the longest matching name counts.
ROOMS = (
    "deft_ct.operators",
    "deft_ct.testing",  # checks of operators, for our tests and for those of users
    "deft_ct.runtime",
    "deft_ct.networks",
    "deft_ct.measurement",
    "deft_ct.training",
    "deft_ct.diffusion",
    "deft_ct.ct",
    "deft_ct.protein",
    "deft_ct.reconstruction",
    "deft_ct.reconstructor",
    "deft_ct.methods.presets",
    "deft_ct.methods.classical",
    "deft_ct.methods.initial",
    "deft_ct.methods.guided",
    "deft_ct.methods.supervised",
    "deft_ct.methods.deft",
    "deft_ct.methods.registry",
    "deft_ct.methods.method_text",
    "deft_ct.methods",  # its __init__ alone: the list of names
    "deft_ct.evaluation",
    "deft_ct.io",
    "deft_ct.datasets",
    "deft_ct.problems",
    "deft_ct.report",
    "deft_ct.workflows",
    "deft_ct.pipelines",
    "deft_ct",  # deft_ct/__init__.py: the public names
    "deft_ct.cli",
    "deft_ct.__main__",
    "scripts",
    "benchmarks",
)
CT_ROOMS = (
    "deft_ct.operators.ct", "deft_ct.ct", "deft_ct.io", "deft_ct.datasets", "deft_ct.problems.ct", "deft_ct.workflows",
    "deft_ct.pipelines",
    "deft_ct.cli", "deft_ct.__main__", "scripts", "benchmarks",
)  # fmt: skip
"""What only CT knows stays here, and in files named ``ct_*``."""
MOST_PARAMETERS = 7
FOREIGN_PRIVATE = {"_fieldnames", "_exit"} | {
    f"_foreach_{name}" for name in ("add_", "div", "lerp", "lerp_", "mul", "mul_", "sqrt")
}
"""Names of libraries that offer no other way: SciPy's MATLAB structures, ``os._exit``, PyTorch's foreach operators."""
MAPPED = {"operators": "deft_ct.operators", "datasets": "deft_ct.datasets"}


def room_of(name: str) -> int:
    """Rank of the room of a module; below a package's own name, ``deft_ct`` alone stands for its ``__init__``."""
    matches = [
        (len(room), rank)
        for rank, room in enumerate(ROOMS)
        if name == room or (name.startswith(room + ".") and room != "deft_ct")
    ]
    if not matches:
        raise AssertionError(f"{name} is in no room: put it into one, or add a room to ROOMS in {Path(__file__).name}")
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


def test_every_module_is_in_a_room(known: dict[str, Path]) -> None:
    assert "deft_ct.operators.base" in known
    for name in known:
        room_of(name)


def test_imports_point_downwards(known: dict[str, Path]) -> None:
    upward = [
        f"{name} -> {target}"
        for name, path in known.items()
        for target in imports(name, path, known, lazy=True)
        if room_of(target) > room_of(name)
    ]
    assert not upward, "imports against the order of the rooms:\n" + "\n".join(sorted(upward))


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


def test_only_rooms_of_ct_know_ct(known: dict[str, Path]) -> None:
    foreign = [
        f"{name} -> {target}"
        for name, path in known.items()
        if not any(name == room or name.startswith(room + ".") for room in CT_ROOMS)
        and not path.stem.startswith("ct_")
        and name != "deft_ct"
        for target in imports(name, path, known, lazy=True)
        if target.startswith(("deft_ct.operators.ct", "deft_ct.ct.hounsfield"))
        or (target == "deft_ct.ct" and name.startswith("deft_ct"))
    ]
    assert not foreign, "ray transforms or Hounsfield units outside of CT's rooms:\n" + "\n".join(sorted(foreign))


def test_public_functions_have_few_parameters(known: dict[str, Path]) -> None:
    long = [
        f"{name}.{function} has {count}"
        for name, path in known.items()
        if not name.startswith("deft_ct.cli")  # a command has as many options as it needs
        and not path.stem.startswith("_")  # compiled kernels take arrays one by one
        for function, count in signatures(ast.parse(path.read_text()))
        if count > MOST_PARAMETERS
        and not (function == "main" and name.startswith(("scripts", "benchmarks")))  # commands, too
    ]
    assert not long, f"more than {MOST_PARAMETERS} parameters; make them a dataclass:\n" + "\n".join(sorted(long))


def signatures(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Public functions, methods and constructors with the number of parameters that a caller sees."""
    scopes: list[tuple[str, list[ast.stmt], bool]] = [("", tree.body, False)]
    while scopes:
        prefix, body, inside = scopes.pop()
        for node in body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                scopes.append((f"{prefix}{node.name}.", node.body, True))
            if not isinstance(node, ast.FunctionDef) or (node.name.startswith("_") and node.name != "__init__"):
                continue
            taken = node.args
            count = len(taken.posonlyargs) + len(taken.args) + len(taken.kwonlyargs)
            static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in node.decorator_list)
            yield f"{prefix}{node.name}", count - int(inside and not static)


def test_nothing_private_is_used_across_modules(known: dict[str, Path]) -> None:
    """``x._name`` where neither the class nor the module here defines ``_name``; private imports, too."""
    strangers = []
    for name, path in known.items():
        tree = ast.parse(path.read_text())
        own = _private_definitions(tree) | FOREIGN_PRIVATE
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("deft_ct"):
                strangers += [f"{name}: imports {a.name}" for a in node.names if _is_private(a.name) and not node.level
                              and f"{node.module}.{a.name}" not in known]  # fmt: skip
            elif isinstance(node, ast.Attribute) and _is_private(node.attr) and node.attr not in own:
                if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")) and not _is_super(node):
                    strangers.append(f"{name}:{node.lineno}: {node.attr}")
    assert not strangers, "private names used across modules:\n" + "\n".join(sorted(strangers))


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _is_super(node: ast.Attribute) -> bool:
    called = node.value
    return isinstance(called, ast.Call) and isinstance(called.func, ast.Name) and called.func.id == "super"


def _private_definitions(tree: ast.Module) -> set[str]:
    """Private functions, classes, variables and attributes that a module defines itself."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
    return {name for name in found if _is_private(name)}


def test_the_root_of_the_package_is_small(repository_root: Path) -> None:
    assert len(list((repository_root / "deft_ct").glob("*.py"))) <= 8


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
    (tmp_path / "deft_ct" / "io" / "__init__.py").write_text("from deft_ct.runtime import hu\n")
    (tmp_path / "deft_ct" / "runtime.py").write_text("def hu(a, *, b, c):\n    from . import io\n    return io._x\n")
    (tmp_path / "deft_ct" / "networks.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import deft_ct.io\n"
    )
    small = modules(tmp_path)
    runtime = small["deft_ct.runtime"]
    assert imports("deft_ct.runtime", runtime, small, lazy=True) == {"deft_ct.io"}
    assert imports("deft_ct.runtime", runtime, small, lazy=False) == set()
    assert imports("deft_ct.networks", small["deft_ct.networks"], small, lazy=True) == set()
    assert list(signatures(ast.parse(runtime.read_text()))) == [("hu", 3)]
    assert room_of("deft_ct.io") > room_of("deft_ct.runtime.seeds")
    assert room_of("deft_ct.methods.registry") > room_of("deft_ct.methods.deft.train")
    with pytest.raises(AssertionError, match="private names"):
        test_nothing_private_is_used_across_modules(small)
    with pytest.raises(AssertionError, match="order of the rooms"):
        test_imports_point_downwards(small)
    with pytest.raises(AssertionError, match="is in no room"):
        room_of("deft_ct.misc")
    assert cycles({"a": {"b"}, "b": {"a"}, "c": {"a"}}) == [["a", "b"]]
