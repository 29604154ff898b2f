"""What docs/model_card.md says of the shipped networks is what their files say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from documented_tables import ROOT, page_says, table_after, table_holds
from safetensors import safe_open

ASSETS, PAGE = ROOT / "deft_ct/assets", "docs/model_card.md"
PRIOR, HTRANSFORM = "priors/ct256-small", "htransforms/ct256-small-refined"


def meta(path: str) -> Any:
    """A JSON file of the assets."""
    return json.loads((ASSETS / path).read_text(encoding="utf-8"))


def weights(path: str) -> Path:
    """The weights in a folder of the assets; not those of a spread network beside them."""
    folder = ASSETS / path
    (found,) = (
        folder.glob("*.safetensors") if folder.name != "ct256-small-refined" else [folder / "htransform.safetensors"]
    )
    return found


def millions(file: Path, prefix: str = "", digits: int = 1) -> str:
    """Parameters of a file, in words."""
    with safe_open(file, "numpy") as found:
        count = sum(found.get_tensor(key).size for key in found.keys() if key.startswith(prefix))
    return f"{count / 1e6:.{digits}f} M"


def megabytes(file: Path) -> str:
    """Size of a file as the page gives it, to two digits."""
    size = file.stat().st_size / 1e6
    return f"{size:.1f} MB" if size < 10 else f"{size:.0f} MB"


def test_the_table_of_the_shipped_networks() -> None:
    rows = {name: cells for name, *cells in table_after(PAGE, "Research only, not for clinical use.")}
    prior, htransform = meta(f"{PRIOR}/deft_ct.json"), meta(f"{HTRANSFORM}/htransform.json")
    file = weights(HTRANSFORM)
    refinement, second = (
        millions(file, f"refinement.{part}.", digits) for part, digits in (("network", 1), ("second", 2))
    )
    network = prior["network"]
    assert f"{network['patch']}x{network['patch']} space-to-depth stem" in rows["network"][0]
    assert (
        f"{' / '.join(map(str, network['channels']))} features, {millions(weights(PRIOR))} parameters"
        in rows["network"][0]
    )
    inner = htransform["config"]["refinement"]["network"]
    assert (
        f"stem {inner['patch']}x{inner['patch']}, {' / '.join(map(str, inner['channels']))} features, "
        in rows["network"][1]
    )
    assert f"{refinement} parameters; learned primal-dual in it: {second}; h-transform network" in rows["network"][1]
    assert f"five input images, {millions(file, 'network.')}." in rows["network"][1]
    assert f"linear schedule of {prior['schedule']['steps']} steps" in rows["predicts"][0]
    low, high = prior["value_range_hu"]
    assert rows["values"][0].startswith(f"-1 ... 1 is {low:.0f} ... {high:.0f} HU")
    family = htransform["card"]["scan"]["family"]
    assert family["any_start"] and rows["trained for"][1] == (
        f"{family['views'][0]} to {family['views'][1]} views, parallel over {family['degrees'][0]:.0f} to "
        f"{family['degrees'][1]:.0f} degrees or fan beams over {family['fan_degrees'][0]:.0f} to "
        f"{family['fan_degrees'][1]:.0f}, from any angle on, 1e4 to 1e6 photons"
    )
    assert family["photons"] == [1e4, 1e6]
    card, parts = prior["card"], htransform["card"]["seconds_parts"]
    passes = card["images_seen"] / card["slices"]
    assert (
        rows["steps of batch 8"][0] == f"{card['training_steps']} ({card['images_seen']:,} slices, {passes:.0f} passes)"
    )
    minutes = {name: f"{seconds / 60:.0f}" for name, seconds in parts.items()}
    lpd = sum(seconds for name, seconds in parts.items() if name.startswith("learned primal-dual"))
    assert rows["time on one CPU core"][0] == f"{card['seconds'] / 60:.0f} min"
    assert rows["time on one CPU core"][1] == (
        f"initial reconstructions {minutes['first references (core seconds)']} min, refinement "
        f"{minutes['first refinement']}, h-transform network {minutes['first head']}; then initial reconstructions "
        f"{minutes['second references (core seconds)']}, refinement {minutes['second refinement']}, "
        f"h-transform network {minutes['second head']}; then initial reconstructions "
        f"{minutes['third references (core seconds)']}, refinement {minutes['third refinement']}, h-transform network "
        f"{minutes['third head']}; learned primal-dual {lpd / 60:.0f} ({htransform['card']['seconds'] / 60:.0f} min, "
        "on machines with other work)"
    )
    assert sum(parts.values()) == pytest.approx(htransform["card"]["seconds"], abs=10)
    assert rows["stored as"] == [f"float16 safetensors, {megabytes(weights(path))}" for path in (PRIOR, HTRANSFORM)]


SCANS = {
    "60 views": "parallel60_1e5", "20 views": "parallel20_1e5", "120 degrees": "parallel60_1e5_120deg",
    "60 fan views": "fan60_1e5", "120 views": "parallel120_1e5", "1e4 photons": "parallel60_1e4",
}  # fmt: skip


def test_the_table_of_validation() -> None:
    validation = meta("models/learned_primal_dual_any_scan/model.json")["card"]["validation"]
    rows = [[name, *(f"{value:.2f}" for value in validation[scan])] for name, scan in SCANS.items()]
    table_holds(PAGE, "| scan | network for three scans |", rows, head=True)


def test_sizes_in_the_text() -> None:
    unet, lpd, spread, photos, head, phases = (
        weights("models/fbp_unet"), weights("models/learned_primal_dual"), ASSETS / HTRANSFORM / "spread.safetensors",
        weights("priors/photos64"), weights("htransforms/photos64"), weights("htransforms/photos64-phase_retrieval"),
    )  # fmt: skip
    with safe_open(lpd, "numpy") as found:
        small = sum(found.get_tensor(key).size for key in found.keys())
    with safe_open(head, "numpy") as found:
        refining = sum(found.get_tensor(key).size for key in found.keys() if key.startswith("refinement."))
    card = meta("priors/ct256-small/deft_ct.json")["card"]
    patients = sum(
        len(one["patients"]) if isinstance(one["patients"], list) else one["patients"] for one in card["data"]
    )
    collections = {10: "ten"}[len(card["data"])]
    photographs = meta("priors/photos64/deft_ct.json")["card"]["data"]["photographs"]
    page_says(
        PAGE,
        f"has {millions(unet)} parameters. Learned primal-dual",
        f"and has {small / 1e6:.2f} M. Both",
        f"(in the folder of the h-transform, {millions(spread)} parameters, {megabytes(spread)})",
        f"{millions(photos)} parameters, float16 safetensors of {megabytes(photos)}.",
        f"It was trained on {photographs:,} crops",
        f"fourteen degradations has {millions(head)} parameters, {refining / 1e6:.1f} M of them in a refinement, and "
        f"takes {megabytes(head)}. `photos64-phase_retrieval` has {millions(phases)} and takes {megabytes(phases)}.",
        f"The data are {card['slices']:,} slices of {patients} patients from {collections} TCIA collections",
    )
