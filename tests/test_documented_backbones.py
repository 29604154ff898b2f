"""The tables of docs/backbones.md are stored results."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from documented_tables import page_says, stored, table_after, table_holds

from deft_ct.evaluation.statistics import cluster_interval

ROOT, PAGE = Path(__file__).parents[1], "docs/backbones.md"


def test_the_table_of_the_prior_of_backbones() -> None:
    shown = table_after("benchmarks/results/backbones_prior.md", "scaffolding with a small CA model")
    table_holds(PAGE, "## The shipped prior", shown)
    rows = stored("backbones_prior")["rows"]
    assert len(rows["samples"]) == int(shown[0][1]) and len(rows["val"]) == int(shown[1][1])
    for row, (name, _, *cells) in zip((rows["samples"], rows["val"]), shown[:2], strict=True):
        for key, cell in zip(row[0], cells, strict=True):
            assert float(cell.split(" ")[0]) == pytest.approx(np.mean([one[key] for one in row]), rel=6e-3), (name, key)


def test_the_table_of_the_gate_of_backbones() -> None:
    found = stored("backbones_gate")
    shown = table_after("benchmarks/results/backbones_gate.md", "scaffolding with a small CA model")
    table_holds(PAGE, "## Is a trained network better than replacement?", shown)
    rows = {row[0]: row[1:] for row in shown}
    base = found["errors"]["replacement"]
    for label, errors in found["errors"].items():
        for cell, key in zip(rows[label], errors, strict=True):
            assert float(cell.split(" ")[0]) == pytest.approx(np.mean(errors[key]), rel=6e-3)
        if label != "replacement":
            less = [np.mean(np.subtract(errors[key], base[key])) for key in errors]
            verdict = "passes" if max(less) < 0 else "fails"
            for cell, value in zip(rows[f"{label} less replacement: {verdict}"], less, strict=True):
                assert float(cell.split(" ")[0]) == pytest.approx(value, abs=6e-4)


def test_the_table_of_scaffolds() -> None:
    page = "benchmarks/results/backbones_table.md"
    test, benchmark = table_after(page, "### test"), table_after(page, "### benchmark")
    shown = [[one[0], one[2], two[2], *one[4:8], one[11]] for one, two in zip(test, benchmark, strict=True)]
    table_holds(PAGE, "columns are those of test:", shown)
    rows = stored("backbones_table")
    for group, column in (("test", 1), ("benchmark", 2)):
        for label, *cells in shown:
            found = [row for row in rows[group] if row["label"] == label]
            solved = np.mean([value for row in found for value in row["samples"]["solved"]])
            assert float(cells[column - 1].split(" ")[0]) == pytest.approx(solved, abs=6e-4), (group, label)
            assert rows["arguments"]["limit"] is None
            assert len({row["problem"] for row in found}) == {"test": 106, "benchmark": 17}[group]


def test_deft_is_ahead_of_dps_as_the_page_says() -> None:
    page = (ROOT / "docs/backbones.md").read_text()
    rows, lines = stored("backbones_table"), (ROOT / "benchmarks/results/backbones_table.md").read_text().splitlines()
    for group in ("test", "benchmark"):
        solved = {
            label: np.mean([v for row in rows[group] if row["label"] == label for v in row["samples"]["solved"]])
            for label in ("deft_4", "deft_10", "dps")
        }
        for label in ("deft_4", "deft_10"):
            mean = solved[label] - solved["dps"]
            (line, *_) = (one for one in lines if one.startswith(f"- {label} less dps, solved: {mean:.3g} ["))
            low, high = (f"{100 * float(x):.1f}" for x in re.findall(r"-?\d+\.\d+", line)[1:])
            said = rf"{100 * mean:.1f}\D.{{0,90}}?{re.escape(low)}\s+to\s+{re.escape(high)}"
            assert re.search(said, page, re.S), line


def test_no_method_solves_a_chain_with_steps_even_in_time() -> None:
    usual = {"deft_4": "log_snr", "deft_10": "log_snr", "amortised": "log_snr"}
    for label, found in stored("backbones_tune").items():
        if isinstance(found, dict) and isinstance(found.get("trials"), list):
            even = [t for t in found["trials"] if t["options"].get("grid", usual.get(label, "uniform")) == "uniform"]
            assert even and not any(trial["solved"] for trial in even), label


def test_how_many_problems_have_a_solved_chain() -> None:
    rows, solved = stored("backbones_table")["test"], {}
    for label in ("deft_4", "amortised", "reconstruction_guidance", "daps", "dps"):
        mine = [row["samples"]["solved"] for row in rows if row["label"] == label]
        solved[label] = f"{100 * np.mean([any(values) for values in mine]):.0f} %"
    page_says(
        PAGE,
        f"DEFT (4 %) has at least one solved chain of eight in {solved['deft_4']} of the problems. The amortised "
        f"model has one in {solved['amortised']}, reconstruction guidance in {solved['reconstruction_guidance']}, "
        f"DAPS in {solved['daps']} and DPS in {solved['dps']}",
    )
    page = " ".join((ROOT / PAGE).read_text().split())
    of_problem: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        of_problem.setdefault(row["label"], {}).setdefault(row["problem"], []).extend(row["samples"]["solved"])
    for label in ("reconstruction_guidance", "daps"):
        names = list(of_problem["deft_4"])
        less = [np.mean(of_problem["deft_4"][name]) - np.mean(of_problem[label][name]) for name in names]
        found = cluster_interval([100 * value for value in less], names)
        assert f"by {found.mean:.1f} ({found.low:.1f} to {found.high:.1f})" in page.replace(" points (", " (")
