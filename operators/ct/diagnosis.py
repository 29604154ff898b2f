"""What is wrong with the data of a scan, found before the reconstruction and repaired where the repair is standard.

Each check is a function with a documented statistic and threshold in a module of its own; here they become sentences.
A slice is judged by itself, so that its image does not depend on the rest of the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from deft_ct.operators.ct import plausibility
from deft_ct.operators.ct.bad_elements import BadElements, bad_elements
from deft_ct.operators.ct.detector_offset import detector_shift, moved_back
from deft_ct.operators.ct.geometry import PlanarGeometry
from deft_ct.operators.ct.scan import ScanGeometry
from deft_ct.operators.ct.starvation import unmeasured_rays, with_rays_filled
from deft_ct.operators.ct.system_matrix import Geometry
from deft_ct.operators.ct.truncation import Truncation, truncation
from deft_ct.operators.findings import Diagnosis, Finding
from deft_ct.operators.linear import LinearOperator

SHIFT_ELEMENTS = 0.15
"""Detector elements by which data may seem shifted without a warning."""
TRUNCATED_VIEWS = 0.05
"""Share of the views that may be truncated without a warning."""

WRONG_SIGN = "wrong sign"
NOT_LOGGED = "counts not logged"
DEAD, NOISY, OFFSET = "dead detector elements", "noisy detector elements", "offset detector elements"
TRUNCATED = "truncated views"
SHIFTED = "shifted detector"
STARVED = "photon starvation"
TOO_NOISY = "more noise than assumed"
METAL = "metal"

_LISTED = 8


def diagnose_scan(
    y: Tensor, geometry: Geometry, weights: Tensor | None = None, operator: LinearOperator | None = None
) -> Diagnosis:
    """Look for faults in line integrals.

    Data of a wrong sign, or of which the logarithm was not taken, are only warned of as such. Dead, noisy and offset
    detector elements are bridged by interpolation. Slices of a shifted detector are moved back to where the geometry
    says that it is, each by its own shift. Rays whose logarithm was taken of next to nothing are filled in. The other
    checks are of the repaired data.

    Args:
        y: ``(..., *sinogram_shape)``.
        geometry: the scan.
        weights: inverse variance of each entry, of the shape of ``y``; None for noise-free data.
        operator: the ray transform of a planar scan, by which such rays are filled in; without it they are not.

    Returns:
        A finding for each fault, and a record of these statistics, each None where the data do not tell:

        * ``detector_shift_elements``, the mean over the slices that tell, before they are moved.
        * ``truncated_views`` and ``saturated_rays``: shares of the views and of the rays.
        * ``bad_elements``: indices by name of the fault.
        * ``noise_ratio``: measured noise over the expected one.
        * ``metal_ratio``: largest attenuation over that of tissue, in a smooth back-projection.
    """
    record: dict[str, Any] = {"detector_shift_elements": None, "truncated_views": None}
    lines = detector_lines(y.detach(), geometry)
    impossible = [_wrong_sign(lines), _not_logged(lines)]
    findings = [finding for finding in impossible if finding is not None]
    if findings:
        return Diagnosis(record, tuple(findings))
    rows = geometry.sinogram_shape[1] if len(geometry.sinogram_shape) == 3 else 1
    bad = bad_elements(lines, _by_angle(geometry), rows)
    findings += _element_findings(bad, record)
    repaired = None
    if bool(bad.repaired.any()):
        repaired, lines = _undone(bad.data, y, geometry), bad.data
    shifts: list[float | None] = [None] * len(lines)
    if isinstance(geometry, PlanarGeometry):
        told = ~bad.any.any(1) | bad.repaired  # the moments of others say nothing
        shifts = [detector_shift(line, geometry) if fine else None for line, fine in zip(lines, told, strict=True)]
        off = {k: shift for k, shift in enumerate(shifts) if shift is not None and abs(shift) > SHIFT_ELEMENTS}
        if off:
            lines = torch.stack([moved_back(line, off[k]) if k in off else line for k, line in enumerate(lines)])
            repaired = _undone(lines, y, geometry)
            findings.append(_shift_finding(off, len(lines), geometry))
    known = [shift for shift in shifts if shift is not None]
    cut = truncation(y if repaired is None else repaired, geometry)
    record |= {"detector_shift_elements": sum(known) / len(known) if known else None}
    record |= {"truncated_views": None if cut is None else cut.views}
    if cut is not None and cut.views > TRUNCATED_VIEWS:
        findings.append(_truncation_finding(cut, geometry))
    weighted = None if weights is None else detector_lines(weights.detach(), geometry)
    missing = unmeasured_rays(lines) if operator is not None and isinstance(geometry, PlanarGeometry) else None
    findings += _starvation_findings(lines, missing, record)
    if operator is not None and missing is not None and bool(missing.any()):
        lines = with_rays_filled(lines, missing, operator)
        repaired = _undone(lines, y, geometry)
    findings += _noise_findings(lines, weighted, record)
    if isinstance(geometry, PlanarGeometry):
        findings += _metal_findings(lines, geometry, record)
    return Diagnosis(record, tuple(findings), repaired)


def detector_lines(y: Tensor, geometry: Geometry) -> Tensor:
    """Data as ``(lines, views, detectors)``: one line for a slice of a planar scan, or for a row of a panel."""
    rows = y.reshape(-1, *geometry.sinogram_shape)
    return rows if rows.ndim == 3 else rows.movedim(2, 1).flatten(0, 1)


def _by_angle(geometry: Geometry) -> Tensor | None:
    """Indices that sort the views by angle; None for views without angles, which are in the order of their taking."""
    return torch.as_tensor(geometry.angle_array.copy()).argsort() if isinstance(geometry, ScanGeometry) else None


def _undone(lines: Tensor, like: Tensor, geometry: Geometry) -> Tensor:
    """The inverse of :func:`detector_lines`."""
    shape = geometry.sinogram_shape
    if len(shape) == 2:
        return lines.reshape(like.shape)
    views, rows, columns = shape
    return lines.reshape(-1, rows, views, columns).movedim(1, 2).reshape(like.shape)


def _of(where: Tensor) -> str:
    """How many lines are concerned, where there are several."""
    return "" if len(where) == 1 else f" of {int(where.sum())} of {len(where)} slices"


def _wrong_sign(lines: Tensor) -> Finding | None:
    share = plausibility.negative_share(lines)
    wrong = share > plausibility.WRONG_SIGN
    if not bool(wrong.any()):
        return None
    return Finding(
        WRONG_SIGN,
        f"{float(share.max()):.0%} of the line integrals{_of(wrong)}, by their sum, are negative: line integrals are "
        "-log(counts / counts of air); the image will be wrong everywhere: change the sign of the data",
    )


def _not_logged(lines: Tensor) -> Finding | None:
    found = plausibility.looks_unlogged(lines)
    if not bool(found.any()):
        return None
    return Finding(
        NOT_LOGGED,
        f"the data{_of(found)} are largest where the detector sees air and small behind the object, as counts or "
        "transmittances are; the image will be wrong everywhere: take -log(counts / counts of air), or give the "
        "measurement a noise model with post_log=False",
    )


def _element_findings(bad: BadElements, record: dict[str, Any]) -> list[Finding]:
    kinds = {
        DEAD: (bad.dead, "read one constant in all views"),
        NOISY: (bad.noisy, "are far noisier than their neighbours"),
        OFFSET: (bad.offset, "are off by a constant"),
    }
    findings = []
    record["bad_elements"] = {}
    for name, (where, what) in kinds.items():
        slices = where.any(1)
        if not bool(slices.any()):
            continue
        elements = where.any(0).nonzero()[:, 0].tolist()
        record["bad_elements"][name] = elements
        listed = ", ".join(map(str, elements[:_LISTED])) + (", ..." if len(elements) > _LISTED else "")
        done = bool(bad.repaired[slices].all())
        advice = (
            "repaired by interpolation between their neighbours" if done else
            "too many to be repaired, and each is a ring in the image: calibrate the detector, or leave them out"
        )  # fmt: skip
        findings.append(Finding(name, f"elements {listed}{_of(slices)} {what}; {advice}", repaired=done))
    return findings


def _truncation_finding(cut: Truncation, geometry: Geometry) -> Finding:
    wanted = ""
    if isinstance(geometry, PlanarGeometry) and geometry.covering_detectors > geometry.detectors:
        wanted = f" ({geometry.covering_detectors} cover the image, the scan has {geometry.detectors})"
    return Finding(
        TRUNCATED,
        f"the object is wider than the detector: in {cut.views:.0%} of the views the edge of the detector reads up "
        f"to {cut.level:.0%} of the largest line integral instead of air; CT numbers are not reliable, most of all "
        f"near the border: use more detector elements{wanted}",
    )


def _shift_finding(off: Mapping[int, float], count: int, geometry: PlanarGeometry) -> Finding:
    where = torch.tensor([k in off for k in range(count)])
    shift = sum(off.values()) / len(off)
    offset = geometry.detector_offset_mm + shift * geometry.detector_mm
    return Finding(
        SHIFTED,
        f"the data{_of(where)} are those of a detector that is off by {shift:+.2f} elements; repaired by moving them "
        f"back, which costs a little sharpness: better set detector_offset_mm={offset:.4g} in the geometry, or correct "
        "the scan with operators.ct.align_scan",
        repaired=True,
    )


def _starvation_findings(lines: Tensor, missing: Tensor | None, record: dict[str, Any]) -> list[Finding]:
    saturated = plausibility.saturated_share(lines)
    record["saturated_rays"] = float(saturated.max())
    filled = torch.zeros_like(saturated, dtype=torch.bool) if missing is None else missing.any(2).any(1)
    left = (saturated > plausibility.SATURATED) & ~filled
    advice = (
        (left, "expect streaks and dark bands: use more photons, or measure fewer and thicker slices"),
        (filled, "the logarithm was taken of next to nothing; repaired by a smooth image that fits the other rays, and "
         "what only these rays passed through is missing: better clip the counts at a tenth of a photon before"),
    )  # fmt: skip
    return [
        Finding(
            STARVED,
            f"{float(saturated[where].max()):.1%} of the rays{_of(where)} read exactly the largest line integral "
            f"({float(lines[where].amax()):.3g}), as rays without a single photon do; {effect}",
            repaired=where is filled,
        )
        for where, effect in advice
        if bool(where.any())
    ]


def _noise_findings(lines: Tensor, weights: Tensor | None, record: dict[str, Any]) -> list[Finding]:
    record["noise_ratio"] = None
    if weights is None:
        return []
    ratio = plausibility.noise_ratio(lines, weights)
    record["noise_ratio"] = float(ratio.max())
    noisy = ratio > plausibility.NOISE_RATIO
    if not bool(noisy.any()):
        return []
    return [Finding(
        TOO_NOISY,
        f"the noise{_of(noisy)} is {float(ratio.max()):.1f} times as strong as the noise model says; the image "
        "will hold noise as if it were structure: give the measurement the true number of photons",
    )]  # fmt: skip


def _metal_findings(lines: Tensor, geometry: PlanarGeometry, record: dict[str, Any]) -> list[Finding]:
    ratio = plausibility.metal_ratio(lines, geometry)
    record["metal_ratio"] = float(ratio.max())
    found = ratio > plausibility.METAL_RATIO
    if not bool(found.any()):
        return []
    return [Finding(
        METAL,
        f"something{_of(found)} attenuates {float(ratio.max()):.0f} times as much as the tissue around it; networks "
        "and priors have not seen metal, and beam hardening makes streaks: do not trust CT numbers near it",
    )]  # fmt: skip
