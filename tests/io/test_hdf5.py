from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from deft_ct.ct.volume import Volume
from deft_ct.io import read_hdf5, write_hdf5
from deft_ct.io.errors import ReadError
from deft_ct.io.matlab import read_matlab

VOLUME = Volume(
    np.random.default_rng(0).normal(0, 300, (3, 4, 5)),
    np.array([[0.7, 0, 0, -30.0], [0, 0.7, 0, -20.0], [0, 0, 2.5, 100.0], [0, 0, 0, 1.0]]),
)


def test_round_trip(tmp_path: Path) -> None:
    path = write_hdf5(VOLUME, tmp_path / "x.h5", arrays={"std_hu": np.ones((3, 4, 5))}, provenance={"seed": 3})
    back = read_hdf5(path)
    np.testing.assert_array_equal(back.hu, VOLUME.hu)
    np.testing.assert_array_equal(back.affine, VOLUME.affine)
    with h5py.File(path) as file:
        assert json.loads(file.attrs["provenance"]) == {"seed": 3} and "not for clinical use" in file.attrs["note"]
        assert file["std_hu"].shape == (3, 4, 5) and file["hu"].attrs["pixel_mm"] == pytest.approx(0.7)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such HDF5 file: .*none\.h5"):
        read_hdf5(tmp_path / "none.h5")


def test_bad_input_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'hu' is taken"):
        write_hdf5(VOLUME, tmp_path / "x.h5", arrays={"hu": VOLUME.hu})
    with pytest.raises(TypeError):
        write_hdf5(VOLUME, tmp_path / "x.h5", provenance={"x": object()})
    with pytest.raises(TypeError):
        write_hdf5(VOLUME, tmp_path / "x.h5", arrays={"bad": np.array([object()])})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        read_hdf5(tmp_path / "x.h5")
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(ValueError, match="cannot be read as HDF5"):
        read_hdf5(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = np.zeros(3)
    with pytest.raises(ValueError, match=r"no dataset 'hu'.* it has \['data'\]"):
        read_hdf5(tmp_path / "other.h5")


def test_matlab_files_of_the_newer_format(tmp_path: Path) -> None:
    """Written as MATLAB writes them: HDF5 behind 512 bytes, columns first."""
    with h5py.File(tmp_path / "x.mat", "w", userblock_size=512) as file:
        file["numbers"] = np.arange(6.0).reshape(3, 2)
        file["one"] = np.array([[7.0]])
        file["empty"] = np.array([0, 0], np.uint64)
        file["empty"].attrs["MATLAB_empty"] = 1
        file["words"] = np.array([[ord(c)] for c in "text"], np.uint16)
        file["words"].attrs["MATLAB_class"] = np.bytes_("char")
        file["record/field"] = np.array([[3.0, 4.0]])
        file["#refs#/a"] = np.zeros(1)
        file["gone"] = h5py.SoftLink("/nowhere")
    (tmp_path / "x.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(512, b" ") + (tmp_path / "x.mat").read_bytes()[512:])
    found = read_matlab(tmp_path / "x.mat", ("numbers", "one", "empty", "words", "record", "missing"))
    np.testing.assert_array_equal(found["numbers"], [[0, 2, 4], [1, 3, 5]])
    assert found["one"] == 7.0 and found["empty"].shape == (0,) and found["words"] == "text"
    np.testing.assert_array_equal(found["record"]["field"], [3.0, 4.0])
    assert "missing" not in found
    with pytest.raises(ReadError, match=r"holds \['empty', 'gone', .*'words'\], expected one of \['other'\]") as caught:
        read_matlab(tmp_path / "x.mat", ("other",))
    assert "#refs#" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_matlab(tmp_path / "none.mat", ("x",))
