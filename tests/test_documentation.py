"""README and site: what they show runs, and what they link to is there."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from commands import leaf_commands, parse_line
from typer.testing import CliRunner

from deft_ct.cli import app
from deft_ct.io import sample_series_path

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
MADE = ("auto_tutorials/", "generated/")
"""Folders of pages that a build makes; Sphinx checks the links to them."""
TUTORIALS = sorted((ROOT / "docs/tutorials").glob("*.py"))


def pages() -> list[Path]:
    """The Markdown pages that people write."""
    top = sorted(ROOT.glob("*.md"))
    site = [path for path in sorted((ROOT / "docs").rglob("*.md")) if not _made(path)]
    return [*top, *site]


def _made(path: Path) -> bool:
    inner = path.relative_to(ROOT / "docs").as_posix()
    return inner.startswith((*MADE, "_build/"))


def blocks(page: str, language: str) -> list[str]:
    """The code of a page in one language."""
    return [code for name, code in FENCE.findall((ROOT / page).read_text(encoding="utf-8")) if name == language]


def anchors(text: str) -> set[str]:
    """Places of a page as GitHub and MyST name them."""
    plain = FENCE.sub("", text)
    titles = re.findall(r"^#+ (.*)$", plain, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", pages(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        path, _, place = link.partition("#")
        if "://" in link or any(part in path for part in MADE):
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link}: no such file"
        if place and target.suffix == ".md":
            assert place in anchors(target.read_text(encoding="utf-8")), f"{link}: no such place"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def _expanded(code: str) -> str:
    """Lines of a shell with the values of the variables that they set."""
    found: dict[str, str] = {}
    for name, value in re.findall(r'^(\w+)="([^"]*)"', code, re.MULTILINE):
        found[name] = re.sub(r"\$(\w+)", lambda one: found.get(one[1], one[0]), value)
    return re.sub(r"\$(\w+)", lambda one: found.get(one[1], one[0]), code)


def _shown_commands() -> Iterator[tuple[str, str]]:
    """Every `deft-ct` command line of every page, with continued lines joined and comments dropped."""
    for page in pages():
        if page.name == "CHANGELOG.md":  # what was true once
            continue
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        indented = re.findall(r"^    (?:.*)$", text, re.MULTILINE)
        for code in (*(code for _, code in FENCE.findall(text)), "\n".join(indented)):
            code = _expanded(code)
            for line in re.findall(r"^ *(?:\.venv/bin/)?(deft-ct .*)$", code, re.MULTILINE):
                yield page.relative_to(ROOT).as_posix(), line.partition(" #")[0].strip()
    for path in TUTORIALS:
        text = re.sub(r"^# ?", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
        inline = [line.replace("\n", " ") for line in re.findall(r"``(deft-ct [^`]*)``", text)]
        for line in (*re.findall(r"^ {4}(deft-ct .*)$", text, re.MULTILINE), *inline):
            yield path.relative_to(ROOT).as_posix(), line.strip()


def test_every_command_that_is_shown_has_the_options_that_it_is_shown_with() -> None:
    commands = dict(leaf_commands(typer.main.get_command(app)))
    shown = [(page, line) for page, line in _shown_commands() if not re.match(r"deft-ct (-|COMMAND)", line)]
    assert len(shown) > 40
    for page, line in shown:
        print(f"{page}: {line}")  # noqa: T201  # pytest shows the last one, which could not be parsed
        parse_line(commands, line)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(2))
def test_commands_of_the_readme_run(number: int, tmp_path: Path) -> None:
    """As they stand, on the shipped series; the first one at a smaller size."""
    line = blocks("README.md", "bash")[number].strip()
    assert "\n" not in line
    replaced = {"OUT": str(tmp_path / "out"), "TABLES": str(tmp_path / "out")}
    words = [replaced.get(word, word).replace("SERIES_FOLDER", str(sample_series_path())) for word in shlex.split(line)]
    smaller = {0: ["--size", "64", "--slices", "1:2"], 1: []}[number]
    result = CliRunner().invoke(app, [*words[1:], *smaller, "--no-progress"])
    assert result.exit_code == 0, result.output
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {0: {"dicom", "run.json"}, 1: {"benchmark.html", "summary.md"}}[number] <= written


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # 64 x 64 pixels are not those of the training
@pytest.mark.parametrize("page", ["README.md", "docs/howto/python.md"])
def test_python_of_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands but for the pixels and the samples, which are fewer."""
    (code,) = blocks(page, "python")
    for old, new in (
        ("resampled(2)", "resampled(8)"),
        ("num_samples=8", "num_samples=2"),
        ("num_samples=4", "num_samples=2"),
    ):
        code = code.replace(old, new)
    code = code.replace('"scan/"', repr(str(sample_series_path())))
    monkeypatch.chdir(tmp_path)
    values: dict[str, Any] = {}
    exec(compile(code, page, "exec"), values)
    assert values["result"].std is not None
    (folder,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert any(folder.rglob("*.dcm"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # tutorials show warnings
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands, in a process of its own."""
    monkeypatch.chdir(tmp_path)
    environment = {**os.environ, "MPLBACKEND": "Agg"}
    done = subprocess.run(
        [sys.executable, "-P", path], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_says_what_it_is(path: Path) -> None:
    assert re.fullmatch(r"\d\d_[a-z_]+", path.stem), "others are not run"
    title, line, *_ = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()
    assert set(line) == {"="} and len(line) == len(title)


def test_every_module_says_what_it_is() -> None:
    """Its first line opens its page of the reference."""
    folders = (ROOT / name for name in ("deft_ct", "operators", "datasets"))
    for path in (path for folder in folders for path in sorted(folder.rglob("*.py"))):
        said = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
        assert len(said.split()) >= 2, path.relative_to(ROOT)


def test_a_broken_link_of_the_site_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<h1 id="here">A</h1><a href="b.html#there">b</a><a href="#here">a</a><a href="c.html">c</a>'
        '<a href="https://example.org/d.html">d</a><img src="e.png">'
        '<link rel="stylesheet" href="https://example.org/f.css"><link rel="next" href="b.html">'
    )
    (tmp_path / "b.html").write_text('<a href="a.html#gone">a</a><a href="a.html">a</a>')
    checker = ROOT / "docs/_extensions/check_links.py"
    done = subprocess.run([sys.executable, checker, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "a.html: https://example.org/f.css: loaded from elsewhere",
        "a.html: b.html#there: no such place", "a.html: c.html: no such file", "a.html: e.png: no such file",
        "b.html: a.html#gone: no such place",
    ]  # fmt: skip
    (tmp_path / "a.html").unlink()
    (tmp_path / "b.html").unlink()
    done = subprocess.run([sys.executable, checker, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "holds no pages" in done.stdout


def test_citation_and_forge() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = pyproject["project"]
    assert citation["version"] + ".dev0" == pyproject["tool"]["setuptools_scm"]["fallback_version"]
    assert citation["license"] == project["license"]
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    for job, step in (("ci", ".ci/run"), ("ci", ".ci/packages python"), ("docs", "make docs"), ("gpu", "make dev")):
        assert {"run": step} in workflow["jobs"][job]["steps"]
    for job in workflow["jobs"].values():  # without tags the version would be another one
        assert job["steps"][0]["with"] == {"fetch-depth": 0}
    supported = [name.split(" :: ")[-1] for name in project["classifiers"] if "Python :: 3." in name]
    assert workflow["jobs"]["ci"]["strategy"]["matrix"]["python"] == supported
    for form in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"):
        yaml.safe_load(form.read_text(encoding="utf-8"))
