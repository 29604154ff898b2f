"""The tables of docs/photographs.md are stored results."""

from __future__ import annotations

import csv

import numpy as np
from documented_tables import ROOT, page_says, stored, table_after, table_holds

from deft_ct.evaluation.picture_sets import INCEPTION, INCEPTION_SHA256
from deft_ct.workflows.suite import read_suite

PHOTOGRAPHS = "docs/photographs.md"
TASKS = (
    "denoise", "inpaint_box", "inpaint_random", "inpaint_freeform", "sr4", "gaussian_blur", "motion_blur",
    "colorization", "compressed_sensing", "hdr", "phase_retrieval",
)  # fmt: skip


def test_the_table_of_shipped_networks_for_photographs() -> None:
    with (ROOT / "benchmarks/results/photos64.csv").open(encoding="utf-8") as file:
        rows = {(row["problem"], row["method"]): row for row in csv.DictReader(file)}
    shown = table_after(PHOTOGRAPHS, "## The shipped networks")
    assert len(shown) == len({method for _, method in rows})
    expected = []
    for method, *_ in shown:
        found = [rows.get((task, method), {}).get("psnr_db") for task in TASKS]
        sr4 = rows["sr4", method]
        effort = [f"{float(sr4['evaluations']):.0f}", f"{float(sr4['seconds']):.2g}"]
        expected.append([method, *(f"{float(value):.2f}" if value else "" for value in found), *effort])
    table_holds(PHOTOGRAPHS, "## The shipped networks", expected)


def test_what_is_said_of_the_shipped_networks() -> None:
    with (ROOT / "benchmarks/results/photos64.csv").open(encoding="utf-8") as file:
        rows = {(row["problem"], row["method"]): row for row in csv.DictReader(file) if row["psnr_db"]}
    mean, sample = "deft", "deft:estimate=samples,steps=12"
    psnr = {key: float(row["psnr_db"]) for key, row in rows.items()}
    best = {task: max((value, name) for (of, name), value in psnr.items() if of == task)[1] for task in TASKS}
    assert [list(best.values()).count(name) for name in (mean, sample)] == [9, 1]
    assert best["compressed_sensing"] == "dps:steps=100" and best["phase_retrieval"] == sample
    behind = psnr["compressed_sensing", "dps:steps=100"] - psnr["compressed_sensing", mean]
    below = [psnr[task, mean] - psnr[task, sample] for task in TASKS[:9]]
    page_says(
        PHOTOGRAPHS,
        f"DPS is better by {behind:.2f} dB",
        f"lie {min(below):.1f} to {max(below):.1f} dB below its mean in the nine linear",
    )
    ranks = {}
    for task in TASKS:
        diffusion = [(float(row["gmsd"]), name) for (of, name), row in rows.items()
                     if of == task and name not in {mean, "cgls", "tikhonov", "tv"}]  # fmt: skip
        ranks[task] = 1 + [name for _, name in sorted(diffusion)].index(sample)
    late = {task: rank for task, rank in ranks.items() if rank > 2}
    assert late == {"denoise": 3, "motion_blur": 3, "gaussian_blur": 6}
    gmsd = {key: float(row["gmsd"]) for key, row in rows.items()}
    assert [task for task in TASKS if gmsd[task, mean] >= gmsd[task, sample]] == ["phase_retrieval"]
    trained = {cell["label"]: cell for cell in stored("compare_photos64_rounds")["cells"] if cell["scan"] == "denoise"}
    value = trained["deft:rounds=2,closed_form=false"]["summary"]["psnr_db"]["mean"]
    assert {row["images"] for row in rows.values()} == {"50"}
    widest = max(float(row["psnr_db_high"]) - float(row["psnr_db_low"]) for row in rows.values()) / 2
    page_says(
        PHOTOGRAPHS,
        f"The trained h-transform reaches {value:.2f} dB there",
        f"intervals of up to {widest:.1f} dB on either side",
    )


