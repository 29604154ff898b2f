"""Each limit on what a file may declare, on both sides of its bound, and what the child process is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io

from deft_ct.ct.volume import Volume
from deft_ct.io import child_reader, read_hdf5, reading_process, write_hdf5
from deft_ct.io.dicom_read import read_dicom_series
from deft_ct.io.errors import ReadError
from deft_ct.io.limits import LIMIT_VARIABLE, LIMITS, current_limits
from deft_ct.io.matlab import read_matlab
from deft_ct.io.untrusted import HDF5File

GIB, MIB = 2**30, 2**20


def test_the_size_of_an_array_is_bounded() -> None:
    LIMITS.check_declared("x", 4 * GIB, 4 * GIB)
    with pytest.raises(ReadError, match=r"x: it declares a thing of 4\.0 GiB; at most 4\.0 GiB .*DEFT_CT_MAX_GIB=5$"):
        LIMITS.check_declared("x", 4 * GIB + 1, 4 * GIB, what="a thing")


def test_an_expansion_is_bounded_where_it_could_do_harm() -> None:
    quarter = GIB // 4
    LIMITS.check_declared("x", quarter, 0)  # harmless, however small it is stored
    LIMITS.check_declared("x", 200 * 2 * MIB, 2 * MIB)
    with pytest.raises(ReadError, match=r"declares an array of 256\.0 MiB but stores 0 bytes .* more than 200 times"):
        LIMITS.check_declared("x", quarter + 1, 0)
    with pytest.raises(ReadError, match=r"declares slices of 400\.0 MiB but stores 2\.0 MiB.*DEFT_CT_MAX_GIB=1$"):
        LIMITS.check_expansion("x", 200 * 2 * MIB + 1, 2 * MIB, what="slices")
    with pytest.raises(ReadError, match=r"stores 1\.0 kiB for it"):
        LIMITS.check_expansion("x", GIB, 1024)
    with pytest.raises(ReadError, match="stores 1023 bytes for it"):
        LIMITS.check_expansion("x", GIB, 1023)
    LIMITS.check_expansion("x", 5 * GIB, 5 * GIB)  # for the sum of many arrays there is no other bound


def test_widths_and_values_are_those_of_scanners(tmp_path: Path) -> None:
    for value in (1e-3, 100.0):
        assert LIMITS.check_spacing("x", value) == value
    for value in (0.99e-3, 100.1):
        with pytest.raises(ReadError, match="the width is"):
            LIMITS.check_spacing("x", value, what="the width")
    for value in (1e6, -1e6):
        volume = Volume.from_spacing(np.full((1, 2, 2), value), pixel_mm=1, z_mm=1)
        assert read_hdf5(write_hdf5(volume, tmp_path / "x.h5")).hu[0, 0, 0] == value
        with pytest.raises(ReadError, match="CT numbers lie within"):
            read_hdf5(write_hdf5(volume.with_hu(volume.hu * 1.01), tmp_path / "x.h5"))


def test_files_of_more_than_64_gib_are_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    try:
        with path.open("wb") as file:
            file.truncate(64 * GIB + 1)  # takes no space
    except OSError:
        pytest.skip("the disk cannot hold so large a file")
    with pytest.raises(ReadError, match=f"has {64 * GIB + 1} bytes; at most {64 * GIB} are read"):
        HDF5File(path)
    with path.open("ab") as file:
        file.truncate(64 * GIB)
    with pytest.raises(ReadError, match="cannot be read as HDF5"):
        HDF5File(path)


@pytest.mark.parametrize(("text", "size"), [("0.5", GIB // 2), ("3", 3 * GIB), (str(2**20), 2**50), ("1e-12", 1)])
def test_the_variable_raises_three_limits(monkeypatch: pytest.MonkeyPatch, text: str, size: int) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, text)
    limits = current_limits()
    assert limits.inflated_bytes == limits.array_bytes == limits.modest_bytes == size
    assert (limits.file_bytes, limits.members, limits.hu) == (LIMITS.file_bytes, LIMITS.members, LIMITS.hu)
    monkeypatch.setenv(LIMIT_VARIABLE, "")
    assert current_limits() == LIMITS


@pytest.mark.parametrize("text", ["0", "-1", "nan", "1048577", "1 GiB"])
def test_a_variable_that_is_no_size_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, text)
    with pytest.raises(ValueError, match=f"{LIMIT_VARIABLE} must be a number of GiB above 0, got '{text}'"):
        current_limits()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The requests that the child gets."""
    requests: list[dict[str, Any]] = []
    dumps: Callable[..., str] = json.dumps

    def listen(request: Any) -> str:
        requests.append(request)
        return dumps(request)

    monkeypatch.setattr(reading_process.json, "dumps", listen)
    return requests


