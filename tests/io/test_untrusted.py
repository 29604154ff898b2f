"""HDF5 and MATLAB files that lie, point elsewhere, crash or loop: one error that names the file, and soon."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io

from deft_ct.datasets.packs import CTPack
from deft_ct.io import child_reader, reading_process, untrusted
from deft_ct.io.errors import ReadError
from deft_ct.io.limits import LIMITS, Limits
from deft_ct.io.matlab import read_matlab
from deft_ct.io.untrusted import HDF5File


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "x.h5"
    with h5py.File(target, "w") as file:
        file.create_dataset("a/hu", data=np.arange(60, dtype=">i2").reshape(5, 3, 4), chunks=(2, 3, 4), compression=4)
        file["a"].attrs.update({"pixel_mm": np.array([0.5]), "text": np.bytes_("abc"), "bad": np.nan})
        file["scalar"] = 3.5
        file["none"] = np.zeros((0, 4))
        file["soft"] = h5py.SoftLink("/a/hu")
        file["a/near"] = h5py.SoftLink("hu")
        file["loop"] = h5py.SoftLink("/loop")
        file["dangling"] = h5py.SoftLink("/nowhere")
        file["text"] = "words"
    return target


def test_structure_and_numbers(path: Path) -> None:
    file = HDF5File(path)
    assert list(file) == ["a", "dangling", "loop", "none", "scalar", "soft", "text"] and file.children("a") == [
        "hu", "near",
    ]  # fmt: skip
    expected = np.arange(60).reshape(5, 3, 4)
    for name in ("a/hu", "soft", "a/near"):
        np.testing.assert_array_equal(file.read(name), expected)
    assert file.read("a/hu").dtype == np.int16 and file.read("a/hu", dtype=np.float32).dtype == np.float32
    np.testing.assert_array_equal(file.read("a/hu", chosen=(slice(1, 5, 2), slice(-2, None))), expected[1:5:2, -2:])
    assert file.read("a/hu", chosen=(slice(9, 9),)).shape == (0, 3, 4) and file.read("none").shape == (0, 4)
    assert float(file.read("scalar")) == 3.5
    assert file.number("a", "pixel_mm") == 0.5 and file.attribute("a", "text") == "abc"
    assert file.attribute("a", "missing", 7) == 7


def test_what_is_no_number_is_said(path: Path) -> None:
    file = HDF5File(path)
    for name, why in (
        ("text", "not real numbers"), ("a", "is a group"), ("nothing", "holds no 'nothing'"),
        ("loop", "leads nowhere"), ("dangling", "'dangling' cannot be read"),
    ):  # fmt: skip
        with pytest.raises(ReadError, match=why) as caught:
            file.read(name)
        assert caught.value.path == str(path)
    with pytest.raises(ReadError, match="'bad' of 'a' must be a finite number, got 'nan'"):
        file.number("a", "bad")
    with pytest.raises(ReadError, match="expected 4 axes"):
        file.read("a/hu", chosen=(slice(None),) * 4)


def test_pieces_of_large_chunks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child's own code here, with pieces of one chunk each."""
    monkeypatch.setattr(child_reader, "BLOCK_BYTES", 1)
    request = {"path": str(path), "name": "a/hu", "shape": [5, 3, 4], "dtype": ">i2", "chosen": [[0, 5, 1], [0, 2, 1]]}
    pieces = [content for _, content in child_reader.read(request)]
    assert [len(p) for p in pieces] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate(pieces), np.arange(60).reshape(5, 3, 4)[:, :2])
    with pytest.raises(child_reader.RefusedError, match="changed while"):
        list(child_reader.read(request | {"shape": [9, 3, 4]}))


