"""No table of figures stands on a page without a test that makes its figures anew."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from documented_tables import ROOT

TESTS = (*sorted((ROOT / "tests").glob("test_documented_*.py")), ROOT / "tests/diffusion/samplers/test_convergence.py",
         ROOT / "tests/methods/guided/test_deepinv.py")  # fmt: skip
"""The tests that read tables with ``table_after``."""
NO_RESULTS = {
    ("README.md", "you want"): "sizes of what is installed",
    ("docs/start/install.md", "you want"): "sizes of what is installed",
    ("docs/photographs.md", "task"): "defaults of the tasks",
    ("docs/photographs.md", "suite"): "names",
    ("docs/projections.md", "`--raw`"): "an example of an option",
    ("docs/reference/conventions.md", "what"): "conventions",
    ("docs/results.md", "goal"): "sentences, held by test_documented_goals.py",
    ("CONTRIBUTING.md", "room (`deft_ct.` left out)"): "names",
}
"""Tables with decimals that are no results, by page and first heading."""


def pages() -> list[Path]:
    """The pages that people write."""
    made = ("_build", "generated", "auto_tutorials")
    site = [path for path in sorted((ROOT / "docs").rglob("*.md")) if not set(made) & set(path.parts)]
    return [*sorted(ROOT.glob("*.md")), *site]


def tables(page: Path) -> Iterator[tuple[int, str, str]]:
    """Place of every table with decimals, its first heading and its head line."""
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(r"(?:^\|.*\n)+", text, re.MULTILINE):
        head, _, *body = found[0].splitlines()
        if re.search(r"\d\.\d", "".join(body)):
            yield found.start(), head.strip("| ").split(" | ")[0], head


def names_a_table(node: ast.AST) -> bool:
    """Whether it is a call that takes the words before a table, a parametrize, or an assignment to such words."""
    if isinstance(node, ast.Assign):
        return any(ast.unparse(name) in {"words", "heading"} for target in node.targets for name in ast.walk(target))
    return isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
        ("table_after", "table_holds", "table", "parametrize")
    )


@cache
def words_of_tests() -> frozenset[str]:
    """Every text by which a test names a table."""
    named = (node for path in TESTS for node in ast.walk(ast.parse(path.read_text("utf-8"))) if names_a_table(node))
    texts = (node.value for one in named for node in ast.walk(one) if isinstance(node, ast.Constant))
    found = {text for text in texts if isinstance(text, str) and len(text) > 8}
    return frozenset(found | {f"\n## {text}\n" for text in found})


def held(page: Path) -> set[int]:
    """Places of the tables that follow on words that a test names: in prose, in the same section or as its heading."""
    text = page.read_text(encoding="utf-8")
    starts = [found.start() for found in re.finditer(r"(?:^\|.*\n)+", text, re.MULTILINE)]
    places = set()
    for words in words_of_tests():
        at = text.index(words) if text.count(words) == 1 else -1
        after = [start for start in starts if start >= at >= 0]
        if not after:
            continue
        in_a_row = text[text.rfind("\n", 0, at) + 1 : at + 1].startswith("|") and at != after[0]
        if not in_a_row and "\n#" not in text[at + len(words) : after[0]]:
            places.add(after[0])
    return places


def test_every_table_of_figures_is_held_by_a_test() -> None:
    found = 0
    for page in pages():
        name, known = page.relative_to(ROOT).as_posix(), held(page)
        for start, heading, head in tables(page):
            found += 1
            if (name, heading) not in NO_RESULTS:
                assert start in known, f"{name}: no test makes this table anew: {head}"
    assert found > 30