def test_the_hash_of_the_inception_network() -> None:
    text = (ROOT / PHOTOGRAPHS).read_text(encoding="utf-8")
    assert f"SHA-256 is `{INCEPTION_SHA256}`" in text and f"`{INCEPTION}`" in text


def test_the_table_of_exact_posterior_means() -> None:
    found, trained = stored("gaussian_images")["rows"], stored("gaussian_deft")["rows"]
    tasks = stored("gaussian_images")["settings"]["tasks"]
    assert list(trained) == tasks
    for task, row in trained.items():
        found[task] |= {"deft, mean": row["mean"], "deft, one sample": row["sample"]}
        assert row["exact"]["psnr_db"] == found[task]["exact"]["psnr_db"]
    shown = table_after(PHOTOGRAPHS, "## Against the exact posterior mean")
    assert len(shown) == 16
    expected = []
    for method, *_ in shown:
        cells = []
        for task in tasks:
            row = found[task].get(method)
            value = None if row is None or "psnr_db" not in row else np.mean(row["psnr_db"])
            if method != "exact" and value is not None:
                value -= np.mean(found[task]["exact"]["psnr_db"])
            cells.append("" if value is None else f"{value:.2f}")
        expected.append([method, *cells])
    table_holds(PHOTOGRAPHS, "## Against the exact posterior mean", expected)


def test_what_is_said_of_deft_beside_the_exact_posterior() -> None:
    rows = stored("gaussian_deft")["rows"].values()
    seconds = [row["training_cpu_seconds"] for row in rows]
    mean, sample, exact = (
        np.array([np.mean(row[name]["psnr_db"]) for row in rows]) for name in ("mean", "sample", "exact")
    )
    below = mean - sample
    page_says(
        PHOTOGRAPHS,
        f"1,500 steps of 8 images, {min(seconds)} to {max(seconds)} seconds of one core",
        f"takes 5 evaluations (denoise: 1) and is within {(exact - mean).max():.2f} dB of the exact mean",
        f"A sample takes 20, and lies {below.min():.1f} to {below.max():.1f} dB below DEFT's mean",
    )
    for task, row in stored("gaussian_deft")["rows"].items():
        assert row["mean"]["evaluations"] == (1 if task == "denoise" else 5) and row["sample"]["evaluations"] == 20
    gaps = {
        task: max((np.mean(row[name]["psnr_db"]) - np.mean(row["exact"]["psnr_db"]), name)
                  for name in ("ddrm", "ddnm", "dds", "diffpir", "pigdm", "dps", "daps", "reddiff")
                  if "psnr_db" in row[name])
        for task, row in stored("gaussian_images")["rows"].items()
    }  # fmt: skip
    assert max(gaps.items(), key=lambda item: item[1])[0] == "denoise" and gaps["denoise"][1] == "ddnm"
    assert min(gaps.items(), key=lambda item: item[1])[0] == "inpaint_random" and gaps["inpaint_random"][1] == "dps"
    page_says(
        PHOTOGRAPHS, f"{-gaps['denoise'][0]:.1f} (DDNM+, denoise) to {-gaps['inpaint_random'][0]:.1f} dB (DPS, inpaint"
    )


