from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from deft_ct.datasets.packs import CTPack, data_root, pack_path, read_pack


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    path = tmp_path / "pack.h5"
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        # Written in another order than the sorted one, on purpose.
        for name, count, pixel in (("b_series", 7, 1.5), ("a_series", 5, 0.7)):
            group = file.create_group(name)
            group["hu"] = rng.integers(-1024, 3072, (count, 8, 8), dtype=np.int16)
            group["z_mm"] = np.arange(count, dtype=np.float32) * 3
            group.attrs.update({"pixel_mm": pixel, "collection": "TEST", "patient": name, "slice_thickness_mm": "3"})
    return path


def test_order_is_sorted_groups_then_file_order(pack: Path) -> None:
    data = CTPack(pack)
    assert len(data) == 12 and data.image_shape == (8, 8)
    assert [(s.group, s.index, s.position) for s in data][:6] == [("a_series", i, i) for i in range(5)] + [
        ("b_series", 0, 5)
    ]
    with h5py.File(pack) as file:
        np.testing.assert_array_equal(data[6].hu[0].numpy(), file["b_series/hu"][1])
    assert data[6].hu.shape == (1, 8, 8) and data[6].hu.dtype == torch.float32
    assert (data[0].pixel_mm, data[-1].pixel_mm, data[6].z_mm) == (0.7, 1.5, 3.0)


def test_every_counts_over_the_whole_list(pack: Path) -> None:
    data, whole = CTPack(pack, every=4), CTPack(pack)
    assert [s.position for s in data] == [0, 4, 8]
    assert all(torch.equal(s.hu, whole[s.position].hu) for s in data)
    np.testing.assert_array_equal(data.pixel_mm, [0.7, 0.7, 1.5])


def test_batch_is_the_stack_of_slices(pack: Path) -> None:
    data = CTPack(pack)
    assert torch.equal(data.batch([3, 11]), torch.stack([data[3].hu, data[11].hu]))
    assert not data.array().flags.writeable


def test_works_with_a_data_loader(pack: Path) -> None:
    loader = DataLoader(CTPack(pack), batch_size=4, collate_fn=lambda s: torch.stack([x.hu for x in s]))
    assert [tuple(b.shape) for b in loader] == [(4, 1, 8, 8)] * 3


def test_groups_can_be_chosen(pack: Path) -> None:
    assert len(CTPack(pack, groups=("b_series",))) == 7
    with pytest.raises(ValueError, match=r"no group \['c'\]; it has \['a_series', 'b_series'\]"):
        CTPack(pack, groups=("c",))


def test_bad_packs(tmp_path: Path, pack: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such data pack"):
        CTPack(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(ValueError, match="cannot be read as HDF5"):
        CTPack(tmp_path / "text.h5")
    for path in (pack, tmp_path / "none.h5"):  # before the file is looked at
        with pytest.raises(ValueError, match="every must be at least 1"):
            CTPack(path, every=0)
        with pytest.raises(ValueError, match="limit must be at least 1"):
            CTPack(path, limit=0)
    with pytest.raises(IndexError):
        CTPack(pack)[12]
    for name, content in (("float", np.zeros((2, 4, 4), np.float32)), ("flat", np.zeros((4, 4), np.int16))):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["g/hu"] = content
            file["g"].attrs["pixel_mm"] = 1.0
        with pytest.raises(ValueError, match="int16 in HU"):
            CTPack(tmp_path / f"{name}.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = np.zeros(3)
    with pytest.raises(ValueError, match="is not a series"):
        CTPack(tmp_path / "other.h5")


def test_data_root_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEFT_CT_DATA", str(tmp_path))
    assert data_root() == tmp_path
    monkeypatch.setenv("DEFT_CT_DATA", str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match="DEFT_CT_DATA"):
        data_root()


def test_data_beside_the_working_directory_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shared" / "data" / "ct256").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("DEFT_CT_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="DEFT_CT_DATA"):
        data_root()


def test_validation_protocol_on_the_real_pack() -> None:
    try:
        path = data_root() / "ct256" / "val.h5"
    except FileNotFoundError as error:
        pytest.skip(str(error))
    data = CTPack(path, every=10)
    assert len(data) == 26 and data.image_shape == (256, 256)
    assert [s.position for s in data] == list(range(0, 255, 10))
    assert -1024 <= int(data.array().min()) and int(data.array().max()) <= 3071


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.h5", "train"), ("train_more.h5", "train"), ("val.h5", "val"), ("test.h5", "test"),
        ("test_volumes.h5", "test"), ("test_singles.h5", "test"), ("latest_val.h5", None), ("contest.h5", None),
        ("test_volumes_copy.h5", None),
    ],
)  # fmt: skip
def test_official_files_have_their_split_and_other_names_say_nothing(pack: Path, name: str, split: str | None) -> None:
    assert CTPack(pack.rename(pack.with_name(name))).split == split


