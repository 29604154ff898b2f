"""Whatever is resumed is resumed for the same data and arguments only: every command, every argument, one at a time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import typer
from accelerate.state import AcceleratorState
from click.testing import Result
from resuming import (
    COMMANDS,
    COMPARE,
    FREE,
    LOOP,
    PRIOR,
    SCAN,
    SMALL,
    TUNE,
    VALUES,
    Command,
    arguments_of,
    changed_options,
    name_of,
    run,
    values_of,
)
from resuming_inputs import change_hu, write_inputs
from typer.testing import CliRunner

from deft_ct.cli import app
from deft_ct.methods.presets import Preset
from deft_ct.methods.supervised.fbp_unet import FBPUNetModel, FBPUNetShape
from deft_ct.runtime.content_key import result_versions


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data and networks that the commands name."""
    root = tmp_path_factory.mktemp("inputs")
    write_inputs(root)
    return root


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of finished base runs, made when they are first needed."""
    return {"": tmp_path_factory.mktemp("finished")}


@pytest.fixture(autouse=True)
def _here(networks: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(networks)
    monkeypatch.setattr("deft_ct.workflows.training_setup.GEOMETRIES", 2)
    yield


def _base(command: Command, finished: dict[str, Path], out: Path) -> None:
    """Copy the finished base run of a command to ``out``."""
    key = f"run{COMMANDS.index(command)}"
    if key not in finished:
        path = finished[""] / key
        values_of(command, run(command, command.base, path), path)
        finished[key] = path
    shutil.copytree(finished[key], out)


CASES = [
    pytest.param(
        command,
        change,
        value,
        id=f"{name_of(command)}-{change or 'method'}",
        # All trainings share these options and one loop.
        marks=[pytest.mark.slow] if set(LOOP) >= {change} and command not in (COMPARE, TUNE, PRIOR) else [],
    )
    for command in COMMANDS
    for change, value in command.changes.items()
]


@pytest.mark.parametrize(("command", "change", "value"), CASES)
def test_a_changed_argument_is_refused_or_gives_what_a_new_folder_gives(
    command: Command, change: str, value: object, finished: dict[str, Path], tmp_path: Path
) -> None:
    _base(command, finished, tmp_path / "run")
    options = changed_options(command, change, value)
    result = run(command, options, tmp_path / "run")
    text = " ".join(result.output.split())
    if result.exit_code:
        assert result.exit_code == 2, result.output
        assert "was started with" in text and "to resume" in text and "--overwrite" in text, text
        options |= {"overwrite": True}
        result = run(command, options, tmp_path / "run")  # so the change itself is possible
        options.pop("overwrite")
    fresh = run(command, options, tmp_path / "fresh")
    scan = options["scan"][0] if "scan" in options else None
    assert values_of(command, result, tmp_path / "run", scan) == values_of(command, fresh, tmp_path / "fresh", scan)


@pytest.mark.parametrize("command", COMMANDS, ids=name_of)
def test_the_same_arguments_resume(command: Command, finished: dict[str, Path], tmp_path: Path) -> None:
    _base(command, finished, tmp_path / "run")
    again = run(command, command.base, tmp_path / "run")
    fresh = run(command, command.base, tmp_path / "fresh")
    assert values_of(command, again, tmp_path / "run") == values_of(command, fresh, tmp_path / "fresh")
    assert any(word in again.output for word in ("resuming at step", "measured before", "done before"))


def test_the_same_file_with_other_chains_is_other_data(
    finished: dict[str, Path], tmp_path: Path, networks: Path
) -> None:
    command = next(one for one in COMMANDS if one.words == ("train", "amortised"))
    _base(command, finished, tmp_path / "run")
    moved = {**command.base, "data": f"backbones:{shutil.copy(networks / 'chains.h5', tmp_path)}"}
    again = run(command, moved, tmp_path / "run")
    assert again.exit_code == 0, again.output
    shutil.copy(networks / "other_chains.h5", tmp_path / "chains.h5")
    assert run(command, moved, tmp_path / "run").exit_code == 2


@pytest.mark.parametrize("command", [one for one in COMMANDS if one.words != ("train", "amortised")], ids=name_of)
def test_the_same_file_with_other_pixels_is_other_data(
    command: Command, finished: dict[str, Path], tmp_path: Path, networks: Path
) -> None:
    _base(command, finished, tmp_path / "run")
    name = command.base["data"]
    moved = tmp_path / "elsewhere" / name
    moved.parent.mkdir()
    (shutil.copytree if (networks / name).is_dir() else shutil.copy)(networks / name, moved)
    again = run(command, {**command.base, "data": moved}, tmp_path / "run")
    assert again.exit_code == 0, again.output  # the same content elsewhere is the same data
    (file,) = [moved] if moved.is_file() else moved.iterdir()
    change_hu(file, lambda hu: np.where(hu > -900, hu + 1, hu))
    for part in ("pixels", "pixel size"):
        if part == "pixel size":
            shutil.copy(networks / "one.h5", file)
            with h5py.File(file, "r+") as opened:
                opened["series1"].attrs["pixel_mm"] = 7.5
        refused = run(command, {**command.base, "data": moved}, tmp_path / "run")
        if part == "pixel size" and command.words == ("train", "prior"):
            assert refused.exit_code == 0, refused.output  # a prior sees no pixel size
            continue
        text = " ".join(refused.output.split())
        if command is COMPARE:  # keeps rows by their content: other data are measured, and the folder holds both
            fresh = run(command, {**command.base, "data": moved}, tmp_path / part)
            here, there = (values_of(command, r, p) for r, p in ((refused, tmp_path / "run"), (fresh, tmp_path / part)))
            assert here == there and "fbp was measured before" not in text
            continue
        assert refused.exit_code == 2, (part, text)
        assert "was started with data" in text or "was started with pixel" in text, text


@pytest.mark.parametrize("command", COMMANDS, ids=name_of)
def test_every_option_is_varied_or_said_to_be_free(command: Command) -> None:
    found: Any = typer.main.get_command(app)
    for word in command.words:
        found = found.commands[word]
    names = {p.opts[0].removeprefix("--") for p in found.params if p.param_type_name == "option"} - {"help"}
    of_scan = set(VALUES) if "views" in names else set()
    covered = set(command.changes) | set(command.free) | set(FREE) | of_scan
    assert names <= covered, f"neither varied nor free: {sorted(names - covered)}"


@pytest.mark.parametrize("change", VALUES)
def test_each_value_of_a_scan_counts(change: str, tmp_path: Path) -> None:
    command = next(c for c in COMMANDS if c.words == ("train", "fbp-unet"))
    base = {k: v for k, v in command.base.items() if k != "scan"} | {"views": 12, "detectors": 48}
    if change == "geometry":
        base.pop("detectors")
    assert run(command, base, tmp_path / "run").exit_code == 0
    refused = run(command, base | {change: VALUES[change]}, tmp_path / "run")
    assert refused.exit_code == 2 and "was started with scans" in refused.output, refused.output


@pytest.mark.parametrize("words", [("train", "htransform"), ("train", "refinement"), ("train", "learned-primal-dual")])
def test_the_direction_of_random_arcs_counts(words: tuple[str, ...], tmp_path: Path) -> None:
    command = next(c for c in COMMANDS if c.words == words)
    base = {**command.base, "any-scan": True}
    assert run(command, base, tmp_path / "run").exit_code == 0
    changed = {**base, "any-start": True}
    refused = run(command, changed, tmp_path / "run")
    assert refused.exit_code == 2 and "was started with" in refused.output, refused.output
    if words[1] == "refinement":
        assert run(command, changed, tmp_path / "start").exit_code == 0
        refused = run(command, changed | {"mirror": True}, tmp_path / "start")
        assert refused.exit_code == 2 and "mirror" in refused.output, refused.output


@pytest.mark.parametrize("name", ["fbp-unet", "learned-primal-dual", "conditional", "i2sb"])
def test_the_start_of_a_supervised_training(name: str, finished: dict[str, Path], tmp_path: Path) -> None:
    command = next(c for c in COMMANDS if c.words == ("train", name))
    _base(command, finished, tmp_path / "run")
    refused = run(command, {**command.base, "initial": tmp_path / "run" / "model"}, tmp_path / "run")
    assert refused.exit_code == 2 and "no initial and this run has initial" in " ".join(refused.output.split())


def test_a_foreign_table(tmp_path: Path) -> None:
    command = next(c for c in COMMANDS if c.words == ("train", "htransform"))
    base = {**command.base, "initial-reconstruction": "tv", "batches": 2, "tv-iterations": 2}
    assert run(command, base, tmp_path / "first").exit_code == 0
    table = tmp_path / "first" / "references"
    same = run(command, {**base, "table": table}, tmp_path / "second")
    assert same.exit_code == 0, same.output
    other = run(command, {**base, "table": table, "data": "other.h5", "overwrite": True}, tmp_path / "third")
    assert other.exit_code == 2 and "was started with data" in other.output  # an earlier run's table stays as it is


def test_pictures(tmp_path: Path) -> None:
    from PIL import Image

    command = next(c for c in COMMANDS if c.words == ("finetune",))
    (tmp_path / "pictures").mkdir()
    for n in range(3):
        grey = np.full((32, 32), 20000 + 1000 * n, np.uint16)
        Image.fromarray(grey).save(tmp_path / "pictures" / f"{n}.png")
    base = {**command.base, "data": tmp_path / "pictures", "refinement-steps": 0}

    def run(low: int, pixel_mm: int = 8) -> Result:
        AcceleratorState._reset_state(reset_partial_state=True)
        # values that start with a dash are no problem for click after an option with two values
        given = arguments_of(command, {**base, "pixel-mm": pixel_mm}, tmp_path / "run")
        return CliRunner().invoke(app, [*given, "--hu-range", str(low), "1000"])

    assert run(-1000).exit_code == 0
    assert run(-1000).exit_code == 0
    other = run(-900)
    assert other.exit_code == 2 and "was started with data" in other.output, other.output
    wider = run(-1000, pixel_mm=7)
    assert wider.exit_code == 2 and "was started with pixel_mm" in wider.output, wider.output


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.words[0] in ("train", "finetune")], ids=name_of)
def test_a_training_that_the_clock_ends_is_carded_with_the_steps_done(command: Command, tmp_path: Path) -> None:
    options = {**command.base, "steps": 7, "max-minutes": 1e-9}
    if "refinement-steps" in options:
        options["refinement-steps"] = 0
    result = run(command, options, tmp_path / "run")
    assert result.exit_code == 0, result.output
    folder = Path(json.loads(result.stdout.splitlines()[-1])["model"])
    cards = [json.loads(path.read_text()).get("card") for path in folder.glob("*.json")]
    (card,) = [card for card in cards if card is not None]
    assert card["training_steps"] == 1 and card["training_steps_planned"] == 7
    assert len(card["data"]["sha256"]) == len(card["content_key"]) == 64
    options.pop("max-minutes")
    whole = run(command, options, tmp_path / "run")
    cards = [json.loads(path.read_text()).get("card") for path in folder.glob("*.json")]
    (card,) = [card for card in cards if card is not None]
    assert card["training_steps"] == 7 and "training_steps_planned" not in card
    assert values_of(command, whole, tmp_path / "run") == values_of(
        command, run(command, options, tmp_path / "unbroken"), tmp_path / "unbroken"
    )


NETWORK_CHANGES = {
    "prior": (["dds:steps=2"], {"prior": "prior"}, {"prior": "prior2"}),
    "precision": (["dds:steps=2"], {"prior": "prior"}, {"prior": "prior", "precision": "bfloat16"}),
    "htransform": (
        ["deft:steps=2"], {"prior": "prior", "htransform": "head"}, {"prior": "prior", "htransform": "head32"}
    ),
    "htransform-online": (
        ["deft_online:iterations=1,steps=2"], {"prior": "prior", "htransform": "head32"}, {"prior": "prior"}
    ),
    "model": (["fbp_unet"], {"model": ["fbp_unet=unet"]}, {"model": ["fbp_unet=unet2"]}),
    "precision-of-a-model": (
        ["fbp_unet"], {"model": ["fbp_unet=unet"]}, {"model": ["fbp_unet=unet"], "precision": "bfloat16"}
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def models(networks: Path) -> None:
    """Two supervised models."""
    shape = FBPUNetShape(network=SMALL)
    for seed, name in ((0, "unet"), (1, "unet2")):
        torch.manual_seed(seed)
        model = FBPUNetModel(shape)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, 0, 0.05)
        model.save(networks / name)


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("change", NETWORK_CHANGES)
def test_networks_of_a_comparison(change: str, tmp_path: Path) -> None:
    """A cell of other networks is measured anew."""
    method, before, after = NETWORK_CHANGES[change]
    base = {**COMPARE.base, "method": method, "every": 4}
    assert run(COMPARE, {**base, **before}, tmp_path / "run").exit_code == 0
    result = run(COMPARE, {**base, **after}, tmp_path / "run")
    fresh = run(COMPARE, {**base, **after}, tmp_path / "fresh")
    assert values_of(COMPARE, result, tmp_path / "run") == values_of(COMPARE, fresh, tmp_path / "fresh")
    assert "measured before" not in result.output
    again = run(COMPARE, {**base, **after}, tmp_path / "run")
    assert "measured before" in again.output


@pytest.mark.parametrize("change", [name for name in NETWORK_CHANGES if name in ("prior", "precision", "htransform")])
def test_networks_of_a_search(change: str, tmp_path: Path) -> None:
    """A study of other networks is refused."""
    (method,), before, after = NETWORK_CHANGES[change]
    base = {**TUNE.base, "": method, "every": 4, "trials": 1}
    first = run(TUNE, {**base, **before}, tmp_path / "run")
    assert first.exit_code == 0, first.output
    refused = run(TUNE, {**base, **after}, tmp_path / "run")
    text = " ".join(refused.output.split())
    assert refused.exit_code == 2 and "was started with networks." in text, text
    anew = run(TUNE, {**base, **after, "overwrite": True}, tmp_path / "run")
    fresh = run(TUNE, {**base, **after}, tmp_path / "fresh")
    assert values_of(TUNE, anew, tmp_path / "run") == values_of(TUNE, fresh, tmp_path / "fresh")


def test_presets_of_a_comparison(tmp_path: Path) -> None:
    for name, cutoff in (("one", 0.5), ("two", 0.75)):
        preset = Preset(method="fbp", scan=SCAN, options={"cutoff": cutoff}, provenance={})
        preset.write(tmp_path / name / SCAN / "fbp.json")
    runs = {}
    for name, more in (
        ("shipped", {}), ("none", {"presets": False}), ("one", {"preset-folder": tmp_path / "one"}),
        ("two", {"preset-folder": tmp_path / "two"}),
    ):  # fmt: skip
        result = run(COMPARE, {**COMPARE.base, **more}, tmp_path / "run")
        fresh = run(COMPARE, {**COMPARE.base, **more}, tmp_path / "fresh" / name)
        runs[name] = values_of(COMPARE, result, tmp_path / "run")
        assert runs[name] == values_of(COMPARE, fresh, tmp_path / "fresh" / name)
    assert runs["one"] != runs["two"] != runs["none"]
    (tmp_path / "one" / SCAN).rename(tmp_path / "one" / "parallel10_1e5_48bins")
    moved = {**COMPARE.base, "scan": ["parallel10_1e5_48bins"], "preset-folder": tmp_path / "one"}
    refused = run(COMPARE, moved, tmp_path / "moved")
    assert refused.exit_code == 2 and f"was tuned for {SCAN}, not for" in " ".join(refused.output.split())


@pytest.mark.parametrize("command", [COMPARE, TUNE], ids=name_of)
@pytest.mark.parametrize("name", ["torch", "deft_ct"])
def test_other_versions_do_not_resume(
    command: Command, name: str, finished: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _base(command, finished, tmp_path / "run")
    now = {**result_versions(), name: "99"}
    for module in ("plan", "tuning"):
        monkeypatch.setattr(f"deft_ct.evaluation.{module}.result_versions", lambda: now)
    refused = run(command, command.base, tmp_path / "run")
    text = " ".join(refused.output.split())
    if command is COMPARE:
        assert refused.exit_code == 0 and "measured before" not in text, text
        return
    assert refused.exit_code == 2 and f"and this run has versions.{name} '99'" in text, text


def test_a_training_with_other_versions_does_not_resume(
    finished: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _base(PRIOR, finished, tmp_path / "run")
    monkeypatch.setattr("deft_ct.training.checkpoint.result_versions", lambda: {"deft_ct": "99", "torch": "99"})
    refused = run(PRIOR, PRIOR.base, tmp_path / "run")
    assert refused.exit_code == 2 and "versions.torch '99'" in refused.output, refused.output


@pytest.mark.parametrize("command", [c for c in COMMANDS if c is not COMPARE], ids=name_of)  # it measures anew
def test_a_refusal_leaves_every_file_as_it_was(command: Command, finished: dict[str, Path], tmp_path: Path) -> None:
    _base(command, finished, tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    refused = run(command, {**command.base, "seed": 5}, tmp_path / "run")
    assert refused.exit_code == 2, refused.output
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
