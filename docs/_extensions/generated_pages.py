"""Pages that are made at each build: the API, the commands and the tables of ``benchmarks/results``.

They are written into ``docs/generated``, which git ignores, before Sphinx looks for pages.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import typer

from deft_ct.cli import app as commands

ROOT = Path(__file__).parents[2]
ROOMS = (
    ("deft_ct.operators", "forward models and noise"),
    ("deft_ct.measurement", "operator, noise and scale; the likelihood"),
    ("deft_ct.networks", "networks and their storage"),
    ("deft_ct.training", "the training loop"),
    ("deft_ct.diffusion", "schedule, prior, samplers"),
    ("deft_ct.ct", "Hounsfield scale, volumes and scans"),
    ("deft_ct.protein", "backbones of proteins"),
    ("deft_ct.methods", "reconstruction methods"),
    ("deft_ct.evaluation", "metrics, statistics, tuning and comparison"),
    ("deft_ct.io", "DICOM, NIfTI, HDF5 and pictures"),
    ("deft_ct.datasets", "one file a data set"),
    ("deft_ct.problems", "data, measurement and metrics of a domain"),
    ("deft_ct.report", "figures and tables"),
    ("deft_ct.workflows", "whole jobs from files to files"),
    ("deft_ct.runtime", "seeds, files, memory and messages"),
)
SINGLE = (
    ("deft_ct.reconstructor", "the contract of a method"),
    ("deft_ct.reconstruction", "the result of a method"),
    ("deft_ct.testing", "checks for operators of your own"),
)

_FOREIGN_SHEET = re.compile(r'<link rel="stylesheet"\s+href="https://[^"]*">')
"""Animations of matplotlib load the symbols of their buttons, which the theme has as well."""

PROJECT = ("CONTRIBUTING", "SECURITY", "CHANGELOG", "CODE_OF_CONDUCT")


def api_pages(folder: Path) -> None:
    """One page for each package: the names of its ``__all__``, or every public module in it."""
    folder.mkdir(parents=True)
    toc: list[str] = []
    for name, about in (("deft_ct", "the names at the top"), *SINGLE, *ROOMS):
        for module in _packages(name) if name != "deft_ct" else [importlib.import_module(name)]:
            path = module.__name__
            (folder / f"{path}.rst").write_text(_api_page(module, about if path == name else ""), encoding="utf-8")
            toc.append(path)
    listed = "\n".join(f"   {name}" for name in toc)
    title = "Python API"
    intro = (
        "Every page is made from the docstrings. Images are ``(B, C, H, W)``, sinograms ``(B, C, views, detectors)``; "
        "see :doc:`the conventions </reference/conventions>`."
    )
    (folder / "index.rst").write_text(
        f"{title}\n{'=' * len(title)}\n\n{intro}\n\n.. toctree::\n   :maxdepth: 1\n\n{listed}\n", encoding="utf-8"
    )


def _packages(name: str) -> Iterator[ModuleType]:
    module = importlib.import_module(name)
    yield module
    for found in pkgutil.iter_modules(getattr(module, "__path__", [])):
        if found.ispkg and not found.name.startswith("_"):
            yield from _packages(f"{name}.{found.name}")


def _api_page(module: ModuleType, about: str) -> str:
    name = module.__name__
    lines = [name, "=" * len(name), ""]
    if about:
        lines += [f"*{about[0].upper()}{about[1:]}.*", ""]
    lines += [f".. automodule:: {name}", ""]
    if name == "deft_ct":
        lines += [_short_names(module)]
    elif _own_names(module):
        lines[-1:] = ["   :members:", ""]
    for inner in _modules(module):
        title = inner.removeprefix(name + ".")
        lines += [title, "-" * len(title), "", f".. automodule:: {inner}", "   :members:", ""]
    return "\n".join(lines)


def _short_names(module: ModuleType) -> str:
    """A table of the names that are imported from other pages."""
    rows = ["=" * 30 + " " + "=" * 70]
    for name in module.__all__:
        found = getattr(module, name)
        where = found.__name__ if isinstance(found, ModuleType) else f"{found.__module__}.{name}"
        rows.append(f"{f'``{name}``':30} ``{where}``")
    return "\n".join([*rows, rows[0], ""])


def _own_names(module: ModuleType) -> bool:
    return hasattr(module, "__all__") or not hasattr(module, "__path__")


def _modules(module: ModuleType) -> list[str]:
    """The public modules of a package, if it names no public objects itself."""
    if _own_names(module):
        return []
    found = pkgutil.iter_modules(module.__path__, module.__name__ + ".")
    return [one.name for one in found if not one.ispkg and not one.name.rpartition(".")[2].startswith("_")]


def command_pages(folder: Path) -> None:
    """One page for each command, from what Typer knows of it."""
    folder.mkdir(parents=True)
    paths = []
    for path, command in _leaves(typer.main.get_command(commands)):
        name = path.replace(" ", "-")
        paths.append(name)
        (folder / f"{name}.md").write_text(_command_page(path, command), encoding="utf-8")
    (folder / "index.md").write_text(
        "# Commands\n\n`deft-ct --help` lists them, and `deft-ct COMMAND --help` says the same as these pages. "
        "Exit status: 0 done, 1 unexpected error, 2 refused, 130 interrupted.\n\n```{toctree}\n:maxdepth: 1\n\n"
        + "\n".join(paths)
        + "\n```\n",
        encoding="utf-8",
    )


def _leaves(command: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", None)
    if not children:
        yield path, command
    for name, child in (children or {}).items():
        yield from _leaves(child, f"{path} {name}".strip())


def _command_page(path: str, command: Any) -> str:
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option" and one.name != "help"]
    words = [f"deft-ct {path}", *(_metavar(one) for one in arguments), "[OPTIONS]"]
    text = [f"# deft-ct {path}", "", "```", " ".join(words), "```", "", (command.help or "").strip(), ""]
    for title, found in (("Arguments", arguments), ("Options", options)):
        if found:
            text += [f"## {title}", "", "| name | what | default |", "|---|---|---|", *map(_row, found), ""]
    return "\n".join(text)


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _row(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        name = f"`{_metavar(parameter)}`"
    else:
        flag = bool(getattr(parameter, "is_flag", False))
        names = [*parameter.opts, *parameter.secondary_opts]
        name = " ".join(f"`{one}`" for one in names) + ("" if flag else f" {_metavar(parameter)}")
    default = parameter.default
    shown = "required" if parameter.required else "" if default in (None, False, "", ()) else f"`{default}`"
    help_text = re.sub(r"\s+", " ", parameter.help or "").replace("|", "\\|")
    name = name.replace("|", "\\|")
    return f"| {name} | {_no_markup(help_text)} | {shown} |".replace("<", "&lt;")


def _no_markup(text: str) -> str:
    """A star of a pattern is a star."""
    return text.replace("*", "\\*")


def result_tables(folder: Path) -> None:
    """The tables of ``benchmarks/results`` as pages, as they are stored."""
    folder.mkdir(parents=True)
    names = []
    for source in sorted((ROOT / "benchmarks/results").glob("*.md")):
        text = re.sub(r"^#+ (?=.)", "**", source.read_text(encoding="utf-8"), flags=re.MULTILINE)
        text = re.sub(r"^\*\*(.*)$", r"**\1**", text, flags=re.MULTILINE)
        (folder / source.name).write_text(f"# {source.stem}\n\n{text}", encoding="utf-8")
        names.append(source.stem)
    (folder / "index.md").write_text(
        "# Stored tables\n\nThe tables of `benchmarks/results`, as the commands have written them. The values of every "
        "slice are in the JSON files beside them.\n\n```{toctree}\n:maxdepth: 1\n\n" + "\n".join(names) + "\n```\n",
        encoding="utf-8",
    )


def project_pages(folder: Path) -> None:
    """The pages at the top of the repository."""
    folder.mkdir(parents=True)
    for name in PROJECT:
        text = (ROOT / f"{name}.md").read_text(encoding="utf-8")
        text = re.sub(r"\]\((?=docs/|benchmarks/)", "](../../../", text)
        text = re.sub(r"\]\(\.\./\.\./\.\./docs/", "](../../", text)
        text = re.sub(rf"\]\(({'|'.join(PROJECT)})\.md", lambda found: f"]({found[1].lower()}.md", text)
        (folder / f"{name.lower()}.md").write_text(text, encoding="utf-8")


def _link_into_site(app: Any, page: str, source: list[str]) -> None:
    """Links of pages to the repository lead to the pages made from it, and nothing is loaded from elsewhere."""
    source[0] = _FOREIGN_SHEET.sub("", source[0])
    up = "../" * page.count("/")
    text = re.sub(r"\]\((?:\.\./)+benchmarks/results/(\w+)\.md\)", rf"]({up}generated/tables/\1.md)", source[0])
    names = "|".join(PROJECT)
    source[0] = re.sub(
        rf"\]\((?:\.\./)+({names})\.md", lambda found: f"]({up}generated/project/{found[1].lower()}.md", text
    )


def make_pages(app: Any) -> None:
    """Write every page anew."""
    folder = Path(app.srcdir) / "generated"
    shutil.rmtree(folder, ignore_errors=True)
    api_pages(folder / "api")
    command_pages(folder / "commands")
    result_tables(folder / "tables")
    project_pages(folder / "project")


def _plain_sentence(app: Any, what: str, name: str, found: Any, options: Any, lines: list[str]) -> None:
    """Napoleon takes the words before a colon for a type, in docstrings of values; an empty comment hinders it."""
    del app, name, found, options
    if what in ("data", "attribute", "property") and lines and ":" in lines[0]:
        lines[:0] = ["..", ""]


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("builder-inited", make_pages)
    app.connect("source-read", _link_into_site)
    app.connect("autodoc-process-docstring", _plain_sentence, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
