"""The tables of the pages on helices, the method and series are stored results."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from documented_tables import ROOT, page_says, stored, table_after, table_holds
from scipy.stats import binomtest

from deft_ct.evaluation.statistics import mean_interval
from deft_ct.methods.deft import load_htransform
from deft_ct.methods.deft.familiarity import MISFIT, UNFAMILIAR, Familiarity

HELIX, METHOD, RESULTS, SERIES = "docs/helix.md", "docs/method.md", "docs/results.md", "docs/series.md"
SCANS = (
    "parallel20_1e5", "parallel60_1e5", "parallel120_1e5", "fan60_1e5", "parallel60_1e5_120deg", "parallel60_1e4",
)  # fmt: skip
INPUTS = {
    "`x_t`, `x0h`, `g`, `NN2` (full)": "full", "full": "full", "`cg` for `g` (ours, see below)":
    "conjugate gradients for g", "without `x0h`": "without x0h", "`A* y` for `g`": "A* y",
    "`A* y`, without `x0h`": "A* y, without x0h",
}  # fmt: skip


def paired(values: Any, others: Any) -> str:
    """Mean difference with the 95 % t interval of paired differences, as the experiments print it."""
    found = mean_interval(np.subtract(values, others), method="t")
    return f"{found.mean:+.2f} ({found.low:+.2f} to {found.high:+.2f})"


def per_slice(cell: Any) -> list[float]:
    found: list[float] = cell["psnr_db"]["per_slice"]
    return found


def same(shown: str, expected: str) -> bool:
    """Whether two cells are equal, where zero may have a sign or none."""
    return re.sub(r"[+-](?=0\.00\b)", "", shown) == re.sub(r"[+-](?=0\.00\b)", "", expected)


def test_helical_scans() -> None:
    methods, expected = ("circular limit", "fbp", "rebinned fbp"), []
    for row in stored("helix")["rows"]:
        biases = [f"{row[method]['water_bias']:+.2f}" for method in methods]
        expected.append([row["case"], *biases, *(f"{row[method]['rmse']:.1f}" for method in methods)])
    table_holds(HELIX, "## How well", expected)


def test_volumes() -> None:
    rows = [row["methods"] for row in stored("volumes")["rows"]]
    names = {"TV in three dimensions, best strength": "TV, best strength", "TV in three dimensions, default strength":
             "TV, default strength", "DDS, slices coupled along z": "DDS, coupled along z"}  # fmt: skip
    expected = []
    for method, _, real in table_after(RESULTS, "## Volumes"):
        key = names.get(method, method)
        ratios = [row[key]["rmse_hu"] / row["CGLS, best iterations"]["rmse_hu"] for row in rows]
        low, high = min(ratios[1:]), max(ratios[1:])
        if method == "CGLS, best iterations":
            expected.append([method, "1", "1"])
            continue
        mean = f", mean {np.mean(ratios[1:]):.2f}" if "mean" in real else ""
        expected.append([method, f"{ratios[0]:.2f}", f"{low:.2f} to {high:.2f}{mean}"])
    table_holds(RESULTS, "## Volumes", expected)


@pytest.mark.parametrize(
    ("words", "files"),
    [
        ("### Inputs of the paper's network", ("ablations_small", "ablations_small_seed1")),
        ("They differ in one point: without `x0h`", ("ablations", "ablations_seed1")),
    ],
)
def test_inputs_of_the_network(words: str, files: tuple[str, str]) -> None:
    expected = []
    for name, *shown in table_after(METHOD, words):
        key, row = INPUTS[name], [name]
        for file in files:
            rows = stored(file)["rows"]
            if key not in rows:
                row += ["", ""]
                continue
            values, full = (per_slice(rows[one]["50 DDIM"]["mean"]) for one in (key, "full"))
            row += [f"{np.mean(values):.2f}", "" if key == "full" else paired(values, full)]
        expected.append([*row, *shown[2 * len(files) :]])
    table_holds(METHOD, words, expected, same=same)


def test_kinds_of_guidance() -> None:
    found = stored("guidance_kinds")
    words, alone = "The first table is for the guidance alone.", []
    for noise, *_ in table_after(METHOD, words):
        values = found["worth_hu"][noise.removeprefix("t = ")]
        alone.append([noise, *(f"{values[kind]:.1f}" for kind in ("without", "adjoint", "fbp", "cg"))])
    table_holds(METHOD, words, alone)
    rows, words, expected = found["rows"], "All networks had\nthe same training", []
    for kind, *shown in table_after(METHOD, words):
        row, first = rows[kind], rows["fbp"]
        pairs = [(per_slice(one["direct"]["direct_mean"]), per_slice(one["sampled"]["single"])) for one in (row, first)]
        direct, single = (f"{np.mean(values):.2f}" for values in pairs[0])
        to_fbp = (shown[1], shown[3]) if kind == "fbp" else tuple(map(paired, *pairs))
        mean = f"{row['sampled']['mean']['psnr_db']['mean']:.2f}"
        expected.append([kind, direct, to_fbp[0], single, to_fbp[1], mean])
    table_holds(METHOD, words, expected, same=same)


def test_refinements_for_one_scan() -> None:
    found = stored("specialist_refinements")
    words = "**The refinement** gives most of the quality."
    names = [name for name, *_ in table_after(METHOD, words)]
    means = {scan: {name: float(np.mean(values)) for name, values in found["psnr_db"][scan].items()} for scan in SCANS}
    others = [max(value for name, value in means[scan].items() if name not in (scan, "any scan")) for scan in SCANS]
    expected = {
        "none: TV alone": [float(np.mean(found["tv_psnr_db"][scan])) for scan in SCANS],
        "any scan": [means[scan]["any scan"] for scan in SCANS],
        "this scan: its specialist": [means[scan][scan] for scan in SCANS],
        "another scan: the best of five": others,
    } | {
        f"any scan, then {steps} steps for this one": [
            float(np.mean(found["finetuned"][steps][scan]["psnr_db"])) for scan in SCANS
        ]
        for steps in ("200", "600")
    }
    assert set(names) == set(expected)
    table_holds(METHOD, words, [[name, *(f"{value:.2f}" for value in expected[name])] for name in names])


def test_htransforms_for_one_scan() -> None:
    found = stored("specialists")
    words = "**The h-transform networks** all work around"
    names = [name for name, *_ in table_after(METHOD, words)]
    means = {
        scan: {name: cell["direct_mean"]["psnr_db"]["mean"] for name, cell in found["direct_mean"][scan].items()}
        for scan in SCANS
    }
    others = [max(value for name, value in means[scan].items() if name not in (scan, "any scan")) for scan in SCANS]
    expected = {
        "none: the initial reconstruction alone": [found["reference"][scan]["psnr_db"]["mean"] for scan in SCANS],
        "any scan": [means[scan]["any scan"] for scan in SCANS],
        "this scan: its specialist": [means[scan][scan] for scan in SCANS],
        "any scan minus specialist": [means[scan]["any scan"] - means[scan][scan] for scan in SCANS],
        "another scan: the best of five": others,
    }
    assert set(names) == set(expected)
    table_holds(METHOD, words, [[name, *(f"{value:.2f}" for value in expected[name])] for name in names], same=same)


def test_stochastic_control() -> None:
    found = stored("stochastic_control")
    rows = found["rows"]
    values = [
        found["exact_posterior_mean_psnr_db"],
        *(rows[name]["psnr_mean_db"] for name in ("stochastic control", "DPS, tuned", "head before training")),
    ]
    words = "16, seed\n0, mean of 4 samples:"
    shown = table_after(METHOD, words)
    table_holds(METHOD, words, [[row[0], f"{v:.2f}", *row[2:]] for row, v in zip(shown, values, strict=True)])


def test_importance_fine_tuning() -> None:
    names = {"log-variance": "log-variance", "importance": "importance", "own samples, no weights":
             "own samples, no weights", "the true images instead": "true images",
             "exact posterior mean": "exact posterior mean"}  # fmt: skip
    worlds = stored("importance_finetuning")["worlds"]
    words, expected = "### Importance fine-tuning is not an objective here", []
    for name, *cells in table_after(METHOD, words):
        row = [name]
        for number, sigma in enumerate((0.05, 0.8)):
            gains = np.concatenate([
                np.subtract(one["rows"][names[name]]["psnr_db"], one["rows"]["head before training"]["psnr_db"])
                for one in worlds if one["sigma"] == sigma
            ])  # fmt: skip
            _, bracket, interval = cells[2 * number].partition(" (")
            row += [f"{gains.mean():+.2f} dB{bracket}{interval}", f"{(gains > 0).sum()} of {len(gains)}"]
        expected.append(row)
    table_holds(METHOD, words, expected)


def test_weights_of_low_counts() -> None:
    rows = {(row["photons"], row["method"]): row for row in stored("noise_mismatch")["rows"]}
    words, expected = "`benchmarks/experiments/noise_mismatch.py` shows the effect", []
    for photons, *_ in table_after(METHOD, words):
        found = [
            [
                f"{np.mean(rows[float(photons), method][kind]['values']['psnr_db']):.2f}"
                for kind in ("constant", "weighted")
            ]
            for method in ("tv", "dds", "diffpir")
        ]
        expected.append([photons, *(" / ".join(both) for both in found)])
    table_holds(METHOD, words, expected)


def test_rounds_of_the_mean() -> None:
    found = {(cell["scan"], cell["label"]): cell for cell in stored("compare_photos64_rounds")["cells"]}
    tasks = (
        "denoise", "inpaint_box", "inpaint_random", "inpaint_freeform", "sr4", "gaussian_blur", "motion_blur",
        "colorization", "compressed_sensing", "hdr", "phase_retrieval",
    )  # fmt: skip
    expected = []
    for rounds in (0, 2, 6):
        label = f"deft:rounds={rounds},closed_form=false"
        count = found["sr4", label]["values"]["evaluations_per_slice"]
        name = f"`rounds={rounds}`, {count:.0f} evaluation" + "s" * (count > 1)
        expected.append([name, *(f"{found[task, label]['summary']['psnr_db']['mean']:.2f}" for task in tasks)])
    table_holds(METHOD, "### The mean of photographs", expected)
    slices = {(cell["scan"], cell["label"]): per_slice_values(cell) for cell in stored("compare_val_rounds")["cells"]}
    changes = [np.subtract(slices[scan, "deft:rounds=1"], slices[scan, "deft"]).mean()
               for scan in ("parallel60_1e5", "parallel20_1e5", "parallel60_1e5_120deg")]  # fmt: skip
    shown = [f"{change:+.2f}" for change in changes]
    page_says(METHOD, f"the mean by {shown[0]} dB at 60 views, {shown[1]} at 20 and {shown[2]} over 120 degrees")


def per_slice_values(cell: Any) -> list[float]:
    """PSNR of every slice in a comparison."""
    found: list[float] = cell["values"]["psnr_db"]
    return found


def test_scores_of_the_mutants_are_shares_with_wilsons_interval() -> None:
    rows = table_after("docs/testing.md", "\n### Scores\n")
    assert len(rows) == 21
    for row in rows:
        count, dead = map(int, row[3:5])
        found = binomtest(dead, count).proportion_ci(method="wilson")
        row[5:7] = [f"{100 * dead / count:.1f} %", f"{100 * found.low:.1f} to {100 * found.high:.1f} %"]
    table_holds("docs/testing.md", "\n### Scores\n", rows)


def test_the_table_of_flicker() -> None:
    found = stored("flicker")
    shown = table_after(SERIES, "## From slice to slice")
    sample = "deft:estimate=samples"
    names = {
        "FBP": "fbp", "TV": "tv", "DEFT, mean": "deft", "DEFT, one sample": sample,
        "DEFT, one sample, 90 % of its noise in common": f"{sample},common_noise=0.9",
        "DEFT, one sample, all of its noise in common": f"{sample},common_noise=1",
    }  # fmt: skip
    assert [cells[0] for cells in shown] == list(names)
    expected = []
    for name in names:
        rows = [run[names[name]] for run in found["runs"]]
        means = {key: np.mean([row[key] for row in rows]) for key in ("rmse", "flicker", "correlation")}
        each = ", ".join(f"{row['flicker']:.2f}" for row in rows)
        expected.append([name, f"{means['rmse']:.1f}", f"{means['flicker']:.2f}", each, f"{means['correlation']:.2f}"])
    table_holds(SERIES, "## From slice to slice", expected)
    within = [0.9 <= run["deft"]["flicker"] <= 1.1 for run in found["runs"]]
    assert within == [False, True, True] and found["slices"] == 24

    def mean(name: str, key: str) -> float:
        return float(np.mean([run[name][key] for run in found["runs"]]))

    shared = f"{sample},common_noise=0.9"
    assert (
        abs(mean(shared, "flicker") - mean("deft", "flicker"))
        < 0.05
        < mean(sample, "flicker") - mean(shared, "flicker")
    )
    assert abs(mean(shared, "rmse") / mean(sample, "rmse") - 1) < 0.01, "changes the error of a sample by less than 1 %"


def test_the_table_of_native_resolution() -> None:
    found = stored("native_resolution")
    routes = ("TV, native", "DEFT, half", "DEFT, native")
    expected = []
    for views, rows in found["views"].items():
        for route in routes:
            psnr, ssim = (np.mean([row[route][key] for row in rows]) for key in ("psnr", "ssim"))
            gains = [row["DEFT, native"]["psnr"] - row[route]["psnr"] for row in rows]
            last = ["", ""] if route == routes[-1] else [
                paired([row["DEFT, native"]["psnr"] for row in rows], [row[route]["psnr"] for row in rows]),
                f"{min(gains):+.2f}",
            ]  # fmt: skip
            expected.append([views, route, f"{psnr:.2f}", f"{ssim:.4f}", *last])
    table_holds(RESULTS, "## Native resolution", expected)
    assert found["slices"] == 40 and found["patients"] == 6 and found["seed"] == 0
    most = {}
    for views, goal in (("60", 2.5), ("120", 3.9)):
        rows = found["views"][views]
        over = {route: np.mean([row["DEFT, native"]["psnr"] - row[route]["psnr"] for row in rows]) for route in routes}
        assert over["TV, native"] >= 1.7 and over["DEFT, half"] < goal, "the page says which goals are met"
        shares = [10 ** ((row["DEFT, half"]["psnr"] - limit) / 10)
                  for row, limit in zip(rows, found["half_limits"], strict=True)]  # fmt: skip
        most[views] = np.mean([-10 * np.log10(1 - share) for share in shares])
        assert most[views] < goal
    page_says(
        RESULTS,
        f"interpolated, have {np.mean(found['half_limits']):.2f} dB",
        f"it would gain {most['60']:.2f} dB at 60 views and {most['120']:.2f} dB at",
    )


def test_what_is_unlike_the_training() -> None:
    found = stored("familiarity")
    limits = Familiarity.from_dict(found["limits"])
    assert limits == Familiarity.from_dict(load_htransform().card["familiarity"]), "the shipped limits"
    told = {
        group: [{one.name for one in limits.findings([row["fit"]], [row["residual"]])} for row in rows]
        for group, rows in found["groups"].items()
    }
    expected = [
        [group, str(len(rows)), *(str(sum(name in one for one in rows)) for name in (UNFAMILIAR, MISFIT))]
        for group, rows in told.items()
    ]
    table_holds(RESULTS, "## When the image is unlike the training", expected)
    alarms = [sum(map(bool, told[name])) for name in ("test_volumes", "test_singles")]
    page_says(RESULTS, "{} of 29 and {} of 27 slices".format(*alarms))
    assert found["fitted"] == 128
    for group in ("a head of plastic", "170 degrees for 180"):
        assert all(told[group])
    for group in ("detector off by one element", "170 degrees for 180"):
        assert all(row["others"] == ["shifted detector"] for row in found["groups"][group])
    assert not any(told["phantom: head of ellipsoids"])


def test_the_kills_of_a_series() -> None:
    found = stored("whole_series")
    kills = [one for one in found["kills"] if one["was_killed"]]
    assert len(kills) == 5 and all(one["same"] for one in found["kills"])
    assert (found["killed_slices"], found["seed"], found["side"]) == (20, 0, 512)
    text = " ".join((ROOT / SERIES).read_text(encoding="utf-8").split())
    assert "five random moments (20 slices of 512, seed 0)" in text
    words = ("none", "one", "two", "three", "four", "five")
    late = sum(one["parts"] > 0 for one in kills)
    assert late > 0 and f"{words[late]} of the kills came after batches were finished" in text


def test_the_time_of_a_series() -> None:
    found = stored("whole_series")
    whole = found["whole"]
    busy, gib = whole["user_seconds"] + whole["system_seconds"], whole["peak_mib"] / 1024
    took = f"took {whole['seconds']:.0f} s by the clock on two cores, {busy:.0f} processor seconds and {gib:.2f} GiB"
    page_says(SERIES, f"40 slices of 512 x 512 (a series of 20, and copies of them) {took}")
    assert (found["slices"], found["side"], found["options"]) == (40, 512, [])
    assert whole["seconds"] < 240 and whole["peak_mib"] * 2**20 < 3e9, "both goals are met"
    page_says(SERIES, "4 minutes and 3 GB (2.79 GiB), both **met**.")


def test_what_the_scan_did_not_measure() -> None:
    methods = stored("null_space")["methods"]
    mean, tv, sample = (methods[name]["summary"] for name in ("DEFT mean", "TV", "DEFT one sample"))

    def three(key: str, text: str, scale: float = 1.0) -> list[str]:
        return [text.format(scale * one[key]["mean"]) for one in (mean, tv, sample)]

    share, amount = (three(key, "{:.0f}", 100) for key in ("error_unmeasured", "amount"))
    related = three("correlation", "{:.2f}")
    names = stored("null_space")["names"]
    at = names.index(stored("null_space")["shown"]["median"])
    errors = [methods[name]["per_slice"]["rmse_body_hu"][at] for name in ("DEFT one sample", "TV")]
    page_says(
        "docs/panels.md",
        "{} % of the squared error of the mean lies in the part that the scan did not measure (TV {} %, one sample "
        "{} %).".format(*share),
        "correlates with the unmeasured part of the truth by {} (TV {}, one sample {}).".format(*related),
        "It has {} % of the amount in the truth (TV {} %, one sample {} %).".format(*amount),
        "error of the sample is larger than TV's ({:.0f} against {:.0f} HU)".format(*errors),
    )