def test_other_peoples_bytes_are_refused(path: Path, tmp_path: Path) -> None:
    """External storage, external links (straight, or through a soft link) and virtual datasets lead to other files."""
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(range(24)))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["hu"] = np.ones((1, 3, 4), np.int16)
    layout = h5py.VirtualLayout((1, 3, 4), np.int16)
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "hu", (1, 3, 4))
    with h5py.File(path, "a") as file:
        file.create_dataset("storage/hu", (1, 3, 4), np.int16, external=[(str(secret), 0, 24)])
        file["link"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/")
        file["through"] = h5py.SoftLink("/link/hu")
        file.create_virtual_dataset("virtual", layout)
        assert file["through"][0, 0, 0] == 1, "h5py itself follows it"
        for name in ("storage", "link"):
            if name == "storage":
                file[name].attrs["pixel_mm"] = 1.0
    file = HDF5File(path)
    for name, why in (
        ("storage/hu", "external storage"), ("link", "external link to another file"), ("through", "external link"),
        ("virtual", "values lie in other files"),
    ):  # fmt: skip
        with pytest.raises(ReadError, match=why):
            file.read(name)
    with pytest.raises(ReadError, match="external link"):
        CTPack(path, groups=("link",))
    with pytest.raises(ReadError, match="external storage"):
        CTPack(path, groups=("storage",))


def test_declared_sizes_are_checked_before_memory_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(tmp_path / "bomb.h5", "w") as file:
        for name, count in (("huge", 300_000), ("thin", 3_000)):
            file.create_dataset(f"{name}/hu", (count, 256, 256), np.int16, chunks=(1, 256, 256))
            file[name].attrs["pixel_mm"] = 1.0
    with pytest.raises(ReadError, match=r"declares 'huge/hu' of 36\.6 GiB; at most 4\.0 GiB.*DEFT_CT_MAX_GIB=37"):
        HDF5File(tmp_path / "bomb.h5").read("huge/hu")
    with pytest.raises(ReadError, match=r"stores 0 bytes for it, an expansion of more than 200 times"):
        CTPack(tmp_path / "bomb.h5", groups=("thin",))
    assert HDF5File(tmp_path / "bomb.h5").read("huge/hu", chosen=(slice(7, 8),)).shape == (1, 256, 256)
    monkeypatch.setenv("DEFT_CT_MAX_GIB", "1")
    assert len(CTPack(tmp_path / "bomb.h5", groups=("thin",), every=100)) == 30, "who asks for it gets it"
    monkeypatch.setenv("DEFT_CT_MAX_GIB", "much")
    with pytest.raises(ValueError, match="DEFT_CT_MAX_GIB must be a number of GiB above 0, got 'much'"):
        HDF5File(tmp_path / "bomb.h5")


def test_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for n in range(12):
            file.create_group(str(n))
    monkeypatch.setattr(untrusted, "current_limits", lambda: Limits(members=10))
    with pytest.raises(ReadError, match="more than 10 objects"):
        HDF5File(tmp_path / "x.h5")
    monkeypatch.setattr(untrusted, "current_limits", lambda: Limits(file_bytes=10))
    with pytest.raises(ReadError, match="at most 10 are read"):
        HDF5File(tmp_path / "x.h5")


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Another program in place of the child; the next file gets the right one again."""

    def replace(code: str) -> None:
        script = tmp_path / "child.py"
        script.write_text(code)
        reading_process.stop()
        monkeypatch.setattr(reading_process, "CHILD", script)

    yield replace
    reading_process.stop()


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import time; time.sleep(60)", "takes more than 1 s and was ended"),
        ("import os; os.kill(os.getpid(), 11)", "crashes the library: signal 11"),
        ("import sys; sys.exit(3)", "crashes the library: status 3"),
        ("print('hello', flush=True); import time; time.sleep(60)", "no answer|crashes"),
        ("print('[1]', flush=True); import time; time.sleep(60)", "no answer|crashes"),
    ],
)
def test_a_child_that_hangs_or_dies_is_one_error(
    path: Path, stand_in: Any, monkeypatch: pytest.MonkeyPatch, code: str, why: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(untrusted, "current_limits", lambda: Limits(seconds=1.0))
        patch.setattr(reading_process, "CHILD", reading_process.CHILD)
        stand_in(code)
        start = time.monotonic()
        with pytest.raises(ReadError, match=why) as caught:
            HDF5File(path)
        assert time.monotonic() - start < 10 and caught.value.path == str(path)
    reading_process.stop()
    monkeypatch.setattr(reading_process, "CHILD", Path(child_reader.__file__))
    assert "a" in HDF5File(path)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C as in a terminal: a shell starts its background jobs with the signal ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_interrupting_ends_the_child(path: Path, stand_in: Any) -> None:
    stand_in("import time; time.sleep(60)")
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        HDF5File(path)
    assert time.monotonic() - start < 5


def test_a_forked_process_gets_a_child_of_its_own(path: Path) -> None:
    code = (
        "import os, sys\n"
        "from deft_ct.io.untrusted import HDF5File\n"
        f"total = HDF5File({str(path)!r}).read('a/hu').sum()\n"
        "pid = os.fork()\n"
        f"same = all(HDF5File({str(path)!r}).read('a/hu').sum() == total for _ in range(50))\n"
        "if pid == 0: os._exit(0 if same else 1)\n"
        "sys.exit(0 if same and os.waitpid(pid, 0)[1] == 0 else 1)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_matlab_values(tmp_path: Path) -> None:
    cell = np.empty((1, 2), object)
    cell[:] = [["a", 1.0]]
    content = {"s": {"x": np.arange(6.0).reshape(2, 3), "word": "mm", "n": 3.0, "cell": cell, "z": 1j}, "other": 1.0}
    scipy.io.savemat(tmp_path / "x.mat", content)
    found = read_matlab(tmp_path / "x.mat", ("s", "absent"))
    assert list(found) == ["s"] and found["s"]["word"] == "mm" and found["s"]["n"] == 3
    np.testing.assert_array_equal(found["s"]["x"], np.arange(6.0).reshape(2, 3))
    assert found["s"]["cell"] is None and found["s"]["z"] is None
    with pytest.raises(ReadError, match=r"holds \['other', 's'\], expected one of \['absent'\]"):
        read_matlab(tmp_path / "x.mat", ("absent",))


def test_a_compressed_matlab_file_is_not_inflated_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untrusted, "current_limits", lambda: Limits(modest_bytes=2**20))
    scipy.io.savemat(tmp_path / "x.mat", {"s": np.zeros((600, 600))}, do_compression=True)
    assert (tmp_path / "x.mat").stat().st_size < 2**14
    with pytest.raises(ReadError, match="expansion of more than 200 times"):
        read_matlab(tmp_path / "x.mat", ("s",))


def test_the_child_answers_line_by_line(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same code in this process, so that its coverage is measured."""
    monkeypatch.setattr(child_reader, "set_limits", lambda *_: None)
    scipy.io.savemat(tmp_path / "x.mat", {"s": {"x": np.arange(3.0)}})
    common = {"seconds": 1, "memory": 2**40}
    requests = [
        {"do": "tree", "path": str(path), "depth": 2, "members": 50, **common},
        {"do": "tree", "path": str(path), "depth": 2, "members": 1, **common},
        {"do": "read", "path": str(path), "name": "scalar", "shape": [], "dtype": "<f8", "chosen": [], **common},
        {"do": "read", "path": str(path), "name": "text", "shape": [], "dtype": "|O", "chosen": [], **common},
        {"do": "matlab", "path": str(tmp_path / "x.mat"), "names": ["s"], **common},
        {"do": "matlab", "path": str(tmp_path / "x.mat"), "names": ["t"], **common},
        {"do": "matlab", "path": str(path), "names": ["t"], **common},
        {"do": "tree", "path": str(tmp_path / "none"), "depth": 2, "members": 50, **common},
    ]
    replies = io.BytesIO()
    child_reader.serve(io.BytesIO(b"".join(json.dumps(r).encode() + b"\n" for r in requests)), replies)
    text = replies.getvalue()
    assert text.count(b'"done"') == 3 and text.count(b'"error"') == 5
    assert np.float64(3.5).tobytes() in text and np.arange(3.0).tobytes() in text


def test_limits_are_put_and_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_AS)
    alarms: list[int] = []
    monkeypatch.setattr(signal, "alarm", alarms.append)
    try:
        child_reader.set_limits(2.5, 2**45)
        assert resource.getrlimit(resource.RLIMIT_AS)[0] == 2**45 and alarms == [4]
    finally:
        child_reader.set_limits(0, None)
    assert resource.getrlimit(resource.RLIMIT_AS) == before and alarms == [4, 0]


