"""The statements of SECURITY.md."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_prior

from deft_ct.diffusion import load_prior, save_prior
from deft_ct.methods.method_text import parse_method
from deft_ct.methods.registry import Networks, method_class, methods
from deft_ct.training.checkpoint import CHECKPOINT, training_record

NETWORK = {"socket", "urllib", "http", "requests", "httpx", "aiohttp", "ftplib", "huggingface_hub"}


def code(root: Path) -> Iterator[tuple[Path, ast.AST]]:
    """Every node of the installed code."""
    for folder in ("deft_ct", "operators", "datasets"):
        for path in sorted((root / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                yield path, node


def imported(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    return {(node.module or "").partition(".")[0]} if isinstance(node, ast.ImportFrom) else set()


def test_every_statement_has_a_test(repository_root: Path) -> None:
    text = (repository_root / "SECURITY.md").read_text(encoding="utf-8")
    rows = [
        line for line in text.splitlines() if line.startswith("| ") and "---" not in line and "statement" not in line
    ]
    assert len(rows) >= 12
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert named, row
        for path, test in named:
            assert f"def {test}(" in (repository_root / path).read_text(encoding="utf-8"), (path, test)


def test_nothing_that_is_read_can_run_code(repository_root: Path) -> None:
    for path, node in code(repository_root):
        assert not imported(node) & {"pickle", "dill", "cloudpickle", "shelve", "marshal"}, path
        if "joblib" in imported(node):  # it starts processes; what it would read from a file is a pickle
            assert ast.unparse(node).endswith("process_executor import TerminatedWorkerError"), path
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
        assert called not in ("eval", "exec", "os.system", "yaml.load", "joblib.load"), path
        assert keywords.get("shell", "False") == "False" and keywords.get("allow_pickle", "False") == "False", path
        if called == "torch.load":
            assert keywords.get("weights_only") == "True", path
        if called.endswith("jit.load"):
            assert path.as_posix().endswith("deft_ct/evaluation/picture_sets.py"), path  # compares the SHA-256 first


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_with_code_is_refused(tmp_path: Path) -> None:
    torch.save({"step": Payload(tmp_path / "owned")}, tmp_path / CHECKPOINT)
    with pytest.raises(Exception, match=r"\w"):
        training_record(tmp_path)
    assert not (tmp_path / "owned").exists()


def test_weights_come_from_safetensors(tmp_path: Path) -> None:
    prior = tiny_prior()
    save_prior(prior, tmp_path / "prior")
    torch.save(Payload(tmp_path / "owned"), tmp_path / "prior" / "prior.pt")
    assert load_prior(tmp_path / "prior").content_hash() == prior.content_hash()
    (weights,) = (tmp_path / "prior").glob("*.safetensors")
    torch.save(Payload(tmp_path / "owned"), weights)
    with pytest.raises(Exception, match=r"\w"):
        load_prior(tmp_path / "prior")
    assert not (tmp_path / "owned").exists()


def test_an_option_is_never_code(tmp_path: Path) -> None:
    text = f"tv:strength=__import__('os').mkdir('{tmp_path / 'owned'}')"
    with pytest.raises(ValueError, match="strength must be a finite number"):
        Networks().build(*parse_method(text))
    assert not (tmp_path / "owned").exists()


def test_a_method_of_another_package_is_loaded_when_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "their_package.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'ran')!r})\nMethod = None\n")
    monkeypatch.syspath_prepend(tmp_path)
    point = EntryPoint("theirs", "their_package:Method", "deft_ct.methods")
    monkeypatch.setattr("deft_ct.methods.registry._announced", lambda _: {"theirs": point})
    assert "theirs" in methods() and not (tmp_path / "ran").exists()
    with pytest.raises(ValueError, match="is announced as the method 'theirs' and is not one"):
        method_class("theirs")
    assert (tmp_path / "ran").exists()


def test_there_is_no_network(repository_root: Path) -> None:
    for path, node in code(repository_root):
        assert not imported(node) & NETWORK, path
        if isinstance(node, ast.Constant) and str(node.value).partition(".")[0] == "huggingface_hub":
            assert path.as_posix().endswith("deft_ct/networks/hub.py"), path  # named networks alone


def test_environment_variables_are_listed(repository_root: Path) -> None:
    text = (repository_root / "SECURITY.md").read_text(encoding="utf-8")
    names = set()
    for _, node in code(repository_root):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("os.environ.get", "os.getenv") and node.args:
            names |= {node.args[0].value} if isinstance(node.args[0], ast.Constant) else set()
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).endswith("_VARIABLE"):
            names |= {node.value.value} if isinstance(node.value, ast.Constant) else set()
    assert "DEFT_CT_DATA" in names
    for name in names:
        assert f"`{name}`" in text, name
