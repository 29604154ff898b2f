"""Scans that differ from what the methods assume: photons, angles, detector position, detector gain, first angle."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import torch

from deft_ct.ct.hounsfield import HounsfieldScale
from deft_ct.evaluation.problem import Batch
from deft_ct.measurement.measurement import Measurement
from deft_ct.operators.ct import FanGeometry, ParallelGeometry, RayTransform
from deft_ct.operators.noise import PoissonNoise
from deft_ct.problems.ct import CTProblem

FAULTY = 4
"""Number of detector elements with a gain error."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """How the true scan differs from the nominal one.

    Args:
        name: in the table.
        photons: true photons divided by nominal ones.
        angle_degrees: standard deviation of an independent error of every view angle.
        offset_elements: shift of the detector, in detector elements.
        gain: relative gain error of :data:`FAULTY` elements, half of them up and half down, which the flat-field
            correction misses.
        start_steps: angle of the first view, in steps between views.
        told: whether the methods know the photons and the geometry of the true scan.
    """

    name: str
    photons: float = 1.0
    angle_degrees: float = 0.0
    offset_elements: float = 0.0
    gain: float = 0.0
    start_steps: float = 0.0
    told: bool = False


def true_measurement(nominal: Measurement, case: Case, seed: int) -> Measurement:
    """The scan that takes place, without gain errors.

    Args:
        nominal: a parallel or fan-beam scan of equally spaced views.
        case: what is wrong with it.
        seed: of the errors of the angles.

    Raises:
        ValueError: the case changes the photons of a scan without photon noise.
    """
    assert isinstance(nominal.operator, RayTransform)
    geometry, noise = nominal.operator.geometry, nominal.noise
    assert isinstance(geometry, ParallelGeometry | FanGeometry)
    angles = geometry.angle_array
    errors = np.random.default_rng(seed).standard_normal(len(angles))
    step = angles[1] - angles[0] if len(angles) > 1 else 0.0
    changed = geometry.replace(
        angles=angles + case.start_steps * step + math.radians(case.angle_degrees) * errors,
        detector_offset_mm=geometry.detector_offset_mm + case.offset_elements * geometry.detector_mm,
    )
    if case.photons != 1:
        if not isinstance(noise, PoissonNoise):
            raise ValueError(f"{case.name!r} needs a scan with photon noise, got {type(noise).__name__}")
        noise = dataclasses.replace(noise, photons=case.photons * noise.photons)
    # The operator of an unchanged geometry is reused, because its matrix is expensive.
    operator = nominal.operator
    if changed != geometry:
        operator = RayTransform(changed, nominal.operator.backend, kernel=nominal.operator.kernel)
    return Measurement(operator, noise, units=nominal.units)


def gain_error(detectors: int, case: Case, seed: int) -> torch.Tensor:
    """What the faulty elements add to line integrals, ``(detectors,)``; they lie in the middle half of the detector."""
    added = torch.zeros(detectors)
    chosen = np.random.default_rng(seed).choice(np.arange(detectors // 4, detectors - detectors // 4), FAULTY, False)
    signs = torch.tensor([1.0, -1.0]).repeat(FAULTY // 2)
    added[torch.from_numpy(chosen)] = -(1 + case.gain * signs).log()
    return added


def perturbed(problem: CTProblem, case: Case) -> CTProblem:
    """The slices of a problem with data of the true scan, and the measurement that the methods assume.

    One error is drawn for all slices, as a scanner has one error for all of its slices. Data are simulated on the
    refined grid of the problem.
    """
    scans: dict[object, Measurement] = {}
    batches, first = [], 0
    for y, nominal, names in problem.batches:
        assert isinstance(nominal.operator, RayTransform)
        key = nominal.operator.geometry
        if key not in scans:
            scans[key] = true_measurement(nominal, case, problem.seed)
        true = scans[key]
        hu = torch.from_numpy(problem.truth[first : first + len(names), None]).to(y)
        first += len(names)
        x = HounsfieldScale().to_attenuation(hu)
        data = true.simulate(x, seed=problem.seed, image_ids=names, refine=problem.refine)
        data = data + gain_error(data.shape[-1], case, problem.seed).to(data)
        batches.append(Batch(data, true if case.told else nominal, names))
    return problem.with_batches(batches)