def test_the_child_gets_time_and_memory_by_the_size_of_the_file(tmp_path: Path, asked: list[dict[str, Any]]) -> None:
    """10 s and 1 GiB to begin with; 1 MB/s of disk (the structure is a tenth of a file), 100 MB/s of inflation."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a"] = np.zeros((1000, 500), np.int16)
        stored = file["a"].id.get_storage_size()
    size = (tmp_path / "x.h5").stat().st_size
    HDF5File(tmp_path / "x.h5").read("a", chosen=(slice(0, 10),))
    tree, read = asked
    assert tree["seconds"] == pytest.approx(10 + size / 1e7) and tree["memory"] == GIB and tree["members"] == 100_000
    assert read["seconds"] == pytest.approx(10 + stored / 1e6 + 10_000 / 1e8) and read["memory"] == GIB + 2 * 10_000
    scipy.io.savemat(tmp_path / "x.mat", {"s": np.zeros((100, 100))})
    read_matlab(tmp_path / "x.mat", ("s",))
    small = (tmp_path / "x.mat").stat().st_size
    assert asked[2]["seconds"] == pytest.approx(10 + small / 1e6)
    assert asked[2]["memory"] == GIB + 2 * (GIB // 4)  # what is harmless however it expands


def test_a_large_matlab_file_gets_memory_for_its_expansion(tmp_path: Path, asked: list[dict[str, Any]]) -> None:
    for size, room in ((2 * MIB, 400 * MIB), (30 * MIB, 4 * GIB)):
        path = tmp_path / "x.mat"
        path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(size, b"\0"))
        with pytest.raises(ReadError, match="is not a MATLAB file"):
            read_matlab(path, ("s",))
        assert asked[-1]["memory"] == GIB + 2 * room


def test_an_attribute_of_a_mebibyte_is_read_and_a_larger_one_is_not(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w", libver="latest") as file:
        file.create_group("a")
        file["a"].attrs["large"] = np.bytes_(b"x" * MIB)
        file["a"].attrs["larger"] = np.bytes_(b"x" * (MIB + 1))
    file = HDF5File(tmp_path / "x.h5")
    assert file.attribute("a", "large") == "x" * MIB
    with pytest.raises(ReadError, match=f"'larger' of 'a' cannot be read: it takes {MIB + 1} bytes"):
        file.attribute("a", "larger")


@pytest.mark.parametrize(("links", "sound"), [(16, True), (17, False)])
def test_links_are_followed_sixteen_times(tmp_path: Path, links: int, sound: bool) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["0"] = np.arange(3.0)
        for n in range(links):
            file[str(n + 1)] = h5py.SoftLink(f"/{n}")
    file = HDF5File(tmp_path / "x.h5")
    if sound:
        assert file.read(str(links)).tolist() == [0, 1, 2]
    else:
        with pytest.raises(ReadError, match="a link that leads nowhere"):
            file.read(str(links))


@pytest.mark.parametrize(("levels", "sound"), [(17, True), (18, False)])
def test_structures_are_followed_to_sixteen_below_a_variable(tmp_path: Path, levels: int, sound: bool) -> None:
    value: Any = 1.0
    for _ in range(levels):
        value = {"s": value}
    scipy.io.savemat(tmp_path / "x.mat", value)
    if sound:
        found = read_matlab(tmp_path / "x.mat", ("s",))
        for _ in range(levels):
            found = found["s"]
        assert found == 1
    else:
        with pytest.raises(ReadError, match="nested too deeply"):
            read_matlab(tmp_path / "x.mat", ("s",))


def test_words_of_a_matlab_file_are_cut_at_64_kib(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "x.mat", {"s": "a" * 2**16 + "b"})
    assert read_matlab(tmp_path / "x.mat", ("s",))["s"] == "a" * 2**16


def test_numbers_come_in_pieces_of_8_mib(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["rows"] = np.arange(9 * 2**17, dtype=np.int64).reshape(9, 2**17)  # a row takes 1 MiB
        file.create_dataset("deep", data=file["rows"][:], chunks=(3, 2**17))
        file["wide"] = np.zeros((2, 2**21))  # a row takes 16 MiB
    whole = {"path": str(tmp_path / "x.h5"), "dtype": "<i8", "chosen": [[0, 9, 1]]}
    for name, counts in (("rows", [8, 1]), ("deep", [6, 3])):
        pieces = list(child_reader.read({**whole, "name": name, "shape": [9, 2**17]}))
        assert [len(content) for _, content in pieces] == counts
        assert [head["bytes"] for head, _ in pieces] == [count * MIB for count in counts]
    wide = child_reader.read({**whole, "name": "wide", "shape": [2, 2**21], "dtype": "<f8", "chosen": [[0, 2, 1]]})
    assert [len(content) for _, content in wide] == [1, 1]
    np.testing.assert_array_equal(
        HDF5File(tmp_path / "x.h5").read("rows", chosen=(slice(1, 9, 2), slice(0, 2))),
        [[n * 2**17, n * 2**17 + 1] for n in (1, 3, 5, 7)],
    )


def test_a_reason_is_cut_at_500_characters() -> None:
    class Node:
        class attrs:  # noqa: N801 - the name in h5py
            @staticmethod
            def get_id(key: str) -> Any:
                raise ValueError("x" * 600 if key == "long" else "")

            def __iter__(self) -> Any:
                return iter(["long", "empty"])

        attrs = attrs()  # type: ignore[assignment,misc]

    assert child_reader.attributes(Node()) == {"long": ["problem", "x" * 500], "empty": ["problem", "ValueError"]}


def test_a_folder_holds_at_most_100000_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deft_ct.io import dicom_files

    monkeypatch.setattr(dicom_files, "visible_files", lambda folder, unread: [folder / "DICOMDIR"] * 100_001)
    with pytest.raises(ReadError, match="it holds more than 100000 files; name the folder of one study"):
        read_dicom_series(tmp_path)
    monkeypatch.setattr(dicom_files, "visible_files", lambda folder, unread: [folder / "DICOMDIR"] * 100_000)
    with pytest.raises(ReadError, match="it is empty"):
        read_dicom_series(tmp_path)


def test_an_empty_array_beside_others(tmp_path: Path) -> None:
    content = {"s": {"before": np.arange(3.0), "empty": np.zeros((0, 3)), "after": np.arange(5.0)}}
    scipy.io.savemat(tmp_path / "x.mat", content)
    found = read_matlab(tmp_path / "x.mat", ("s",))["s"]
    assert found["before"].tolist() == [0, 1, 2] and found["after"].tolist() == [0, 1, 2, 3, 4]
    assert found["empty"].size == 0
