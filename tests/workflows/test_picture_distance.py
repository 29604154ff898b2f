"""FID and KID of folders of pictures, and the command that prints them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_inception import FEATURES, TinyInception, write_tiny_inception
from typer.testing import CliRunner

from deft_ct.cli import app
from deft_ct.evaluation import picture_sets
from deft_ct.evaluation.picture_sets import set_distance
from deft_ct.runtime.read_error import ReadError
from deft_ct.workflows.picture_distance import folder_distance


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return write_tiny_inception(tmp_path / "tiny.pt", monkeypatch)


def write_pictures_of(folder: Path, count: int, *, seed: int, mode: str = "RGB") -> torch.Tensor:
    """Pictures of several sizes, some in a sub-folder; their features."""
    rng, features = np.random.default_rng(seed), []
    (folder / "more").mkdir(parents=True)
    for n in range(count):
        shape = (6 + n % 2, 8) if mode == "L" else (6 + n % 2, 8, 3)
        pixels = rng.integers(0, 256, shape, np.uint8)
        Image.fromarray(pixels).save(folder / ("more" if n % 3 == 0 else "") / f"{n}.png")
        colours = pixels[..., None].repeat(3, -1) if mode == "L" else pixels
        with torch.no_grad():
            features.append(TinyInception()(torch.from_numpy(np.moveaxis(colours, -1, 0).copy())[None], True))
    return torch.cat(features).double()


def test_folders_have_the_distance_of_their_pictures(tmp_path: Path, network: Path) -> None:
    x = write_pictures_of(tmp_path / "true", 12, seed=0)
    y = write_pictures_of(tmp_path / "restored", 9, seed=1, mode="L")
    expected, found = set_distance(x, y), folder_distance(tmp_path / "true", tmp_path / "restored", inception=network)
    assert found.counts == (12, 9) and found.subset_size == expected.subset_size
    for name in ("fid", "kid", "kid_std"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-4, abs=1e-7)


def test_the_command_prints_all_that_a_table_needs(tmp_path: Path, network: Path) -> None:
    write_pictures_of(tmp_path / "true", 12, seed=0)
    write_pictures_of(tmp_path / "restored", 9, seed=1)
    found = folder_distance(tmp_path / "true", tmp_path / "restored", inception=network)
    words = ["data", "distance", str(tmp_path / "true"), str(tmp_path / "restored"), "--inception", str(network)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert f"FID {found.fid:.4g}\n" in result.stdout
    assert f"KID {found.kid:.4g} +- {found.kid_std:.2g} (mean and standard deviation of 100 subsets of 4 pictures)" in (
        result.stdout
    )
    assert f"12 true and 9 restored pictures, {FEATURES} features" in result.stdout
    assert "warning" not in result.output


def test_few_pictures_are_warned_of_on_the_screen(tmp_path: Path, network: Path) -> None:
    for seed, name in enumerate(("true", "restored")):
        write_pictures_of(tmp_path / name, 3, seed=seed)
    words = ["data", "distance", str(tmp_path / "true"), str(tmp_path / "restored"), "--inception", str(network)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0 and "warning: FID is too high for 3 pictures" in result.stderr


def test_what_is_not_there_is_one_line(tmp_path: Path, network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))
    write_pictures_of(tmp_path / "true", 12, seed=0)
    (tmp_path / "empty").mkdir()
    for words, said in (
        ((tmp_path / "true", tmp_path / "none"), f"error: no such folder: {tmp_path / 'none'}"),
        ((tmp_path / "true", tmp_path / "empty", "--inception", network), "has 0 pictures"),
        ((tmp_path / "true", tmp_path / "true"), "there is no Inception network at"),
        ((tmp_path / "true", tmp_path / "true", "--device", "cuda:77"), "cuda:77 was asked for"),
    ):
        result = CliRunner().invoke(app, ["data", "distance", *map(str, words)])
        assert result.exit_code == 2 and said in result.stderr and result.stderr.count("\n") == 1, result.stderr
    (tmp_path / "true" / "5.png").write_bytes(b"no picture")
    with pytest.raises(ReadError, match=r"5\.png"):
        folder_distance(tmp_path / "true", tmp_path / "true", inception=network)


def test_another_network_is_refused_by_the_command(tmp_path: Path) -> None:
    write_pictures_of(tmp_path / "true", 2, seed=0)
    (tmp_path / "other.pt").write_bytes(b"no network")
    words = ["data", "distance", *[str(tmp_path / "true")] * 2, "--inception", str(tmp_path / "other.pt")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2 and f"its SHA-256 is not {picture_sets.INCEPTION_SHA256}" in result.stderr
