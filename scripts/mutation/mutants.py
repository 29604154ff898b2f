"""The changes that a mutation makes: where they are possible, and the source code that they give."""

from __future__ import annotations

import ast
import difflib
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

# Of Cosmic Ray's eleven replacements of a binary operator those that a slip of the pen could make.
BINARY = {"Add": "Sub", "Sub": "Add", "Mul": "Div", "Div": "Mul", "FloorDiv": "Mul", "Mod": "Mul", "Pow": "Mul",
          "BitOr": "BitAnd", "BitAnd": "BitOr", "RShift": "LShift", "LShift": "RShift"}  # fmt: skip
COMPARISON = {"Eq": ["NotEq"], "NotEq": ["Eq"], "Lt": ["LtE", "GtE"], "LtE": ["Lt", "Gt"], "Gt": ["GtE", "LtE"],
              "GtE": ["Gt", "Lt"], "Is": ["IsNot"], "IsNot": ["Is"]}  # fmt: skip
OTHERS = ["ReplaceUnaryOperator_Delete_Not",
          "ReplaceUnaryOperator_Delete_USub", "ReplaceUnaryOperator_Delete_Invert", "AddNot", "ReplaceTrueWithFalse",
          "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd", "ReplaceBreakWithContinue",
          "ReplaceContinueWithBreak", "NumberReplacer", "ZeroIterationForLoop"]  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One change of one file."""

    path: str
    line: int
    operator: str
    occurrence: int

    @property
    def key(self) -> str:
        """Name in the results."""
        return f"{self.path}:{self.line} {self.operator} {self.occurrence}"

    def source(self) -> str:
        """The changed file."""
        from cosmic_ray.ast import get_ast
        from cosmic_ray.operators.provider import OperatorProvider

        text = (ROOT / self.path).read_text()
        if self.operator != "DeleteStatement":
            change = _visitor(OperatorProvider()[self.operator](), self.occurrence)
            return str(change.walk(get_ast(text)).get_code())
        statement = _statements(ast.parse(text))[self.occurrence]
        lines = text.splitlines(keepends=True)
        lines[statement.lineno - 1 : statement.end_lineno] = [" " * statement.col_offset + "pass\n"]
        return "".join(lines)


def _visitor(operator: Any, wanted: int = -1) -> Any:
    """Collects the places of one of Cosmic Ray's operators, and changes the one asked for."""
    from cosmic_ray.ast import Visitor

    class Change(Visitor):  # type: ignore[misc]
        def __init__(self) -> None:
            self.places: list[tuple[int, int]] = []

        def visit(self, node: Any) -> Any:
            for index, (start, _) in enumerate(operator.mutation_positions(node)):
                if len(self.places) == wanted:
                    node = operator.mutate(node, index)
                self.places.append(start)
            return node

    return Change()


def places_of(path: Path) -> list[list[Mutant]]:
    """All mutants of a file, those of one place together."""
    from cosmic_ray.ast import get_ast
    from cosmic_ray.operators.provider import OperatorProvider

    source, name, provider = path.read_text(), str(path.relative_to(ROOT)), OperatorProvider()
    tree, parsed = ast.parse(source), get_ast(source)
    skipped, lines = _not_behaviour(tree), source.splitlines()
    names = [f"ReplaceBinaryOperator_{a}_{b}" for a, b in BINARY.items()]
    names += [f"ReplaceComparisonOperator_{a}_{b}" for a, more in COMPARISON.items() for b in more]
    places: dict[tuple[int, int], list[Mutant]] = {}
    for operator in [*names, *OTHERS]:
        found = _visitor(provider[operator]())
        found.walk(parsed)
        for occurrence, (line, column) in enumerate(found.places):
            star = lines[line - 1][column:].startswith("*,")  # of keyword-only arguments
            if not star and not any(low <= (line, column) < high for low, high in skipped):
                places.setdefault((line, column), []).append(Mutant(name, line, operator, occurrence))
    for occurrence, statement in enumerate(_statements(tree)):
        places[(statement.lineno, -1)] = [Mutant(name, statement.lineno, "DeleteStatement", occurrence)]
    return [places[place] for place in sorted(places)]


def sample(places: list[list[Mutant]], count: int, seed: int) -> list[Mutant]:
    """One mutant of each of ``count`` random places."""
    draw, chosen = random.Random(seed), []
    for place in draw.sample(places, len(places)):
        mutant = draw.choice(place)
        if len(chosen) < count and _differs((ROOT / mutant.path).read_text(), mutant.source()):
            chosen.append(mutant)
    return chosen


def _differs(source: str, changed: str) -> bool:
    try:
        return ast.dump(ast.parse(changed)) != ast.dump(ast.parse(source))
    except SyntaxError:
        return False


def _not_behaviour(tree: ast.Module) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Places of annotations and of error messages."""
    nodes: list[ast.AST | None] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            nodes += [node.returns, *(a.annotation for a in ast.walk(node.args) if isinstance(a, ast.arg))]
        elif isinstance(node, ast.AnnAssign):
            nodes.append(node.annotation)
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            nodes += node.exc.args
    return [
        ((n.lineno, n.col_offset), (n.end_lineno, n.end_col_offset))  # type: ignore[attr-defined]
        for n in nodes
        if n is not None
    ]


def _statements(tree: ast.Module) -> list[ast.stmt]:
    """Statements of functions that can be left out: calls, raises, and changes of what is there already."""
    found: dict[int, ast.stmt] = {}
    for function in ast.walk(tree):
        for node in ast.walk(function) if isinstance(function, ast.FunctionDef) else ():
            call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
            stored = isinstance(node, ast.Assign) and not isinstance(node.targets[0], ast.Name | ast.Tuple)
            if isinstance(node, ast.stmt) and (call or stored or isinstance(node, ast.Raise | ast.AugAssign)):
                found[node.lineno] = node
    return [found[line] for line in sorted(found)]


def difference(mutant: Mutant) -> str:
    """The lines that changed."""
    before = (ROOT / mutant.path).read_text().splitlines()
    lines = difflib.unified_diff(before, mutant.source().splitlines(), lineterm="", n=0)
    return "\n".join(x for x in lines if x[:1] in "+-" and x[:3] not in ("+++", "---"))
