"""Content keys: what counts, what does not, and what a refusal says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deft_ct.runtime.content_key import ContentKey, OtherContentError, content_digest, release_of, result_versions

BASE: dict[str, Any] = {
    "data": content_digest([np.arange(6)]), "seed": 0, "network": {"channels": [32, 64], "patch": 2}, "photons": None
}  # fmt: skip


def test_equal_values_have_one_key_whatever_their_order_and_kind() -> None:
    key = ContentKey(BASE)
    other = ContentKey({"photons": None, "network": {"patch": np.int64(2), "channels": (32, 64)}, **BASE, "seed": 0})
    assert key.digest == other.digest and not key.differences(other.parts)
    assert ContentKey(key.parts).digest == key.digest  # as it is read back
    assert key.parts["network.channels"] == [32, 64]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"seed": 1}, "seed"), ({"seed": 0.5}, "seed"), ({"seed": None}, "seed"), ({"seed": "0"}, "seed"),
        ({"network": {"channels": [32, 64], "patch": 4}}, "network.patch"),
        ({"network": {"channels": [32], "patch": 2}}, "network.channels"),
        ({"data": content_digest([np.arange(6, dtype=np.float32)])}, "data"),
        ({"photons": float("nan")}, "photons"), ({"more": {}}, "more"),
    ],
)  # fmt: skip
def test_each_value_counts(change: dict[str, Any], name: str) -> None:
    assert ContentKey(BASE | change).differences(ContentKey(BASE).parts) == [name]
    assert ContentKey(BASE).differences(ContentKey(BASE | change).parts) == [name]
    assert ContentKey(BASE | change).digest != ContentKey(BASE).digest


def test_long_values_count_by_their_hash() -> None:
    """Two long lists that differ in one place; a text of them would be cut."""
    one = np.zeros(5000)
    other = one.copy()
    other[2500] = 1
    for a, b in ((one, other), (one.tolist(), other.tolist()), (torch.tensor(one), torch.tensor(other))):
        key = ContentKey({"mask": a})
        assert key.differences({"mask": b}) == ["mask"] and len(str(key.parts)) < 200


def test_a_digest_sees_shape_type_and_content_alone() -> None:
    x = np.arange(12, dtype=np.int16).reshape(3, 4)
    digest = content_digest([x])
    assert digest == content_digest([x.copy()]) == content_digest([torch.tensor(x)])
    assert digest == content_digest([np.asfortranarray(x)]) == content_digest([x[:]])
    for other in (x.reshape(4, 3), x.astype(np.int32), x + 1, x.T):
        assert content_digest([other]) != digest
    assert content_digest([x, x]) != digest
    assert content_digest([1, 23]) != content_digest([12, 3])


def test_a_refusal_is_one_sentence_with_both_values_and_what_to_do(tmp_path: Path) -> None:
    stored = ContentKey(BASE).parts
    ContentKey(BASE).check(stored, tmp_path)
    with pytest.raises(OtherContentError) as one:
        ContentKey(BASE | {"seed": 1}).check(stored, tmp_path)
    assert str(one.value) == (
        f"{tmp_path} was started with seed 0 and this run has seed 1: use seed 0 to resume, choose another folder "
        "(--out), or start anew (--overwrite)"
    )
    other = content_digest([1])
    with pytest.raises(OtherContentError, match=f"data {BASE['data'][:12]} and this run has data {other[:12]}: use"):
        ContentKey(BASE | {"data": other}).check(stored, tmp_path)
    with pytest.raises(OtherContentError, match="with no loss and this run has loss 'a':"):
        ContentKey(BASE | {"loss": "a"}).check(stored, tmp_path)
    many = {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}
    with pytest.raises(
        OtherContentError, match="a 1, b 2, c 3 and 2 more and this run has no a, no b, no c and 2 more"
    ):
        ContentKey({}).check(many, tmp_path)


@pytest.mark.parametrize(
    ("installed", "release"),
    [
        ("0.1.0", "0.1.0"), ("0.1.0.dev823+g9971bd3.d20261128", "0.1.0"), ("0.2.dev1", "0.2.0"),
        ("1.12.3.dev4+gabc", "1.12.3"), ("2", "2.0.0"), ("0.2.0rc1", "0.2.0"), ("unknown", "unknown"),
    ],
)  # fmt: skip
def test_commits_between_two_releases_do_not_change_keys(installed: str, release: str) -> None:
    assert release_of(installed) == release


def test_versions_are_those_that_results_depend_on() -> None:
    assert set(result_versions()) == {"deft_ct", "torch"}
    assert result_versions()["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
