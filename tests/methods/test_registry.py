"""Methods of third parties: registered by a call, or announced by an installed package."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_scan, tiny_slices

import deft_ct as dc
from deft_ct.methods import registry
from deft_ct.methods.registry import Networks, method_class, method_title
from deft_ct.reconstruction import Estimate, Request
from deft_ct.reconstructor import Reconstructor


@dataclass(frozen=True, kw_only=True)
class Settings:
    gain: float = 1.0


class Mine(Reconstructor):
    name = "mine"
    config_type = Settings

    def _estimate(self, request: Request) -> Estimate:
        operator = request.measurement.operator
        return Estimate(mean=self.config.gain * operator.pseudo_inverse(request.y))


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registry, "_REGISTERED", {})
    yield


@pytest.mark.usefixtures("clean")
def test_a_registered_method_is_in_every_list() -> None:
    assert "mine" not in dc.methods()
    assert dc.register(Mine) is Mine
    dc.register(Mine)  # again is harmless
    assert "mine" in dc.methods() and method_class("mine") is Mine and method_title("mine") == "MINE"
    assert dc.load_reconstructor("mine", gain=2.0).config.gain == 2.0
    with pytest.raises(ValueError, match="mine has no option gian; its options are: gain"):
        dc.load_reconstructor("mine", gian=2.0)


@pytest.mark.usefixtures("clean")
def test_names_are_given_once_and_only_methods_are_registered() -> None:
    class Taken(Mine):
        name = "tv"

    with pytest.raises(ValueError, match="there is a method called 'tv' already"):
        dc.register(Taken)
    wrong: Any = dict
    with pytest.raises(TypeError, match="subclass of Reconstructor"):
        dc.register(wrong)


def _install(folder: Path, name: str) -> None:
    (folder / "theirs.py").write_text(
        "from dataclasses import dataclass\nfrom deft_ct.reconstruction import Estimate\n"
        "from deft_ct.reconstructor import Reconstructor\n"
        "@dataclass(frozen=True, kw_only=True)\nclass Config:\n    pass\n"
        f"class Theirs(Reconstructor):\n    name = {name!r}\n    config_type = Config\n"
        "    def _estimate(self, request):\n"
        "        return Estimate(mean=request.measurement.operator.pseudo_inverse(request.y))\n"
    )
    info = folder / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[deft_ct.methods]\n{name} = theirs:Theirs\n")


def test_an_installed_package_announces_a_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(tmp_path, "theirs")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "theirs" in dc.methods()
    method = dc.load_reconstructor("theirs")
    assert type(method) is method_class("theirs")
    scan, truth = tiny_scan(), tiny_slices(1)
    result = method.reconstruct(scan.simulate(truth), scan)
    torch.testing.assert_close(
        result.mean, dc.load_reconstructor("fbp", filter="ram-lak").reconstruct(scan.simulate(truth), scan).mean
    )
    assert result.provenance["method"] == "theirs"
    sys.modules.pop("theirs", None)


def test_an_announced_name_that_is_taken_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(tmp_path, "tv")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.warns(UserWarning, match="the method 'tv' of theirs:Theirs is not used"):
        names = dc.methods()
    assert names.count("tv") == 1 and method_class("tv").__module__ == "deft_ct.methods.classical.tv"


def test_networks_are_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from tiny import tiny_prior

    loads = []
    monkeypatch.setattr(registry, "load_prior", lambda name: loads.append(name) or tiny_prior())
    networks = Networks(prior="somewhere")
    first, second = networks.build("dps", {}), networks.build("dds", {"steps": 3})
    assert loads == ["somewhere"] and first.prior is second.prior
