"""Models of the Hub: fetched by the Hub's own client from a stand-in on this machine."""

from __future__ import annotations

import builtins
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from model_hub import model_hub
from tiny import tiny_htransform, tiny_prior

from deft_ct.diffusion import load_prior, save_prior
from deft_ct.methods.deft import load_htransform, save_htransform
from deft_ct.methods.registry import load_reconstructor
from deft_ct.runtime.extras import MissingExtraError
from deft_ct.runtime.read_error import ReadError

pytest.importorskip("huggingface_hub")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, list[str]]]:
    """The folder of the repository ``lab/net``, and what the hub was asked for."""
    from huggingface_hub import constants

    folder = tmp_path / "repository"
    folder.mkdir()
    with model_hub("lab/net", folder) as (address, asked):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield folder, asked


def test_networks_are_fetched_once_and_only_their_own_files(hub: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, asked = hub
    prior = tiny_prior()
    save_prior(prior, folder)
    (folder / "payload.bin").write_bytes(b"a pickle")
    (folder / "deft_ct.py").write_text("raise SystemExit")
    assert load_prior("hf:lab/net").content_hash() == prior.content_hash()
    assert not [path for path in asked if path.endswith((".bin", ".py"))]
    first = len([path for path in asked if "/resolve/" in path])
    assert load_prior("hf:lab/net@main").content_hash() == prior.content_hash()
    assert len([path for path in asked if "/resolve/" in path]) == first
    method = load_reconstructor("dps", prior="hf:lab/net")
    assert method.prior.content_hash() == prior.content_hash()  # type: ignore[attr-defined]


def test_the_calibrations_of_an_htransform_are_fetched(hub: tuple[Path, list[str]]) -> None:
    folder, _ = hub
    head = tiny_htransform(tiny_prior(), reference="fbp")
    save_htransform(head, folder)
    (folder / "calibration-a.json").write_text("{}")
    with pytest.raises(ReadError, match="calibration-a"):
        load_htransform("hf:lab/net")


def test_changed_weights_are_found(hub: tuple[Path, list[str]]) -> None:
    folder, _ = hub
    save_prior(tiny_prior(), folder)
    text = (folder / "deft_ct.json").read_text()
    (folder / "deft_ct.json").write_text(text.replace(tiny_prior().content_hash(), "0" * 64))
    with pytest.raises(ReadError, match="do not match their SHA-256"):
        load_prior("hf:lab/net")


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("hf:lab/other", FileNotFoundError, "no repository 'lab/other' on the Hub, or no access to it"),
        ("hf:lab/net@v9", FileNotFoundError, "lab/net has no revision 'v9'"),
        ("hf:net", ValueError, "named hf:OWNER/NAME or hf:OWNER/NAME@REVISION, got 'hf:net'"),
        ("hf:../../etc/passwd", ValueError, "named hf:OWNER/NAME"),
        ("lab/net", FileNotFoundError, "one on the Hugging Face Hub is named hf:OWNER/NAME"),
    ],
)
def test_wrong_names_are_refused_in_one_sentence(
    hub: tuple[Path, list[str]], name: str, error: type[Exception], words: str
) -> None:
    save_prior(tiny_prior(), hub[0])
    with pytest.raises(error) as found:
        load_prior(name)
    assert words in str(found.value) and "\n" not in str(found.value)


def test_without_a_network_the_cache_is_used(hub: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    save_prior(tiny_prior(), hub[0])
    load_prior("hf:lab/net")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
        assert load_prior("hf:lab/net").content_hash() == tiny_prior().content_hash()
        with pytest.raises(FileNotFoundError, match="lab/more is not in the local cache, and the Hub did not give it"):
            load_prior("hf:lab/more")


def test_the_extra_is_named_if_the_client_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "huggingface_hub":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"pip install 'deft-ct\[hub\]'"):
        load_prior("hf:lab/net")
