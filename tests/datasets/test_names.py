"""Names of data, part by part."""

from __future__ import annotations

from pathlib import Path

import pytest

from deft_ct.datasets.names import DataName, parse_data_name

WORDS = {"lodopab": ("train", "test"), "aapm": ()}
OPTIONS = {"lodopab": ("views", "every"), "aapm": ("dose",)}


def parsed(text: str) -> DataName:
    return parse_data_name(text, WORDS, OPTIONS)


def test_words_and_options_follow_the_folder(tmp_path: Path) -> None:
    assert parsed(f"lodopab:{tmp_path}") == DataName("lodopab", tmp_path)
    for rest in ("test:views=50:every=2", "views=50:test:every=2", "every=2:views=50:test"):
        assert parsed(f"lodopab:{tmp_path}:{rest}") == DataName(
            "lodopab", tmp_path, ("test",), {"views": "50", "every": "2"}
        )
    assert parsed(f"lodopab:{tmp_path}:train:test").words == ("train", "test")


def test_a_folder_may_have_colons(tmp_path: Path) -> None:
    odd = tmp_path / "a:test:b=c"
    odd.mkdir()
    assert parsed(f"lodopab:{odd}:views=4") == DataName("lodopab", odd, (), {"views": "4"})
    inner = tmp_path / "a:views"
    inner.mkdir()
    assert parsed(f"lodopab:{inner}:test") == DataName("lodopab", inner, ("test",))
    # What another kind knows belongs to the folder.
    with pytest.raises(
        FileNotFoundError, match=rf"no such folder or file: {tmp_path}:test \(after .* knows dose=\.\.\.\)"
    ):
        parsed(f"aapm:{tmp_path}:test")


def test_home_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parsed("aapm:~").root == tmp_path


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("lodo:/x", "unknown kind of data 'lodo'; known are lodopab, aapm"),
        ("lodopab", "'lodopab' names no folder: expected lodopab:FOLDER"),
        ("lodopab:", "'lodopab:' names no folder"),
        ("lodopab::test", "'lodopab::test' names no folder"),
        ("lodopab:.:views=4:views=5", "lodopab: views is there twice in 'lodopab:.:views=4:views=5'"),
    ],
)
def test_names_that_are_none(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parsed(text)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"no such folder or file: .*none \(after the folder, lodopab knows train, "
    ):
        parsed(f"lodopab:{tmp_path / 'none'}")
    with pytest.raises(FileNotFoundError, match=r"none$"):
        parse_data_name(f"plain:{tmp_path / 'none'}", {"plain": ()}, {"plain": ()})


def test_words_and_options_are_checked() -> None:
    name = DataName("lodopab", Path("x"), ("test", "raw"), {"views": "50", "list": "1,22"})
    assert name.word(("train", "test"), "train") == "test" and name.word(("full", "low"), "full") == "full"
    with pytest.raises(ValueError, match="lodopab: test and raw exclude each other; say one of test, raw"):
        name.word(("test", "raw"), "raw")
    assert name.option("views", "1000") == "50" and name.option("other", "7", ("7",)) == "7"
    assert name.option("views", "1000", ("50", "60")) == "50"
    with pytest.raises(ValueError, match="lodopab: views must be one of 10, 20, got '50'"):
        name.option("views", "10", ("10", "20"))
    assert name.integers("list", (3,)) == [1, 22] and name.integers("none", (3, 4)) == [3, 4]


@pytest.mark.parametrize("text", ["", "0", "1,", "1,-2", "1.5", "\u0663", "a", "1, 2"])
def test_integers_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="lodopab: n must be positive integers separated by commas"):
        DataName("lodopab", Path("x"), options={"n": text}).integers("n", ())


def test_one_number_or_several(tmp_path: Path) -> None:
    name = parsed(f"lodopab:{tmp_path}:views=8,9:every=3")
    assert name.integers("views", [1]) == [8, 9] and name.integer("every", 1) == 3
    assert parsed(f"lodopab:{tmp_path}").integers("views", [7]) == [7]
    with pytest.raises(ValueError, match="lodopab: views must be one positive integer, got '8,9'"):
        name.integer("views", 3)
    for wrong in ("0", "8,", "-1", "1.5", "8,0"):
        with pytest.raises(ValueError, match="views must be positive integers separated by commas"):
            parsed(f"lodopab:{tmp_path}:views={wrong}").integers("views", [1])
