"""Every writer on a disk that fails at any call: nothing lost, nothing half written, one line that names the path."""

from __future__ import annotations

import errno
import sys
import warnings
from pathlib import Path

import pytest
from faults import Disk, failing
from writers import WRITERS, Writer

ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES)


def hidden(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.name.startswith("."))


def inject(writer: Writer, root: Path, before: int | None, number: int, fail_at: int) -> bool:
    """Fail one call while the second generation is written; returns whether there are so many calls."""
    folder = root / f"{before}-{errno.errorcode[number]}-{fail_at}"
    folder.mkdir()
    (folder / "thesis.txt").write_text("of the user")
    if before:
        writer.write(folder, before)
    disk = Disk(folder, fail_at, number)
    failed = ""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            with failing(disk):
                writer.write(folder, 2)
        except OSError as error:
            failed = str(error)
    reached = len(disk.calls) >= fail_at
    if failed:
        assert reached and "\n" not in failed and str(folder) in failed and ".partial-" not in failed, failed
    elif reached:
        assert writer.read(folder) == 2, disk.calls[fail_at - 1]
        assert all("\n" not in str(w.message) and str(folder) in str(w.message) for w in warned)
    assert writer.read(folder) in (before, 2), f"{disk.calls[fail_at - 1 :][:1]}: {failed}"
    writer.write(folder, 2)
    assert writer.read(folder) == 2
    assert (folder / "thesis.txt").read_text() == "of the user"
    assert hidden(folder) == []
    return reached


def inject_all(writer: Writer, root: Path, before: int | None, errors: tuple[int, ...]) -> int:
    """Fail every call in turn, with the errors in rotation; returns how many there are."""
    fail_at = 1
    while inject(writer, root, before, errors[fail_at % len(errors)], fail_at):
        fail_at += 1
    return fail_at - 1


@pytest.mark.parametrize("before", [None, 1])
@pytest.mark.parametrize("name", WRITERS)
def test_a_failing_call_loses_nothing(name: str, before: int | None, tmp_path: Path) -> None:
    assert inject_all(WRITERS[name], tmp_path, before, ERRORS) > 10


@pytest.mark.slow
@pytest.mark.parametrize("number", ERRORS)
def test_a_thousand_failures_of_each_kind(number: int, tmp_path: Path) -> None:
    count = 0
    for name, writer in WRITERS.items():
        for before in (None, 1):
            root = tmp_path / f"{name}-{before}"
            root.mkdir()
            count += inject_all(writer, root, before, (number,))
    sys.stdout.write(f"{count} injections of {errno.errorcode[number]}\n")
    assert count > 1000