def test_the_file_says_its_split(pack: Path) -> None:
    path = pack.rename(pack.with_name("test.h5"))
    with h5py.File(path, "a") as file:
        file.attrs["split"] = "val"
    assert CTPack(path).split == "val"  # more than its name
    with h5py.File(path, "a") as file:
        file.attrs["split"] = "validation"
    with pytest.raises(ValueError, match="split must be one of train, val, test, got 'validation'"):
        CTPack(path)


def test_patients_of_two_collections_are_two(tmp_path: Path) -> None:
    """Collections count their patients anew: p001 of one is not p001 of the other."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, collection, patient in (("a", "X", "p001"), ("b", "Y", "p001"), ("c", "Y", ""), ("d", "", "p001")):
            group = file.create_group(name)
            group.attrs.update({"pixel_mm": 1.0, "collection": collection, "patient": patient})
            group["hu"] = np.zeros((1, 8, 8), np.int16)
    assert CTPack(tmp_path / "a.h5").patients == ["X_p001", "Y_p001", "c", "p001"]


def test_names_and_empty_files(tmp_path: Path, pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert CTPack(pack).name == "pack.h5"
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    with pytest.raises(ValueError, match="holds no series; expected one group per series"):
        CTPack(tmp_path / "empty.h5")
    monkeypatch.delenv("DEFT_CT_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="no data 'val': no data packs"):
        pack_path("val")
    monkeypatch.setenv("DEFT_CT_DATA", str(tmp_path))
    assert pack_path("val") == tmp_path / "ct256" / "val.h5"
    assert pack_path("a.h5") == Path("a.h5") and pack_path("b/c.hdf5") == Path("b/c.hdf5")
    assert len(read_pack(str(pack), 3, 2)) == 2 and read_pack(str(pack), 3).every == 3


def test_what_a_pack_says_of_its_series(tmp_path: Path, pack: Path) -> None:
    with h5py.File(pack, "a") as file:
        file["a_series"].attrs.update({"licence": "CC", "doi": "10.1", "kernel": "B30"})
        del file["b_series"].attrs["slice_thickness_mm"], file["b_series/z_mm"]
    first, second = CTPack(pack).groups
    assert (first.name, first.slices, first.pixel_mm, first.collection, first.patient) == (
        "a_series", 5, 0.7, "TEST", "a_series",
    )  # fmt: skip
    assert (first.licence, first.doi, first.kernel, first.slice_thickness_mm) == ("CC", "10.1", "B30", 3.0)
    assert (second.licence, second.kernel, second.slice_thickness_mm) == ("", "", None)
    assert np.isnan([s.z_mm for s in CTPack(pack)][5:]).all()
    with h5py.File(pack, "a") as file:
        file["b_series/z_mm"] = np.zeros(6)
    with pytest.raises(ValueError, match=r"'b_series/z_mm' has shape \(6,\), expected \(7,\)"):
        CTPack(pack)
    with h5py.File(pack, "a") as file:
        del file["b_series"]
        file["c/hu"] = np.zeros((2, 4, 8), np.int16)
        file["c"].attrs["pixel_mm"] = 1.0
    with pytest.raises(ValueError, match=r"its series differ in size: \[\(4, 8\), \(8, 8\)\]"):
        CTPack(pack)


def test_the_hash_of_a_pack_is_that_of_what_counts(pack: Path) -> None:
    whole = CTPack(pack).content_hash()
    assert CTPack(pack.rename(pack.with_name("other.h5"))).content_hash() == whole
    pack = pack.with_name("other.h5")
    assert CTPack(pack, every=2).content_hash() != whole != CTPack(pack, groups=("a_series",)).content_hash()
    hashes = {whole}
    for name, change in (("patient", "x"), ("pixel_mm", 0.9)):
        with h5py.File(pack, "a") as file:
            file["a_series"].attrs[name] = change
        hashes.add(CTPack(pack).content_hash())
    for name in ("hu", "z_mm"):
        with h5py.File(pack, "a") as file:
            file[f"a_series/{name}"][0] += 1
        hashes.add(CTPack(pack).content_hash())
    assert len(hashes) == 5


def test_negative_numbers_count_from_the_end(pack: Path) -> None:
    data = CTPack(pack)
    assert torch.equal(data[-12].hu, data[0].hu) and data[-1].position == 11
    with pytest.raises(IndexError, match="slice -13 of a pack of 12"):
        data[-13]
