"""What the pages say of scans that are described wrongly, of damaged data and of many views is stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from documented_comparisons import RESULTS, lost_db
from documented_tables import page_says, stored


@pytest.mark.parametrize("page", ["README.md", "docs/explanation/limits.md"])
def test_what_a_wrongly_described_scan_costs(page: str) -> None:
    angles, half = (lost_db(case, "DEFT, direct mean")
                    for case in ("angles off by 0.5 degrees", "detector off by 0.5 elements"))  # fmt: skip
    page_says(
        page,
        f"andom errors of 0.5 degrees in the view angles cost {angles:.1f} dB",
        f"its data are moved back: half an element costs {half:.1f} dB",
    )


def described_wrongly() -> list[str]:
    found, lost = stored("robustness"), lost_db
    deft, told = "DEFT, direct mean", "against_told"
    photons = [[lost(f"1/{k} of the photons", method, told) for method in (deft, "TV")] for k in (3, 10)]
    angles = [lost(f"angles off by {off} degrees", deft) for off in (0.25, 0.5)]
    half, tv, whole = lost("detector off by 0.5 elements", deft), lost("detector off by 0.5 elements", "TV"), lost(
        "detector off by 1 element", deft)  # fmt: skip
    shifts = found["detector_shift_elements"]
    shifted = shifts["detector off by 0.5 elements"]
    still = max(abs(value) for case, values in shifts.items() if "detector off" not in case for value in values)
    return [
        f"DEFT loses {photons[0][0]:.2f} dB compared with the true number (TV {photons[0][1]:.2f}). With a tenth it "
        f"loses {photons[1][0]:.1f} dB (TV {photons[1][1]:.1f}).",
        f"Random errors of 0.25 and 0.5 degrees cost {angles[0]:.1f} and {angles[1]:.1f} dB.",
        f"by half an element costs {half:.1f} dB (TV {tv:.1f}), because",
        f"A whole element costs {whole:.1f} dB",
        f"Errors of 5 % in four elements cost {lost('gain of 4 elements off by 5 %', deft):.1f} dB.",
        f"it found the half element as {min(shifted):.2f} to {max(shifted):.2f}, and at most {still:.2f} without a",
    ]


def alarms_and_views() -> list[str]:
    singles, volumes = (stored(f"false_alarms_test_{name}") for name in ("singles", "volumes"))
    alarms, cases = (singles[key] + volumes[key] for key in ("alarmed", "slice_scans"))
    assert {**singles["by"], **volumes["by"]} == {"shifted detector": 1}
    found = stored("more_data")["cells"]
    least = min(
        np.subtract(found[f"{scan} deft"]["psnr_db"], found[f"{scan} tv"]["psnr_db"]).min()
        for scan in (f"parallel{views}_4.096e3" for views in stored("more_data")["settings"]["views"])
    )
    return [
        f"raise a warning in {alarms} of {cases:,} cases ({100 * alarms / cases:.2f} %;",
        f"On every slice it is at least {least:.2f} dB above TV.",
    ]


@pytest.mark.parametrize("claims", [described_wrongly, alarms_and_views])
def test_sentences_say_what_is_stored(claims: Any) -> None:
    page_says(RESULTS, *claims())
