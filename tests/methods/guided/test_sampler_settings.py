"""Defaults, searched ranges and limits of the zero-shot methods, as literal tables."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from tiny import tiny_scan

from deft_ct.measurement.measurement import Measurement
from deft_ct.methods.registry import method_class
from deft_ct.operators import Identity
from deft_ct.runtime.search_space import Choice, Range

SHARED = {"batch_size": 8, "grid": "uniform"}
COUPLED = {"coupling": 5.0}  # of volumes alone, so it changes no result on images
WARM = SHARED | {"start": 1.0, "start_from": "tv"}
# From the papers named in each module, where they state a value.
DEFAULTS: dict[str, dict[str, Any]] = {
    "daps": WARM | COUPLED | {"steps": 200, "cg_iterations": 20, "weighted": True, "ode_steps": 5, "inner": "auto",
                    "langevin_steps": 100, "langevin_step": 0.5, "radius": 1.0},
    "ddnm": WARM | COUPLED | {"steps": 100, "cg_iterations": 20, "weighted": True, "eta": 0.85},
    "ddrm": SHARED | {"steps": 20, "eta": 0.85, "eta_b": 1.0},
    "dds": WARM | COUPLED | {"steps": 50, "cg_iterations": 5, "weighted": True, "eta": 0.85, "gamma": math.inf},
    "diffpir": WARM | COUPLED | {"steps": 100, "cg_iterations": 20, "weighted": True, "strength": 7.0, "zeta": 0.1},
    "dps": WARM | {"steps": 1000, "eta": 1.0, "zeta": None, "norm": "l2", "weighted": False},
    "mcg": WARM | {"steps": 1000, "eta": 1.0, "zeta": None, "norm": "l2", "weighted": False, "cg_iterations": 5},
    "pigdm": WARM | {"steps": 100, "cg_iterations": 20, "weighted": True, "eta": 1.0, "data_std": None},
    "reconstruction_guidance": WARM | {"steps": 250, "eta": 1.0, "weight": 1.0, "replace": True, "weighted": False},
    "reddiff": SHARED | COUPLED | {"steps": 1000, "strength": 0.25, "learning_rate": 0.25, "weighted": True},
    "replacement": SHARED | {"steps": 100, "eta": 1.0},
    "unconditional": SHARED | {"steps": 100, "eta": 1.0, "sampler": "ddim"},
}  # fmt: skip
EITHER, LATE = Choice((True, False)), Range(0.02, 1.0, log=True)
BOTH = {"weighted": EITHER, "start": LATE}
SEARCHED: dict[str, dict[str, Any]] = {
    "daps": {"radius": Range(0.03, 3.0, log=True)} | BOTH,
    "ddnm": {"eta": Range(0.1, 1.0)} | BOTH,
    "ddrm": {"eta": Range(0.0, 1.0), "eta_b": Range(0.0, 1.0)},
    "dds": {"cg_iterations": Range(2, 20, log=True)} | BOTH,
    "diffpir": {"strength": Range(0.1, 1e3, log=True), "zeta": Range(0.0, 1.0)} | BOTH,
    "dps": {"zeta": Range(0.03, 10.0, log=True)} | BOTH,
    "mcg": {"zeta": Range(0.03, 10.0, log=True), "cg_iterations": Range(1, 20, log=True)} | BOTH,
    "pigdm": {"data_std": Range(0.3, 30.0, log=True)} | BOTH,
    "reconstruction_guidance": {"weight": Range(0.1, 10.0, log=True)} | BOTH,
    "reddiff": {"strength": Range(1e-3, 10.0, log=True), "learning_rate": Range(3e-3, 1.0, log=True),
                "weighted": EITHER},
    "replacement": {"eta": Range(0.0, 1.0)},
    "unconditional": {},
}  # fmt: skip


@pytest.mark.parametrize("name", DEFAULTS)
def test_settings_that_published_results_were_made_with_stay(name: str) -> None:
    """A change of a default or of a searched range changes results, so it must be made here as well."""
    cls = method_class(name)
    config = cls.config_type()
    assert dataclasses.asdict(config) == DEFAULTS[name]
    assert cls.search_space == SEARCHED[name]
    with pytest.raises(TypeError, match="positional"):
        cls.config_type(5)
    first = dataclasses.fields(config)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, first, 3)


@pytest.mark.parametrize("name", [n for n in DEFAULTS if "start" in DEFAULTS[n]])
@pytest.mark.parametrize("start", [0.0, -0.5, 1.001, 2.0, math.nan])
def test_a_start_is_a_share(name: str, start: float) -> None:
    with pytest.raises(ValueError, match=r"start must (lie in \(0, 1\]|be a finite number)"):
        method_class(name).config_type(start=start)


@pytest.mark.parametrize("name", ["eta", "eta_b"])
@pytest.mark.parametrize("share", [-0.001, -0.5, -1.0, 1.001, math.nan])
def test_the_shares_of_ddrm_lie_between_0_and_1(name: str, share: float) -> None:
    with pytest.raises(ValueError, match=rf"{name} must (lie in \[0, 1\]|be a finite number)"):
        method_class("ddrm").config_type(**{name: share})


CLASSES = {name: method_class(name) for name in DEFAULTS}  # imported here: the tests below run no line of them
NEEDS = {
    "ddnm": "linear", "ddrm": "svd", "dds": "linear", "diffpir": "linear", "mcg": "linear", "pigdm": "linear",
    "replacement": "projection",
}  # fmt: skip
VOLUMES = {"daps", "ddnm", "dds", "diffpir", "reddiff"}


@pytest.mark.parametrize("name", CLASSES)
def test_what_a_method_declares(name: str) -> None:
    """Defaults and searched ranges, where it may begin, what it needs of the operator, and whether it takes volumes."""
    cls = CLASSES[name]
    assert {field.name: field.default for field in dataclasses.fields(cls.config_type)} == DEFAULTS[name]
    assert cls.search_space == SEARCHED[name]
    assert cls.can_start_late == ("start" in DEFAULTS[name])
    assert cls.needs == NEEDS.get(name, "any") and cls.takes_volumes == (name in VOLUMES)
    assert cls.uses_data == (name != "unconditional")


def test_without_total_variation_a_late_start_is_not_searched() -> None:
    """On grids of no known spacing; everything else still is."""
    plain, scan = Measurement(Identity((1, 4, 4))), Measurement(tiny_scan().operator)
    for name, cls in CLASSES.items():
        assert cls.search_space_for(scan) == SEARCHED[name]
        expected = {key: where for key, where in SEARCHED[name].items() if key != "start"}
        assert cls.search_space_for(plain) == expected
