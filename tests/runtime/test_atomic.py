from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from deft_ct.runtime.atomic import atomic_file, atomic_folder, check_writable, write_text

ROOT = Path(__file__).parents[2]
CHECKED = ("deft_ct", "operators", "datasets", "scripts", "benchmarks")


def renames(source: str) -> list[int]:
    """Lines of a program that rename a file or a folder, or that name a partial file by hand."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.endswith((".part", ".tmp")):
            found.append(node.lineno)
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        called = ast.unparse(node.func)
        one_target = len(node.args) == 1 and not node.keywords  # str.replace takes two, dataclasses.replace keywords
        if called in ("os.replace", "os.rename", "os.renames", "shutil.move") or (
            node.func.attr in ("replace", "rename") and one_target
        ):
            found.append(node.lineno)
    return sorted(found)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_folder_appears_when_complete(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out"
    with atomic_folder(target) as work:
        (work / "a").write_text("1")
        assert (
            not target.exists() and target.parent in work.parents and work.parents[1].name.startswith(".out.partial-")
        )
    assert names(target) == ["a"] and names(target.parent) == ["out"]
    umask = os.umask(0)
    os.umask(umask)
    assert target.stat().st_mode & 0o777 == 0o777 & ~umask


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_interrupted_folder_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), atomic_folder(tmp_path / "out") as work:
        (work / "a").write_text("1")
        raise error
    assert names(tmp_path) == []


def test_killed_process_leaves_no_result_under_the_name(tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import sys, time
        from deft_ct.runtime.atomic import atomic_folder
        with atomic_folder(sys.argv[1]) as work:
            (work / "a").write_text("1")
            print("ready", flush=True)
            time.sleep(60)
        """
    )
    run = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "out")], stdout=subprocess.PIPE)
    assert run.stdout is not None and run.stdout.readline().strip() == b"ready"
    run.send_signal(signal.SIGKILL)
    run.wait()
    run.stdout.close()
    assert not (tmp_path / "out").exists()


def test_non_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="not empty"), atomic_folder(tmp_path / "out"):
        pass
    with (
        pytest.raises(FileExistsError, match="it holds mine"),
        atomic_folder(tmp_path / "out", overwrite=True, is_own=lambda p: p.suffix == ".dcm"),
    ):
        pass
    assert names(tmp_path / "out") == ["mine.txt"]


def test_overwrite_replaces_own_files_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("1")
    with pytest.raises(RuntimeError), atomic_folder(target, overwrite=True, is_own=lambda p: True):
        raise RuntimeError
    assert names(target) == ["old"]
    with atomic_folder(target, overwrite=True, is_own=lambda p: True) as work:
        (work / "new").write_text("2")
        assert names(target) == ["old"]
    assert names(target) == ["new"] and names(tmp_path) == ["out"]


def test_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a" / "x.nii.gz"
    with atomic_file(path) as work:
        assert work.name.endswith(".nii.gz")
        work.write_text("1")
    with pytest.raises(KeyboardInterrupt), atomic_file(path) as work:
        work.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "1" and names(path.parent) == ["x.nii.gz"]
    with pytest.raises(IsADirectoryError), atomic_file(tmp_path):
        pass


def test_unwritable_output_is_found_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("1")
    with pytest.raises(FileExistsError, match="is a file"):
        check_writable(tmp_path / "file")
    with pytest.raises(FileExistsError, match="is a file"):
        check_writable(tmp_path / "file" / "below" / "out")
    assert check_writable(tmp_path / "new" / "out") == tmp_path / "new" / "out"
    assert names(tmp_path) == ["file"]

    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(PermissionError, match="Permission denied"):
        check_writable(tmp_path / "new" / "out")


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_read_only_parent(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PermissionError, match="cannot write"):
            check_writable(tmp_path / "out")
    finally:
        tmp_path.chmod(0o700)


def test_output_never_overlaps_the_input(tmp_path: Path) -> None:
    source = tmp_path / "scan"
    source.mkdir()
    (source / "a.dcm").write_text("1")
    for target in (source, source / "out", tmp_path):
        with pytest.raises(ValueError, match="overlaps with the input"):
            check_writable(target, source=source, overwrite=True)
    with pytest.raises(ValueError, match="overlaps"):
        check_writable(source / "out", source=source / "a.dcm")
    (tmp_path / "link").symlink_to(source)
    with pytest.raises(ValueError, match="overlaps"):
        check_writable(tmp_path / "link" / "out", source=source)
    assert check_writable(tmp_path / "out", source=source)
    archive = tmp_path / "scan.zip"
    archive.write_text("")
    assert check_writable(tmp_path / "out", source=archive)


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "a" / "x.json"
    with atomic_file(path) as first, atomic_file(path) as second:
        assert first != second
        first.write_text("1")
        second.write_text("2")
    assert path.read_text() == "1" and names(path.parent) == ["x.json"]  # the block that ends last wins
    write_text(path, "\u00b5")
    assert path.read_bytes() == b"\xc2\xb5" and names(path.parent) == ["x.json"]


def test_nothing_but_this_module_renames_files() -> None:
    files = [file for folder in CHECKED for file in sorted((ROOT / folder).resolve().rglob("*.py"))]
    assert len(files) > 100
    own = ROOT / "deft_ct" / "runtime" / "atomic.py"
    found = [
        f"{file.relative_to(ROOT)}:{line}"
        for file in files
        if file != own
        for line in renames(file.read_text(encoding="utf-8"))
    ]
    assert not found, f"use deft_ct.runtime.atomic instead of writing and renaming by hand: {found}"
    assert renames(own.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "planted",
    [
        "part.replace(path)",
        "part.rename(path)",
        "os.replace(part, path)",
        "shutil.move(part, path)",
        "part = path.with_suffix('.part')",
        "part = path.with_suffix(f'.{os.getpid()}.part')",
    ],
)
def test_a_rename_by_hand_is_found(planted: str) -> None:
    assert renames(f"geometry.replace(views=3)\ntext.replace('a', 'b')\n{planted}\n") == [3]
