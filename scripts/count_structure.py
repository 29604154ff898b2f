"""Print how large the house is: files, public names, long signatures, options of the command, imports between rooms.

    python scripts/count_structure.py [CHECKOUT]

An entry point, because it reads the source of any checkout and not the installed package. A room is a folder or file
right below ``deft_ct``.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

MAPPED = {"deft_ct": "deft_ct", "operators": "deft_ct.operators", "datasets": "deft_ct.datasets"}
OPTIONS = """
import typer, json
from deft_ct.cli import app
def walk(command):
    for child in getattr(command, "commands", {}).values():
        yield from walk(child)
    if not getattr(command, "commands", None):
        yield [p.opts[0] for p in command.params if p.opts[0].startswith("-") and p.name != "help"]
found = [option for options in walk(typer.main.get_command(app)) for option in options]
print(json.dumps([len(found), len(set(found))]))
"""


def modules(root: Path) -> dict[str, Path]:
    """Dotted names and files, read through the real folders."""
    found = {}
    for folder, prefix in MAPPED.items():
        for path in sorted((root / folder).rglob("*.py")):
            if not any(parent.is_symlink() for parent in path.parents if root in parent.parents):
                parts = path.relative_to(root / folder).with_suffix("").parts
                found[".".join((prefix, *(p for p in parts if p != "__init__")))] = path
    return found


def room(name: str) -> str:
    return ".".join(name.split(".")[:2])


def structure(root: Path) -> dict[str, object]:
    known = modules(root)
    lengths, public, long, edges = [], 0, 0, set()
    for name, path in known.items():
        text = path.read_text(encoding="utf-8")
        lengths.append(len(text.splitlines()))
        tree = ast.parse(text)
        public += sum(isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith("_") for n in tree.body)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and not path.stem.startswith("_"):
                count = len(node.args.posonlyargs) + len(node.args.args) + len(node.args.kwonlyargs)
                long += count > 7 and not name.startswith("deft_ct.cli")
            targets = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            targets += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            edges |= {(room(name), room(t)) for t in targets if t.startswith("deft_ct.") and room(t) != room(name)}
    environment = {**os.environ, "PYTHONPATH": str(root)}
    options = subprocess.run(
        [sys.executable, "-c", OPTIONS], cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    slots, distinct = json.loads(options.stdout)
    return {
        "files": len(known), "median_lines": statistics.median(lengths), "longest_lines": max(lengths),
        "public_functions_and_classes": public, "functions_with_more_than_7_parameters": long,
        "files_in_root": len(list((root / "deft_ct").glob("*.py"))), "imports_between_rooms": len(edges),
        "option_slots": slots, "distinct_options": distinct,
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", nargs="?", type=Path, default=Path(__file__).parents[1])
    print(json.dumps(structure(parser.parse_args().checkout.resolve()), indent=1))