def test_an_error_crosses_a_process_whole() -> None:
    import pickle

    back = pickle.loads(pickle.dumps(ReadError(Path("a/b.h5"), "is damaged")))
    assert (str(back), back.path, back.problem) == ("a/b.h5: is damaged", "a/b.h5", "is damaged")


def test_spacing_is_that_of_a_scanner() -> None:
    assert LIMITS.check_spacing("x", 0.7) == 0.7
    for value in (-1.0, 0.0, 1e12, float("nan")):
        with pytest.raises(ReadError, match=r"x: the pixel size is .* mm; expected 0\.001 to 100 mm"):
            LIMITS.check_spacing("x", value)


@pytest.mark.parametrize("value", ["wide", [1.0, 2.0], np.inf])
def test_attributes_that_are_no_number(tmp_path: Path, value: Any) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_group("a").attrs["x"] = value
    with pytest.raises(ReadError, match="the attribute 'x' of 'a' must be a finite number, got"):
        HDF5File(tmp_path / "x.h5").number("a", "x")


def test_files_that_are_not_there_or_empty(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        HDF5File(tmp_path / "none.h5")
    with pytest.raises(FileNotFoundError, match="no such file"):
        untrusted.read_matlab5(tmp_path / "none.mat", ["x"])
    (tmp_path / "x.mat").touch()
    with pytest.raises(ReadError, match="is not a MATLAB file"):
        untrusted.read_matlab5(tmp_path / "x.mat", ["x"])


def test_a_child_that_died_is_replaced(path: Path) -> None:
    HDF5File(path)
    child = reading_process._children[os.getpid()]
    child.process.kill()
    child.process.wait()
    assert HDF5File(path).read("scalar") == 3.5
    assert reading_process._children[os.getpid()] is not child and child.process.stdin.closed


@pytest.mark.parametrize(
    "messages",
    [
        [{"bytes": 8}, b"x" * 8, {"bytes": 1}, b"y", {"done": True}], [{"bytes": 9}, b"x" * 9, {"done": True}],
        [{"bytes": 4}, b"x" * 4, {"done": True}], [{"bytes": 8}, b"xxx"], [{"done": True}],
    ],
    ids=["more than was asked for", "a piece too long", "too little", "an end within an array", "nothing"],
)  # fmt: skip
def test_answers_of_another_length(messages: list[Any]) -> None:
    """An array of 8 bytes comes in pieces that add up to it, or not at all."""
    answer = b"".join(m if isinstance(m, bytes) else json.dumps(m).encode() + b"\n" for m in messages)
    child = reading_process.ReadingChild.__new__(reading_process.ReadingChild)
    child.process = SimpleNamespace(stdout=io.BytesIO(answer))
    with pytest.raises(EOFError):
        child.fill([np.empty(2, np.float32)])


def test_pieces_fill_the_arrays_in_order() -> None:
    first, second = np.arange(3, dtype=np.int16), np.arange(4, dtype=np.float64)
    whole = [first.tobytes(), second.tobytes()]
    pieces = [whole[0][:4], whole[0][4:], b"", whole[1][:8], whole[1][8:]]
    answer = b"".join(json.dumps({"bytes": len(p)}).encode() + b"\n" + p for p in pieces) + b'{"done": true}\n'
    child = reading_process.ReadingChild.__new__(reading_process.ReadingChild)
    child.process = SimpleNamespace(stdout=io.BytesIO(answer))
    arrays = [np.zeros(3, np.int16), np.empty(0), np.zeros(4)]
    child.fill(arrays)
    np.testing.assert_array_equal(arrays[0], first)
    np.testing.assert_array_equal(arrays[2], second)


def test_as_many_objects_as_allowed_are_listed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 9  # of the fixture, with those of its group
    monkeypatch.setattr(untrusted, "current_limits", lambda: Limits(members=count))
    assert len(list(HDF5File(path))) == 7
    monkeypatch.setattr(untrusted, "current_limits", lambda: Limits(members=count - 1))
    with pytest.raises(ReadError, match="it holds more than 8 objects"):
        HDF5File(path)
