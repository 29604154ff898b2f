"""Output folders: one process at a time, links written through, files of others kept, killed runs cleaned up."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from tiny import tiny_htransform, tiny_prior
from tiny_training import tiny_config, tiny_loss, tiny_network

from deft_ct.diffusion import save_prior
from deft_ct.methods.deft import load_htransform, save_htransform
from deft_ct.methods.deft.spread_calibration import SpreadCalibration
from deft_ct.runtime.atomic import atomic_file, atomic_folder, occupy_folder, reserve_folder
from deft_ct.runtime.durable import hidden_prefix
from deft_ct.runtime.locks import InUseError
from deft_ct.training import CHECKPOINT, fit
from deft_ct.training.checkpoint_file import PREVIOUS

HOLD = """
import sys
from deft_ct.runtime.atomic import occupy_folder, reserve_folder
with (occupy_folder if sys.argv[2] == "occupy" else reserve_folder)(sys.argv[1]):
    print("ready", flush=True)
    sys.stdin.read()
"""
WRITE = """
import sys
from pathlib import Path
from deft_ct.runtime.atomic import atomic_folder, reserve_folder
print("ready", flush=True)
for number in range(10**6):
    with reserve_folder(sys.argv[1], overwrite=True) as target:
        with atomic_folder(target, overwrite=True, is_own=lambda p: p.name in "ab") as work:
            for name in "ab":
                (work / name).write_text(str(number))
