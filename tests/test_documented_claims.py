"""Sentences of docs/results.md and README on comparisons of methods: every figure is made anew."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from documented_comparisons import (
    ARC,
    MEAN,
    RESULTS,
    SAMPLE,
    SIXTY,
    TWENTY,
    best_zero_shot,
    gain,
    psnr,
    seconds,
    seconds_in_twos,
    stored_card,
)
from documented_tables import ROOT, page_says, stored, table_after, table_holds


def sixty_views() -> list[str]:
    found, arc = psnr("compare_test_volumes_" + SIXTY), psnr("compare_all_" + ARC)
    twenty, four, two = psnr("compare_test_volumes_" + TWENTY), seconds(), seconds_in_twos()
    tv, unet, lpd = (gain(found, name) for name in ("tv", "fbp_unet", "learned_primal_dual"))
    limited = gain(arc, "learned_primal_dual").mean()
    few, any_scan = gain(twenty, "learned_primal_dual"), dict(zip((SIXTY, TWENTY), any_scan_primal_dual(), strict=True))
    assert (tv > 0).all() and len(tv) == 58 and (unet > 0).all() and (lpd > 0).all()
    learned = [f"{found_.mean():.2f}" for found_ in (twenty["learned_primal_dual"], twenty[MEAN])]
    return [
        f"better than TV on all 58 slices, by {tv.mean():.2f} dB on average and at least by {tv.min():.2f}.",
        f"It is {best_zero_shot(found):.2f} dB better than the best zero-shot method.",
        f"In batches of 4, DDS takes {four['dds']:.1f} times as long, DPS {four['dps:steps=100']:.1f} and RED-diff "
        f"{four['reddiff']:.1f} times",
        f"In the batches of 2 of the table these factors are {two['dds']:.1f}, {two['dps:steps=100']:.1f} and "
        f"{two['reddiff']:.1f}",
        f"gains {unet.mean():.2f} dB over FBP + U-Net, at least {unet.min():.2f}.",
        f"It is {lpd.mean():.2f} dB behind at 60 views (at least {lpd.min():.2f}), {few.mean():.2f} dB behind at 20 "
        f"views ({learned[0]} against {learned[1]}, n = {len(few)}) and {limited:.2f} dB behind at 120 degrees.",
        f"network for any scan is closer: {found[MEAN].mean() - any_scan[SIXTY]:.2f} dB behind at 60 views and "
        f"{twenty[MEAN].mean() - any_scan[TWENTY]:.2f} at 20.",
        f"Alone it has {any_scan[SIXTY]:.2f} dB at 60 views and {any_scan[TWENTY]:.2f} at 20",
        f"One sample of DEFT is at least {best_zero_shot(found, SAMPLE):.2f} dB better than one sample of any",
        f"Single samples are better than TV by {gain(found, 'tv', SAMPLE).mean():.1f} dB on average",
    ]


def any_scan_primal_dual() -> list[float]:
    """Mean PSNR of the network for any scan, by scan."""
    cells = {cell["scan"]: cell["values"]["psnr_db"] for cell in stored("compare_primal_dual_any_scan")["cells"]}
    assert {len(values) for values in cells.values()} == {58}
    return [float(np.mean(cells[scan])) for scan in (SIXTY, TWENTY)]


def break_even() -> list[str]:
    card = stored_card("htransforms/ct256-small-refined/htransform.json")
    rows = (ROOT / "benchmarks/results/break_even.md").read_text(encoding="utf-8").splitlines()
    slices = {row.split("|")[1].strip(): row.split("|")[5].strip() for row in rows if row.count("|") > 5}
    two = {name: int(slices[name]) for name in ("reddiff", "dps:steps=100")}
    primal_dual = sum(value for name, value in card["seconds_parts"].items() if name.startswith("learned primal-dual"))
    prior = stored_card("priors/ct256-small/deft_ct.json")["seconds"]
    return [
        f"DEFT's networks took {card['seconds'] / 3600:.1f} hours, and the prior another {prior / 60:.0f} minutes. In "
        f"{primal_dual / 3600:.1f} of these",
        f"({card['seconds'] / 60:.0f} minutes) is counted, DEFT is faster in total than RED-diff after "
        f"{two['reddiff']:,} slices and than DPS after {two['dps:steps=100']:,}",
    ]


def harder_scans() -> list[str]:
    twenty, arc = psnr("compare_all_" + TWENTY), psnr("compare_all_" + ARC)
    both, more = (twenty, arc), psnr("compare_test_volumes_" + TWENTY)
    zero, unet = ([best_zero_shot(one) for one in both], [gain(one, "fbp_unet").mean() for one in both])
    lpd = [gain(one, "learned_primal_dual").mean() for one in both]
    fitted = psnr(f"compare_test_volumes_{TWENTY}_finetuned")[MEAN].mean()
    less = [gain(one, SAMPLE).mean() for one in both]
    zero_shot = [best_zero_shot(one, SAMPLE) for one in both]
    above = [gain(one, "tv", SAMPLE).mean() for one in both]
    assert min(zero_shot) > 0 and min(above) > 0
    return [
        f"better than the best zero-shot method by {zero[0]:.1f} and {zero[1]:.1f} dB, and better than FBP + U-Net by "
        f"{unet[0]:.1f} and {unet[1]:.1f}.",
        f"is {lpd[0]:.1f} dB worse at 20 views ({gain(more, 'learned_primal_dual').mean():.2f} with n = "
        f"{len(more[MEAN])}, ",
        f"It is {lpd[1]:.1f} dB worse at 120 degrees.",
        f"It then has {fitted:.2f} dB, before {more[MEAN].mean():.2f}",
        f"**A single sample** of DEFT is better than one of the best zero-shot method by {zero_shot[0]:.1f} and "
        f"{zero_shot[1]:.1f} dB, and than TV by {above[0]:.1f} and {above[1]:.1f} dB.",
        f"DEFT's samples have {less[0]:.1f} and {less[1]:.1f} dB less.",
    ]


def other_scanners() -> list[str]:
    found, series = (psnr(f"compare_test_{name}_{SIXTY}") for name in ("singles", "volumes"))
    tv, unet, lpd = (gain(found, name) for name in ("tv", "fbp_unet", "learned_primal_dual"))
    assert (tv > 0).all() and (unet > 0).all() and len(tv) == 53
    lost = {name: series[name].mean() - found[name].mean() for name in ("tv", "fbp_unet", "learned_primal_dual", MEAN)}
    assert max(lost, key=lambda name: lost[name]) == MEAN
    return [
        f"TV on all 53 slices, by {tv.mean():.2f} dB (least gain {tv.min():.2f})",
        f"FBP + U-Net on all slices ({unet.mean():.2f}, least {unet.min():.2f})",
        f"learned primal-dual on {(lpd > 0).sum()} slices ({lpd.mean():.2f})",
        f"the best zero-shot methods by {best_zero_shot(found):.2f} dB",
        f"TV loses {lost['tv']:.2f} dB, the U-Net {lost['fbp_unet']:.2f} and learned primal-dual "
        f"{lost['learned_primal_dual']:.2f}. DEFT loses most, {lost[MEAN]:.2f}.",
    ]


def few_evaluations() -> list[str]:
    cells = [cell["result"] for cell in stored("few_steps_matched_" + SIXTY)["cells"]]
    (default,) = [one for one in cells if one.get("evaluations_per_slice") == 41]
    direct = next(one["direct_mean"]["psnr_db"]["mean"] for one in cells if "direct_mean" in one)
    below = direct - default["mean"]["psnr_db"]["mean"]
    return [
        f"The mean of 4 matched samples is {below:.2f} dB below the direct mean. For exact samples it would be "
        f"{10 * math.log10(1 + 1 / 4):.2f}."
    ]


def test_what_fitting_to_one_scan_changes() -> None:
    before, after = (psnr(f"compare_test_volumes_{TWENTY}{end}")[MEAN] for end in ("", "_finetuned"))
    page_says(
        "docs/howto/train.md",
        f"changed the PSNR at 20 views from {before.mean():.2f} to {after.mean():.2f} dB (n = {len(after)})",
    )


def test_what_is_said_of_networks_for_one_scan() -> None:
    found = stored("specialist_refinements")
    own = {scan: np.mean(values[scan]) for scan, values in found["psnr_db"].items()}
    less = sorted(own[scan] - np.mean(values["any scan"]) for scan, values in found["psnr_db"].items())
    fitted = [own[scan] - np.mean(cell["psnr_db"]) for scan, cell in found["finetuned"]["600"].items()]
    page_says(
        RESULTS,
        f"refinement networks trained for a single scan are {less[0]:.1f} to {less[-2]:.1f} dB better, and "
        f"{less[-1]:.1f} dB for 120 degrees",
        f"the shared network is within {min(fitted):.1f} to {max(fitted):.1f} dB (128 x 128, val, n = 13",
    )


@pytest.mark.parametrize("claims", [sixty_views, break_even, harder_scans, other_scanners, few_evaluations])
def test_sentences_say_what_is_stored(claims: Any) -> None:
    page_says(RESULTS, *claims())


def few_steps(name: str, columns: int) -> list[list[str]]:
    """Rows of samples: PSNR of one, of the mean of four, spread, coverage."""
    cells = [cell["result"] for cell in stored(name)["cells"]]
    sampled = [one for one in cells if "single" in one]
    empty = [""] * (columns - len(sampled))
    spread = [one["spread"] for one in sampled]
    return [
        [*(f"{one['single']['psnr_db']['mean']:.2f}" for one in sampled), *empty],
        [*(f"{one['mean']['psnr_db']['mean']:.2f}" for one in sampled), *empty],
        [*(f"{one.get('rms_spread', one.get('rms_spread_hu')):.1f}" for one in spread), *empty],
        [*(f"{100 * one['coverage']['body']['0.9']:.0f}" for one in spread), *empty],
    ]


def test_few_evaluations_are_those_of_the_stored_results() -> None:
    cells = [cell["result"] for cell in stored("few_steps_" + SIXTY)["cells"]]
    sampled, direct = ([one for one in cells if key in one] for key in ("single", "direct_mean"))
    (value,) = {f"{one['direct_mean']['psnr_db']['mean']:.2f}" for one in direct if one["evaluations_per_slice"] == 1}
    drawn, matched = few_steps("few_steps_" + SIXTY, 6), few_steps("few_steps_matched_" + SIXTY, 6)
    drawn[0][-1] = value
    heading = "\n## Few evaluations\n"
    names = [row[0] for row in table_after(RESULTS, heading)]
    table_holds(RESULTS, heading, [[name, *row] for name, row in zip(names, [*drawn, *matched], strict=True)])
    head = re.search(r"\| evaluations of a sample \|(.*)\|", (ROOT / RESULTS).read_text(encoding="utf-8"))
    assert head is not None
    counts = [f"{one['evaluations_per_slice'] / 4:.0f}" for one in sampled]
    assert [word.split()[0] for word in head[1].split("|")][:5] == counts
