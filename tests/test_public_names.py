"""A public name is defined in one module only, so that it means one thing."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOP = ("operators", "datasets", "deft_ct")


def sources() -> dict[str, str]:
    """Dotted name -> source of every module, read through the real folders and never through links."""
    found = {}
    for top in TOP:
        for path in sorted((ROOT / top).rglob("*.py")):
            if not any(parent.is_symlink() for parent in path.parents if parent.is_relative_to(ROOT)):
                found[".".join(path.relative_to(ROOT).with_suffix("").parts)] = path.read_text(encoding="utf-8")
    return found


def public_names(source: str) -> Iterable[str]:
    """Classes and functions that a module defines at its top level."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield node.name


def shared(modules: Mapping[str, str]) -> dict[str, list[str]]:
    """Public names that several modules define, with the modules."""
    where = defaultdict(list)
    for module, source in modules.items():
        for name in public_names(source):
            where[name].append(module)
    return {name: found for name, found in sorted(where.items()) if len(set(found)) > 1}


def test_no_public_name_is_defined_in_two_modules() -> None:
    modules = sources()
    assert len(modules) > 150
    assert shared(modules) == {}


def test_a_name_in_two_modules_is_found() -> None:
    one, two = "def scan(): ...\nclass A: ...\n", "from one import A\ndef _scan(): ...\nclass scan: ...\n"
    assert shared({"one": one, "two": two}) == {"scan": ["one", "two"]}
