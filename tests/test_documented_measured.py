"""The tables of the pages on measured scans and projections are stored results."""

from __future__ import annotations

from documented_tables import page_says, stored, table_after, table_holds

MEASURED, PROJECTIONS = "docs/measured_scans.md", "docs/projections.md"


def test_measured_discs_and_tooth() -> None:
    shown = table_after(MEASURED, "**Against a reference, inside the object.**")
    cases = ["solid disc, 30 deg, 61 views"] * 3 + ["tooth, 31 of 181 views"] * 3
    keys = {"relative error": "{:.3f}", "mean / mean of the reference": "{:.2f}", "challenge score": "{:.3f}"}
    rows = []
    for case, (data, views, method, *_) in zip(cases, shown, strict=True):
        values = stored("measured_scans")[case][method]
        rows.append([data, views, method, *(text.format(values[key]) for key, text in keys.items())])
    table_holds(MEASURED, "**Against a reference, inside the object.**", rows)


def test_deft_on_measured_discs() -> None:
    trials = stored("measured_deft")["trials"]
    shown = table_after(MEASURED, "**Measured, perforated disc, 90 degrees.**")
    names = [name for name in trials if "perforated" in name]
    assert len(shown) == 4 * len(names)
    keys, rows = ("unexplained", "unexplained, views between", "unexplained, other side"), []
    for number, (trial, method, *_) in enumerate(shown):
        values = trials[names[number // 4]]["methods"][method]
        rows.append([trial, method, *(f"{values[key]:.4f}" if key in values else "-" for key in keys)])
    table_holds(MEASURED, "**Measured, perforated disc, 90 degrees.**", rows)
    shown = table_after(MEASURED, "**Against the full-view image, solid disc.**")
    names = [name for name in trials if "solid" in name]
    formats = {
        "error inside (HU)": "{:.0f}", "mean / mean of the reference": "{:.2f}", "challenge score": "{:.3f}",
        "grain (HU)": "{:.0f}",
    }  # fmt: skip
    assert len(shown) == 4 * len(names)
    rows = []
    for number, (trial, method, *_) in enumerate(shown):
        values = trials[names[number // 4]]["methods"][method]
        rows.append([trial, method, *(text.format(values[key]) for key, text in formats.items())])
    table_holds(MEASURED, "**Against the full-view image, solid disc.**", rows)
    mean, sample = "DEFT, direct mean", "DEFT, one sample"
    missing = [trials[name] for name in trials if not {"360 deg", "240 deg"} & set(name.split(", "))]
    times = {
        method: [one["methods"][method]["unexplained"] / one["unexplained by noise alone"] for one in missing]
        for method in (mean, sample)
    }
    page_says(
        MEASURED,
        f"- direct mean: {min(times[mean]):.1f} to {max(times[mean]):.0f} times (most over 30 degrees)",
        f"- one sample: {min(times[sample]):.1f} to {max(times[sample]):.0f} times",
    )


def test_the_gel_phantom() -> None:
    expected = [
        [str(row["frame"]), row["method"], row["region"], str(row["pixels"]), f"{row['ours']:.5f}",
         f"{row['reference']:.5f}", f"{row['difference_percent']:+.2f}"]
        for row in stored("measured_projections")["gel"]
    ]  # fmt: skip
    table_holds(PROJECTIONS, "**Gel phantom.**", expected)
