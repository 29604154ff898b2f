"""One option, one meaning: every command of the Typer app is walked."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Literal, get_args, get_origin

import pytest
import typer
from commands import leaf_commands

from deft_ct.cli import app
from deft_ct.cli.options import ScanOptions, beam, only
from deft_ct.cli.training_options import TrainingScans
from deft_ct.ct.scan import Scan

COMMANDS = dict(leaf_commands(typer.main.get_command(app)))
MAX_SLOTS, MAX_NAMES = 473, 115

REQUIRED_IN_SOME = {"--out", "--data"}
"""Options with a default in some commands only: demo has its own folder, and finetune needs your data."""


def uses() -> dict[str, list[tuple[str, Any]]]:
    """Option name -> the commands that have it, with Typer's parameter."""
    found: dict[str, list[tuple[str, Any]]] = defaultdict(list)
    for path, command in leaf_commands(typer.main.get_command(app)):
        for parameter in command.params:
            if parameter.param_type_name == "option" and parameter.name != "help":
                found[parameter.opts[0]].append((path, parameter))
    return found


def meaning(parameter: Any) -> dict[str, object]:
    """Everything about an option that must be the same in every command; its default may differ."""
    kind = parameter.type_descriptor.annotation
    return {
        "type": str(kind), "limits": (parameter.min, parameter.max),
        "choices": get_args(kind) if get_origin(kind) is Literal else (), "help": parameter.help,
        "repeated": parameter.multiple, "values": parameter.nargs, "metavar": parameter.metavar,
        "flag": bool(getattr(parameter, "is_flag", False)), "names": (*parameter.opts, *parameter.secondary_opts),
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(uses()))
def test_an_option_has_one_type_one_help_text_and_one_set_of_choices(name: str) -> None:
    (first_path, first), *others = uses()[name]
    assert first.help and first.help[-1] in ".)", f"{first_path} {name} needs a help text that ends in a full stop"
    for path, parameter in others:
        assert meaning(parameter) == meaning(first), f"{name} of {path} differs from that of {first_path}"
    if len({parameter.required for _, parameter in uses()[name]}) > 1:
        assert name in REQUIRED_IN_SOME


def test_choices_are_listed_and_checked() -> None:
    known = {name: meaning(found[0][1])["choices"] for name, found in uses().items()}
    assert known["--precision"] == ("float32", "bfloat16", "float16")
    assert beam("fan") == "fan" and beam("scan.yaml") == "scan.yaml"
    with pytest.raises(typer.BadParameter, match="'helical' is not one of 'parallel', 'fan'"):
        beam("helical")
    assert {name for name, choices in known.items() if choices} >= {
        "--guidance", "--initial-reconstruction", "--loss", "--objective", "--optimizer", "--schedule",
    }  # fmt: skip


def test_the_number_of_options_does_not_grow() -> None:
    found = uses()
    slots = sum(len(places) for places in found.values())
    print(f"{slots} option slots, {len(found)} distinct names")  # noqa: T201
    assert slots <= MAX_SLOTS and len(found) <= MAX_NAMES


def test_what_identifies_the_patient_is_dropped_where_derived_images_are_written() -> None:
    found = uses()
    for name in ("--deidentify", "--allow-burned-in"):
        assert [path for path, _ in found[name]] == ["reconstruct"] and meaning(found[name][0][1])["flag"]


def test_scan_names_stand_wherever_scans_are_described() -> None:
    found = uses()
    places = {name: {path for path, _ in found[name]} for name in ("--scan", "--views", "--photons", "--geometry")}
    assert places["--views"] == places["--photons"] == places["--geometry"] <= places["--scan"]


def test_one_way_into_every_job() -> None:
    paths = {path for path, _ in leaf_commands(typer.main.get_command(app))}
    assert (
        "train prior" in paths
        and "compare" in paths
        and "benchmark run" in paths
        and not {"train-prior", "benchmark-run"} & paths
    )


def test_values_and_names_of_a_scan_exclude_each_other() -> None:
    assert ScanOptions().scans() == [Scan()]
    assert ScanOptions(photons=0).scans() == [Scan(photons=None)]
    assert ScanOptions(scan=["fan60_1e5", "fan60_1e5"]).scans() == [Scan(geometry="fan")]
    with pytest.raises(ValueError, match="leave out --views, --photons, or leave out --scan"):
        ScanOptions(scan=["fan60_1e5"], views=60, photons=0).scans()
    with pytest.raises(ValueError, match="positive number"):
        ScanOptions(photons=-1).scans()


def test_only_takes_one_value() -> None:
    assert only(["a"], "--scan") == "a"
    with pytest.raises(ValueError, match="takes --scan once, got it 2 times"):
        only(["a", "b"], "--scan")


def takes_one_value(command: Any) -> list[Any]:
    """Options of which only the last value would be used if they were repeated."""
    options = [p for p in command.params if p.param_type_name == "option" and p.opts[0].startswith("--")]
    return [option for option in options if not option.multiple and not getattr(option, "is_flag", False)]


@pytest.mark.parametrize("command", sorted(path for path, found in COMMANDS.items() if takes_one_value(found)))
def test_an_option_of_one_value_is_not_given_twice(command: str) -> None:
    for option in takes_one_value(COMMANDS[command])[:3]:
        name, values = option.opts[0], ["1"] * option.nargs
        with pytest.raises(ValueError, match=f"^{name} is given 2 times, and takes one value$"):
            COMMANDS[command].make_context(command, [name, *values, name, *values])


def test_a_scan_that_is_named_twice_counts_twice_in_a_training_alone() -> None:
    names = ["parallel60_1e5", "fan60_1e5", "parallel60_1e5"]
    assert [scan.name for scan in TrainingScans(scan=names).scans()] == names
    assert [scan.name for scan in ScanOptions(scan=names).scans()] == names[:2]
    with pytest.raises(ValueError, match="--scan says the whole scan"):
        TrainingScans(scan=names, views=60).scans()
    assert TrainingScans(views=60).scans() == [Scan(views=60)]