def test_the_table_beside_the_paper() -> None:
    """The column of the paper is from notes of others; ours follows from the stored results."""
    rows = {row[0]: row[2] for row in table_after("docs/photographs.md", "## Beside the paper")}
    with (ROOT / "benchmarks/results/photos64.csv").open(encoding="utf-8") as file:
        found = {(row["problem"], row["method"]): row for row in csv.DictReader(file)}
    names = {
        "DEFT's mean": "deft", "Tikhonov": "tikhonov", "DPS": "dps:steps=100", "TV": "tv",
        "DEFT's sample": "deft:estimate=samples,steps=12", "RED-diff": "reddiff:steps=100", "PiGDM": "pigdm:steps=30",
        "DDRM": "ddrm",
    }  # fmt: skip
    psnr = {name: float(found["inpaint_freeform", key]["psnr_db"]) for name, key in names.items()}
    best = sorted((name for name in names if name != "DDRM"), key=lambda name: -psnr[name])
    assert rows["quality, best first"] == f"by PSNR: {', '.join(best)} (n = 50)"
    quiet = {
        cell["label"]: cell["values"]["seconds_per_slice"] for cell in stored("compare_photos64_seconds_sr4")["cells"]
    }
    seconds = {name: quiet[key] for name, key in names.items() if key in quiet}
    mean, sample = seconds["DEFT's mean"], seconds["DEFT's sample"]

    def parts(other: str) -> tuple[int, int]:
        return round(seconds[other] / mean), round(seconds[other] / sample)

    (dps, dps_sample), (red, red_sample) = parts("DPS"), parts("RED-diff")
    assert rows["time against DPS"].startswith(f"a {dps}th for the mean, a {dps_sample}th for a sample")
    assert rows["time against RED-diff"] == f"an {red}th for the mean, a {red_sample}th for a sample"
    shares = mean / seconds["PiGDM"], sample / seconds["PiGDM"]
    assert rows["time against PiGDM"] == f"{shares[0]:.1f} of it for the mean, {shares[1]:.1f} for a sample"
    slower, slow = seconds["DDRM"] / mean, seconds["DDRM"] / sample
    assert rows["DDRM"] == f"{slower:.1f} times as slow as the mean, {slow:.1f} times as slow as a sample"


def test_the_table_of_shared_and_single_h_transforms() -> None:
    found = stored("amortised_photographs")["rows"]
    shown = table_after(PHOTOGRAPHS, "### One h-transform for several tasks")
    assert [task for task, *_ in shown] == list(found)
    pairs = [(net, kind) for kind in ("mean", "sample") for net in ("single", "shared")]
    less: dict[str, list[float]] = {"mean": [], "sample": []}
    expected = []
    for task in found:
        means = {pair: np.mean(found[task][pair[0]][pair[1]]["psnr_db"]) for pair in pairs}
        expected.append([task, *(f"{value:.2f}" for value in means.values())])
        for kind, values in less.items():
            values.append(means["shared", kind] - means["single", kind])
    table_holds(PHOTOGRAPHS, "### One h-transform for several tasks", expected)
    mean, sample = less["mean"], less["sample"]
    page_says(
        PHOTOGRAPHS,
        f"differs by {min(mean):+.2f} to {max(mean):+.2f} dB from that of a single one, by {np.mean(mean):+.2f}",
        f"a sample by {min(sample):+.2f} to {max(sample):+.2f} dB, {np.mean(sample):+.2f} on average",
    )


def test_the_table_of_kodak_photographs() -> None:
    with (ROOT / "benchmarks/results/kodak256.csv").open(encoding="utf-8") as file:
        rows = {(row["problem"], row["method"]): row for row in csv.DictReader(file)}
    tasks = list(dict.fromkeys(task for task, _ in rows))
    suite = read_suite("kodak256", overrides={"data": ["photos:FOLDER"]})
    assert tasks == [task.replace("/", "-") for task in suite.tasks or ()]
    shown = table_after(PHOTOGRAPHS, "## Kodak photographs")
    assert [method for method, *_ in shown] == list(dict.fromkeys(method for _, method in rows))
    expected = []
    for method, *_ in shown:
        values = [rows[task, method]["psnr_db"] for task in tasks]
        first = rows[tasks[0], method]
        seconds = float(first["seconds"])
        effort = [f"{float(first['evaluations']):.0f}", f"{seconds:.0f}" if seconds >= 10 else f"{seconds:.2g}"]
        expected.append([method, *(f"{float(value):.2f}" if value else "" for value in values), *effort])
    table_holds(PHOTOGRAPHS, "## Kodak photographs", expected)
    psnr = {key: float(row["psnr_db"]) for key, row in rows.items() if row["psnr_db"]}
    best = [max((value, name) for (of, name), value in psnr.items() if of == task)[1] for task in tasks]
    assert best.count("deft") == 5 and set(best) == {"deft", "tikhonov", "reddiff:steps=100"}
    assert {row["images"] for row in rows.values() if row["psnr_db"]} == {"2"}