"""


def start(program: str, *arguments: object) -> subprocess.Popen[bytes]:
    run = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert run.stdout is not None and run.stdout.readline().strip() == b"ready"
    return run


def stop(run: subprocess.Popen[bytes]) -> None:
    run.kill()
    run.communicate()


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def overwrite(target: Path, text: str) -> None:
    with atomic_folder(target, overwrite=True, is_own=lambda p: p.name in "ab") as work:
        (work / "a").write_text(text)


@pytest.mark.parametrize("kind", ["occupy", "reserve"])
def test_a_second_process_is_refused_and_told_who_holds_the_folder(kind: str, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out"
    run = start(HOLD, target, kind)
    hold = occupy_folder if kind == "occupy" else reserve_folder
    with pytest.raises(InUseError, match=f"out is in use by process {run.pid} on"), hold(target):
        pass
    stop(run)  # killed: its lock ends with it
    with hold(target), hold(target):
        pass
    assert names(tmp_path) == ["deep"] and not any(tmp_path.rglob("*lock"))


def test_two_trainings_in_one_folder_are_refused(tmp_path: Path) -> None:
    run = start(HOLD, tmp_path, "occupy")
    with pytest.raises(InUseError, match="in use by process"):
        fit(tiny_network(), tiny_loss, 10, tiny_config(), tmp_path, progress=False, identity={})
    stop(run)
    fit(tiny_network(), tiny_loss, 10, tiny_config(), tmp_path, progress=False, identity={})
    assert names(tmp_path) == [CHECKPOINT, "log.csv"]


def test_a_file_that_appears_during_the_run_is_kept_and_so_is_the_result(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with pytest.raises(FileExistsError, match=r"new result is in .*out-2"), atomic_folder(target) as work:
        (work / "a").write_text("new")
        target.mkdir()
        (target / "thesis.txt").write_text("of the user")
    assert (target / "thesis.txt").read_text() == "of the user" and names(target) == ["thesis.txt"]
    assert (tmp_path / "out-2" / "a").read_text() == "new" and names(tmp_path) == ["out", "out-2"]


def test_a_foreign_file_in_an_old_result_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "out"
    overwrite(target, "1")
    with (
        pytest.raises(FileExistsError, match=r"it holds thesis\.txt"),
        atomic_folder(target, overwrite=True, is_own=lambda p: p.name == "a") as work,
    ):
        (work / "a").write_text("2")
        (target / "thesis.txt").write_text("of the user")
    assert (target / "a").read_text() == "1" and (target / "thesis.txt").is_file()


def test_a_link_is_written_through(tmp_path: Path) -> None:
    real, link = tmp_path / "disk" / "real", tmp_path / "out"
    real.mkdir(parents=True)
    link.symlink_to(real)
    overwrite(link, "1")
    overwrite(link, "2")
    assert link.is_symlink() and (real / "a").read_text() == "2" and names(real.parent) == ["real"]
    (tmp_path / "f").symlink_to(tmp_path / "disk" / "g")
    with atomic_file(tmp_path / "f") as work:
        work.write_text("3")
    assert (tmp_path / "f").is_symlink() and (tmp_path / "disk" / "g").read_text() == "3"
    (tmp_path / "gone").symlink_to(tmp_path / "unmounted" / "out")
    with pytest.raises(FileNotFoundError, match="is it mounted"):
        overwrite(tmp_path / "gone", "1")
    assert not (tmp_path / "unmounted").exists()


@pytest.mark.parametrize("name", ["thesis.txt", "config.json", "results.csv"])
def test_a_prior_is_not_written_over_files_of_a_user(name: str, tmp_path: Path) -> None:
    (tmp_path / "mydata").mkdir()
    (tmp_path / "mydata" / name).write_text("of the user")
    with pytest.raises(FileExistsError, match=name):
        save_prior(tiny_prior(), tmp_path / "mydata")
    assert (tmp_path / "mydata" / name).read_text() == "of the user" and names(tmp_path) == ["mydata"]


def test_a_rewritten_h_transform_keeps_its_calibrations(tmp_path: Path) -> None:
    folder, head = tmp_path / "htransform", tiny_htransform(tiny_prior())
    save_htransform(head, folder)
    SpreadCalibration(factor=2.0).write(folder / "calibration-scan.json")
    save_htransform(head, folder)
    assert load_htransform(folder).card["calibrations"][0]["factor"] == 2.0


@pytest.mark.parametrize("damage", ["empty", "half", "missing"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(damage: str, tmp_path: Path) -> None:
    whole = fit(
        tiny_network(), tiny_loss, 10, tiny_config(), tmp_path / "whole", progress=False, identity={}
    ).state_dict()
    run = tmp_path / "run"
    fit(tiny_network(), tiny_loss, 10, tiny_config(checkpoint_minutes=1e-9), run, progress=False, identity={})
    content = (run / CHECKPOINT).read_bytes()
    if damage == "missing":
        (run / CHECKPOINT).unlink()
    else:
        (run / CHECKPOINT).write_bytes(b"" if damage == "empty" else content[: len(content) // 2])
    with pytest.warns(UserWarning, match=f"{PREVIOUS} of step 23, is used"):
        again = fit(tiny_network(), tiny_loss, 10, tiny_config(), run, progress=False, identity={}).state_dict()
    assert all(torch.equal(again[name], value) for name, value in whole.items())
    for name in (CHECKPOINT, PREVIOUS):
        (run / name).write_bytes(b"")
    with pytest.raises(ValueError, match="cannot be read as a checkpoint: remove them"):
        fit(tiny_network(), tiny_loss, 10, tiny_config(), run, progress=False, identity={})


@pytest.mark.parametrize("seed", range(4))
def test_kills_at_random_times_leave_an_old_or_a_new_result(seed: int, tmp_path: Path) -> None:
    target = tmp_path / "out"
    overwrite(target, "-1")
    run = start(WRITE, target)
    time.sleep(random.Random(seed).uniform(0.0, 0.4))
    run.send_signal(signal.SIGKILL)
    run.communicate()
    with reserve_folder(target, overwrite=True):  # the next run puts back what lay between two renames
        assert len({path.read_text() for path in target.iterdir()}) == 1 and target.is_dir()
    assert names(tmp_path) == ["out"]


def test_what_killed_runs_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    foreign = tmp_path / ".out.partial-abcdefgh"
    foreign.mkdir()
    (foreign / "mine.txt").write_text("of the user")
    program = "import os, sys\nfrom deft_ct.runtime.atomic import atomic_folder\n"
    program += "with atomic_folder(sys.argv[1]) as work:\n (work / 'a.dcm').write_text('patient')\n os._exit(9)\n"
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "out")], env=dict(os.environ), check=False)
    assert list(tmp_path.rglob("a.dcm"))
    overwrite(tmp_path / "out", "1")
    assert not list(tmp_path.rglob("a.dcm"))
    assert names(tmp_path) == [foreign.name, "out"] and names(foreign) == ["mine.txt"]


@pytest.mark.parametrize("length", [3, 32, 33, 41, 42, 120])
def test_a_hidden_folder_that_was_never_marked_is_removed_whatever_the_length_of_its_name(
    length: int, tmp_path: Path
) -> None:
    """A process killed just after the folder was made, which wrote a file that no later run writes again."""
    target = tmp_path / "out" / "parts" / ("x" * length)
    target.parent.mkdir(parents=True)
    hidden = Path(tempfile.mkdtemp(prefix=hidden_prefix(target), dir=target.parent))
    (hidden / "lock").touch()
    with occupy_folder(tmp_path / "out"):
        assert names(target.parent) == []


def test_half_a_line_in_a_journal_is_cut_off(tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="the extra 'tune' is not installed")
    from deft_ct.evaluation.journal import journal_backend

    path = tmp_path / "study.journal"
    journal_backend(path).append_logs([{"op_code": 1}])
    with path.open("ab") as file:
        file.write(b'{"op_code": 2, "wor')
    backend = journal_backend(path)
    backend.append_logs([{"op_code": 3}])
    assert [json.loads(line)["op_code"] for line in path.read_text().splitlines()] == [1, 3]
    assert names(tmp_path) == ["study.journal"]
